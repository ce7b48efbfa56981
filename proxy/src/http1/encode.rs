//! Heads and bodies, to bytes.

use crate::http::{Fields, Framing, RequestHead, ResponseHead};

use super::EncodeError;

/// Appends the request's head to `out`, as HTTP/1.1, with its target as it is.
///
/// Fields keep their order, case and bytes. Content-Length and Transfer-Encoding are replaced only where they do
/// not already say what `framing` does; a missing Host is added from the authority. Fields that end at
/// this hop are the caller's to remove ([`strip_hop_by_hop`](super::strip_hop_by_hop)).
///
/// A request's body cannot be ended by closing: `framing` is never `UntilClose`.
pub fn encode_request(head: &RequestHead, framing: Framing, out: &mut Vec<u8>) {
    debug_assert_ne!(framing, Framing::UntilClose, "only a response ends by closing");
    out.reserve(head.method().len() + head.target().len() + head.fields.bytes_len() + 64);
    out.extend_from_slice(head.method());
    out.push(b' ');
    out.extend_from_slice(head.target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !head.fields.contains("host") {
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(head.authority());
        out.extend_from_slice(b"\r\n");
    }
    let keep_length = false;
    write_fields(&head.fields, framing, keep_length, out);
}

/// Appends the response's head to `out`, as HTTP/1.1.
///
/// Fields are treated as by [`encode_request`]. `Framing::None` is for responses that have no body by their nature: to
/// HEAD, 304, 1xx, 204, 2xx to CONNECT. The first two keep the Content-Length of the body they do not have. Any
/// other response without a body is `Length(0)`.
pub fn encode_response(head: &ResponseHead, framing: Framing, out: &mut Vec<u8>) {
    out.reserve(head.reason().len() + head.fields.bytes_len() + 64);
    out.extend_from_slice(b"HTTP/1.1 ");
    write_decimal(u64::from(head.status()), out);
    out.push(b' ');
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    // RFC 9110 §8.6 forbids it in 1xx and 204.
    let keep_length = head.status() >= 200 && head.status() != 204;
    write_fields(&head.fields, framing, keep_length, out);
}

/// Writes the fields with those that announce the framing, and the empty line.
fn write_fields(fields: &Fields, framing: Framing, keep_length: bool, out: &mut Vec<u8>) {
    match stated_framing(fields) {
        Stated::Exactly(stated) if stated == framing => fields.write_lines(out),
        Stated::Exactly(Framing::Length(_)) if framing == Framing::None && keep_length => {
            fields.write_lines(out);
        }
        Stated::Exactly(Framing::None) => {
            fields.write_lines(out);
            write_framing(framing, out);
        }
        _ => {
            let keep_length = keep_length && framing == Framing::None;
            for (name, value) in fields.iter() {
                let length = name.eq_ignore_ascii_case(b"content-length");
                let coding = name.eq_ignore_ascii_case(b"transfer-encoding");
                if coding || (length && !keep_length) {
                    continue;
                }
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
            write_framing(framing, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// What the fields announce.
enum Stated {
    /// This, and in its plainest form. (`UntilClose` and `None` are both stated by saying nothing.)
    Exactly(Framing),
    /// Something that has to be said anew.
    Unclear,
}

fn stated_framing(fields: &Fields) -> Stated {
    let mut stated = Framing::None;
    for (name, value) in fields.iter() {
        let this = match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => plain_decimal(value).map(Framing::Length),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                value.eq_ignore_ascii_case(b"chunked").then_some(Framing::Chunked)
            }
            _ => continue,
        };
        match this {
            Some(this) if stated == Framing::None => stated = this,
            _ => return Stated::Unclear,
        }
    }
    Stated::Exactly(stated)
}

/// A decimal number as we would write it: digits without leading zeros.
fn plain_decimal(text: &[u8]) -> Option<u64> {
    if text.len() > 1 && text[0] == b'0' {
        return None;
    }
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn write_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            write_decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
}

/// Frames one body, and watches that it is as long as announced.
///
/// The data itself goes beside: between [`begin_chunk`](Self::begin_chunk) and
/// [`end_chunk`](Self::end_chunk) the caller writes exactly so many bytes, copied or in place.
/// [`data`](Self::data) does all three for bytes that are copied anyway.
///
/// ```
/// use weft_proxy::http::Framing;
/// use weft_proxy::http1::BodyEncoder;
///
/// let mut body = BodyEncoder::new(Framing::Chunked);
/// let mut out = Vec::new();
/// body.data(b"hello", &mut out).unwrap();
/// body.end(&mut out).unwrap();
/// assert_eq!(out, b"5\r\nhello\r\n0\r\n\r\n");
/// ```
#[derive(Debug)]
pub struct BodyEncoder {
    state: State,
    drops_trailers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Bytes of `Content-Length` that have not come.
    Length(u64),
    Chunked,
    UntilClose,
    Ended,
}

impl BodyEncoder {
    /// An encoder for a body that the head announced with `framing`.
    pub fn new(framing: Framing) -> Self {
        Self {
            state: match framing {
                Framing::None => State::Length(0),
                Framing::Length(length) => State::Length(length),
                Framing::Chunked => State::Chunked,
                Framing::UntilClose => State::UntilClose,
            },
            drops_trailers: false,
        }
    }

    /// Whether trailers are written (`enable_trailers`); otherwise the body ends without them.
    #[must_use]
    pub fn with_trailers(self, trailers: bool) -> Self {
        Self { drops_trailers: !trailers, ..self }
    }

    /// Appends what goes before `len` bytes of data.
    ///
    /// # Errors
    /// The body would be longer than announced; nothing may be written any more.
    pub fn begin_chunk(&mut self, len: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let bytes = len as u64;
        match self.state {
            State::Length(left) => match left.checked_sub(bytes) {
                Some(left) => self.state = State::Length(left),
                None => {
                    return Err(EncodeError::TooLong { excess: bytes - left });
                }
            },
            // A chunk of size 0 would end the body.
            State::Chunked if len > 0 => {
                write_hexadecimal(bytes, out);
                out.extend_from_slice(b"\r\n");
            }
            State::Ended if len > 0 => return Err(EncodeError::TooLong { excess: bytes }),
            State::Chunked | State::UntilClose | State::Ended => {}
        }
        Ok(())
    }

    /// Appends what goes after the `len` bytes of data that [`begin_chunk`](Self::begin_chunk) announced.
    pub fn end_chunk(&mut self, len: usize, out: &mut Vec<u8>) {
        if self.state == State::Chunked && len > 0 {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends `data`, framed.
    ///
    /// # Errors
    /// As [`begin_chunk`](Self::begin_chunk).
    pub fn data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.begin_chunk(data.len(), out)?;
        out.extend_from_slice(data);
        self.end_chunk(data.len(), out);
        Ok(())
    }

    /// Appends the end of the body.
    ///
    /// # Errors
    /// The body is shorter than announced: the connection must be closed without another byte.
    pub fn end(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.finish(None, out)
    }

    /// Appends the end of the body with trailers. Only a chunked body can carry them: elsewhere they are
    /// dropped, as RFC 9110 §6.5.1 allows.
    ///
    /// # Errors
    /// As [`end`](Self::end).
    pub fn trailers(&mut self, trailers: &Fields, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.finish(Some(trailers).filter(|_| !self.drops_trailers), out)
    }

    /// Whether the end can still be written, or has been: nothing is missing from an announced length.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Ended | State::Length(0))
    }

    fn finish(&mut self, trailers: Option<&Fields>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self.state {
            State::Length(0) | State::UntilClose | State::Ended => {}
            State::Length(missing) => return Err(EncodeError::TooShort { missing }),
            State::Chunked => {
                out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    trailers.write_lines(out);
                }
                out.extend_from_slice(b"\r\n");
            }
        }
        self.state = State::Ended;
        Ok(())
    }
}

fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    // 2^64 has 20 digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn write_hexadecimal(number: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(DIGITS[(number >> (4 * digit) & 0xf) as usize]);
    }
}
