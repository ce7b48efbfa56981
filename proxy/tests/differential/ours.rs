//! Our verdict, and what is sent to everybody because of it.

use weft_proxy::http::{Framing, RequestHead};
use weft_proxy::http1::{HeadError, Limits, RequestDecoder};

use super::Verdict;

/// A generated head and what follows it on the connection.
pub(crate) struct Exchange {
    /// As generated.
    pub(crate) head: Vec<u8>,
    /// The head; and if we accept it, a body as we understand it and the request `/probe`.
    pub(crate) bytes: Vec<u8>,
    /// Ours.
    pub(crate) verdict: Verdict,
    /// Why we refuse.
    pub(crate) error: Option<HeadError>,
    /// What we read, as far as we read it.
    pub(crate) request: RequestHead,
    /// Whether the probe must be answered: the connection stays one for HTTP.
    pub(crate) probed: bool,
}

/// The request after the head.
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n";

/// Bodies are sent in full up to this length; beyond, nothing follows the head.
const MAX_BODY: u64 = 100;

/// Decides on `head`.
pub(crate) fn decide(head: Vec<u8>) -> Exchange {
    let limits = Limits { accept_http10: true, ..Limits::default() };
    let mut request = RequestHead::new();
    let mut bytes = head.clone();
    let mut probed = false;
    let decoded = RequestDecoder::new(limits).decode(&head, &mut request);
    let (verdict, error) = match decoded {
        Ok(None) => (Verdict::Incomplete, None),
        Err(error) => (Verdict::Refuse(error.status()), Some(error)),
        Ok(Some(parsed)) => {
            // A mutation can end the head early; what was generated after it would be taken for a body.
            bytes.truncate(parsed.consumed);
            probed = parsed.keep_alive && !parsed.connect && !parsed.upgrade;
            match parsed.framing {
                Framing::Length(length) if length > MAX_BODY => probed = false,
                Framing::Length(length) => bytes.extend((0..length).map(|_| b'x')),
                Framing::Chunked => bytes.extend_from_slice(b"3;e=1\r\nabc\r\n0\r\nT: 1\r\n\r\n"),
                Framing::None | Framing::UntilClose => {}
            }
            if probed {
                bytes.extend_from_slice(PROBE);
            }
            let framing = match parsed.framing {
                Framing::Length(0) => Framing::None,
                framing => framing,
            };
            (Verdict::Accept(framing), None)
        }
    };
    Exchange { head, bytes, verdict, error, request, probed }
}

impl Exchange {
    /// The verdict, with the name of the error if it has one.
    pub(crate) fn reason(&self) -> String {
        match &self.error {
            Some(error) => format!("{} {error:?}", self.verdict),
            None => self.verdict.to_string(),
        }
    }
}
