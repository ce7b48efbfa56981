//! What a peer did wrong, and what to answer.

use thiserror::Error;

/// Why a head was refused. The text is one line, fit for a response's body and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadError {
    /// RFC 9112 §3.
    #[error("the request line is not a method, a target and a version separated by single spaces")]
    RequestLine,
    /// RFC 9112 §4.
    #[error("the status line is not a version, a status code of three digits and a reason")]
    StatusLine,
    /// RFC 9112 §2.2 lets a server ignore some.
    #[error("there are more than {limit} empty lines before the request line")]
    LeadingEmptyLines {
        /// How many are ignored.
        limit: usize,
    },
    /// RFC 9112 §2.3.
    #[error("the version is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
    /// Envoy's `accept_http_10` is off.
    #[error("HTTP/1.0 is not accepted here: use HTTP/1.1, or set accept_http_10")]
    Http10NotAccepted,
    /// RFC 9112 §3.2.
    #[error("the request target is not a path, an absolute URI, or what its method allows")]
    Target,
    /// RFC 9112 §3.2.3.
    #[error("the target of CONNECT is not host:port")]
    ConnectTarget,
    /// RFC 9110 §9.3.6: content of CONNECT has no meaning.
    #[error("CONNECT with a body")]
    ConnectBody,
    /// The first line alone exceeds the limit for the head.
    #[error("the first line is longer than the limit of {limit} bytes for a head (max_request_headers_kb)")]
    FirstLineTooLong {
        /// `max_head_bytes`.
        limit: usize,
    },
    /// The head exceeds its limit.
    #[error("the head is larger than the limit of {limit} bytes (max_request_headers_kb)")]
    HeadTooLarge {
        /// `max_head_bytes`.
        limit: usize,
    },
    /// The head has too many fields.
    #[error("there are more fields than the limit of {limit} (max_headers_count)")]
    TooManyFields {
        /// `max_fields`.
        limit: usize,
    },
    /// RFC 9112 §2.2: lines end with CRLF.
    #[error("a line ends with LF alone instead of CR LF")]
    BareLineFeed,
    /// RFC 9112 §2.2.
    #[error("CR without LF")]
    BareCarriageReturn,
    /// RFC 9112 §5.2.
    #[error("a line begins with whitespace (obsolete line folding)")]
    ObsFold,
    /// RFC 9112 §5.1.
    #[error("whitespace between a field's name and its colon")]
    SpaceBeforeColon,
    /// RFC 9110 §5.1.
    #[error("a field's name is empty, or has a character that is not allowed, or no colon follows it")]
    FieldName,
    /// RFC 9110 §5.5.
    #[error("a field's value has a control character")]
    FieldValue,
    /// RFC 9112 §3.2.
    #[error("HTTP/1.1 without a Host field")]
    MissingHost,
    /// RFC 9112 §3.2.
    #[error("more than one Host field")]
    DuplicateHost,
    /// RFC 9110 §7.2.
    #[error("the Host field is not host[:port]")]
    InvalidHost,
    /// RFC 9110 §8.6: digits only, and within 63 bits.
    #[error("Content-Length is not a decimal number below 2^63")]
    InvalidContentLength,
    /// RFC 9112 §6.3 lets equal ones pass; whoever repeats it may as well mean two messages.
    #[error("more than one Content-Length")]
    RepeatedContentLength,
    /// RFC 9112 §6.1.
    #[error("Content-Length together with Transfer-Encoding")]
    ContentLengthWithTransferEncoding,
    /// RFC 9112 §6.1.
    #[error("Transfer-Encoding is not exactly `chunked`")]
    InvalidTransferEncoding,
    /// RFC 9112 §6.1: 501 for a coding that is not understood.
    #[error("Transfer-Encoding names a coding other than chunked")]
    UnknownTransferCoding,
    /// RFC 9112 §6.1.
    #[error("Transfer-Encoding in an HTTP/1.0 message")]
    TransferEncodingInHttp10,
    /// RFC 9110 §15.2.2.
    #[error("101 to a request that asked for no upgrade")]
    UnsolicitedUpgrade,
}

impl HeadError {
    /// The status that answers a request with this error. (A response with it becomes a 502.) The
    /// connection is closed after the answer: where the next message begins is unknown.
    pub fn status(self) -> u16 {
        match self {
            Self::FirstLineTooLong { .. } => 414,
            Self::HeadTooLarge { .. } | Self::TooManyFields { .. } => 431,
            Self::UnknownTransferCoding => 501,
            Self::Version => 505,
            Self::Http10NotAccepted => 426,
            _ => 400,
        }
    }
}

/// Why a body was refused. Its head may have been forwarded by then: the message is aborted, by closing
/// the connection or resetting the stream, never ended as if it were complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    /// RFC 9112 §7.1: one or more hexadecimal digits, then `;` or CRLF.
    #[error("a chunk's size is not a hexadecimal number followed by CR LF or an extension")]
    ChunkSize,
    /// The size needs more than 63 bits.
    #[error("a chunk's size is not below 2^63, or has needless zeros")]
    ChunkSizeOverflow,
    /// RFC 9112 §7.1.1: extensions are of no use here, so they are bounded tightly.
    #[error("chunk extensions exceed {limit} bytes in one body")]
    ExtensionsTooLong {
        /// Bytes allowed in one body.
        limit: usize,
    },
    /// RFC 9112 §7.1.1.
    #[error("a chunk extension has a control character, or its line ends without CR LF")]
    Extension,
    /// More or fewer bytes than the chunk's size before the CRLF.
    #[error("a chunk is not followed by CR LF")]
    ChunkEnd,
    /// A malformed trailer section.
    #[error("in the trailers: {0}")]
    Trailers(#[source] HeadError),
    /// RFC 9110 §6.5.1: framing and routing cannot come in trailers.
    #[error("Content-Length, Transfer-Encoding or Host among the trailers")]
    ForbiddenTrailer,
    /// The connection ended first.
    #[error("the connection ended before the body did")]
    Truncated,
}

impl BodyError {
    /// The status that answers a request with this error, if its response has not begun.
    pub fn status(self) -> u16 {
        match self {
            Self::Trailers(error) => error.status(),
            _ => 400,
        }
    }
}

/// The caller's body is not what its head announced. The connection must be closed: the peer would take
/// what comes next for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// More bytes than Content-Length.
    #[error("the body has {excess} bytes more than its announced length")]
    TooLong {
        /// Bytes too many.
        excess: u64,
    },
    /// Fewer bytes than Content-Length.
    #[error("the body ended {missing} bytes before its announced length")]
    TooShort {
        /// Bytes that did not come.
        missing: u64,
    },
}
