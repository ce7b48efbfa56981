//! Why an attempt failed, and what that means for the next one.

use super::attempt::Answered;
use super::local::Flag;
use super::timeout::{Clock, Over};
use crate::upstream::Outcome;
use crate::upstream::pool::ConnectError;
use std::fmt;

/// Why an attempt has no response, or none that is good enough.
pub enum Failure {
    /// No connection.
    Connect(ConnectError),
    /// The peer refused the stream before processing it.
    Refused,
    /// The peer's GOAWAY names an earlier stream as the last one that it processes.
    GoneAway,
    /// The connection or stream broke before a response.
    Reset {
        /// Whether the request's head had been sent.
        request_sent: bool,
        /// Whether the connection had served another request before.
        reused: bool,
        /// What broke.
        reason: String,
    },
    /// The attempt's own time was over.
    PerTryTimeout,
    /// The request's time was over.
    RouteTimeout,
    /// Nothing moved for the stream's idle timeout.
    Idle {
        /// Whether the request had been received whole, so that the endpoint is to blame.
        request_complete: bool,
    },
    /// The stream lived as long as a stream may.
    StreamDuration {
        /// As with [`Failure::Idle`].
        request_complete: bool,
        /// Whether it is the cluster's limit, not the route's.
        is_upstream: bool,
    },
    /// The client is gone.
    DownstreamGone,
    /// The response is no valid HTTP.
    Malformed(String),
    /// The request cannot be said in the upstream's HTTP version.
    Unconvertible(String),
    /// A breaker is open.
    Overflow,
    /// A response that the retry policy does not accept.
    Response(Box<Answered>),
}

impl Failure {
    pub(super) fn of_h2(error: &h2::Error, request_sent: bool) -> Self {
        if error.reason() == Some(h2::Reason::REFUSED_STREAM) {
            return Self::Refused;
        }
        // A connection that says goodbye, for whatever reason, names the last stream it has processed (RFC 9113 §6.8). The h2
        // crate fails those above it, and new ones, with the GOAWAY; those below break when the connection does.
        if error.is_go_away() && error.is_remote() {
            return Self::GoneAway;
        }
        Self::Reset { request_sent, reused: true, reason: error.to_string() }
    }

    /// A limit that was reached.
    pub(super) fn of_clock(over: Over, clock: &Clock) -> Self {
        let request_complete = clock.is_complete();
        match over {
            Over::Route => Self::RouteTimeout,
            Over::PerTry | Over::PerTryIdle => Self::PerTryTimeout,
            Over::Idle => Self::Idle { request_complete },
            Over::Duration => Self::StreamDuration { request_complete, is_upstream: false },
            Over::UpstreamDuration => Self::StreamDuration { request_complete, is_upstream: true },
        }
    }

    /// What the retry policy decides on.
    pub fn attempted(&self) -> weft_rules::Attempt {
        match self {
            Self::Connect(_) => weft_rules::Attempt::ConnectFailure,
            Self::Refused | Self::GoneAway => weft_rules::Attempt::RefusedStream,
            Self::Reset { request_sent, .. } => weft_rules::Attempt::Reset { request_sent: *request_sent },
            Self::PerTryTimeout => weft_rules::Attempt::PerTryTimeout,
            Self::Malformed(_) => weft_rules::Attempt::Reset { request_sent: true },
            Self::Overflow
            | Self::RouteTimeout
            | Self::Idle { .. }
            | Self::StreamDuration { .. }
            | Self::DownstreamGone
            | Self::Unconvertible(_)
            | Self::Response(_) => weft_rules::Attempt::Overflow,
        }
    }

    /// What it says about the endpoint.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Connect(_) => Outcome::ConnectFailure,
            Self::PerTryTimeout | Self::RouteTimeout => Outcome::Timeout,
            // The endpoint is leaving, which is no fault; the client's or our own doing says nothing about it.
            Self::Refused
            | Self::GoneAway
            | Self::DownstreamGone
            | Self::Unconvertible(_)
            | Self::Overflow
            | Self::Idle { .. }
            | Self::StreamDuration { .. }
            | Self::Response(_) => Outcome::Cancelled,
            Self::Reset { .. } | Self::Malformed(_) => Outcome::Reset,
        }
    }

    /// Whether another attempt cannot help.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::RouteTimeout
                | Self::Idle { .. }
                | Self::StreamDuration { .. }
                | Self::DownstreamGone
                | Self::Unconvertible(_)
        )
    }

    /// Whether the request should be sent again at once on a new connection, which is no attempt of its own: this one failed
    /// because its connection had come to its end.
    ///
    /// An application may close a connection at the very moment a request is sent on it. The request may be repeated where no byte
    /// of it can have been read, or where the method allows it (RFC 9112 §9.3.1).
    pub fn may_be_resent(&self, method: &[u8]) -> bool {
        match self {
            Self::GoneAway => true,
            Self::Reset { reused, request_sent, .. } => *reused && (!request_sent || is_idempotent(method)),
            _ => false,
        }
    }

    /// Whether the connection broke without a word of an answer, under a request that may be repeated though it was perhaps taken
    /// (RFC 9110 §9.2.2).
    pub fn may_be_repeated(&self, method: &[u8]) -> bool {
        matches!(self, Self::Reset { .. }) && is_idempotent(method)
    }

    /// Whether no byte of the request reached the application.
    pub fn is_undelivered(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Refused | Self::GoneAway | Self::Overflow => true,
            Self::Reset { request_sent, .. } => !request_sent,
            _ => false,
        }
    }

    /// The status that tells the client.
    pub fn status(&self) -> u16 {
        match self {
            Self::PerTryTimeout | Self::RouteTimeout => 504,
            // As Envoy: the client is to blame as long as it owes a part of its request.
            Self::Idle { request_complete: false } | Self::StreamDuration { request_complete: false, .. } => 408,
            Self::Idle { .. } | Self::StreamDuration { .. } => 504,
            Self::Malformed(_) => 502,
            Self::Unconvertible(_) => 400,
            _ => 503,
        }
    }

    /// The flag that tells the operator.
    pub fn flag(&self) -> Flag {
        match self {
            Self::Connect(_) => Flag::ConnectFailure,
            Self::Refused | Self::GoneAway | Self::Reset { .. } | Self::Malformed(_) | Self::Response(_) => {
                Flag::UpstreamReset
            }
            Self::PerTryTimeout | Self::RouteTimeout => Flag::Timeout,
            Self::Idle { .. } => Flag::StreamIdle,
            Self::StreamDuration { is_upstream: true, .. } => Flag::UpstreamDuration,
            Self::StreamDuration { .. } => Flag::StreamDuration,
            Self::DownstreamGone => Flag::DownstreamClosed,
            Self::Unconvertible(_) => Flag::Malformed,
            Self::Overflow => Flag::Overflow,
        }
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Overflow => Self::Overflow,
            error => Self::Connect(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "{error}"),
            Self::Refused => f.write_str("the peer refused the stream"),
            Self::GoneAway => f.write_str("the peer closed the connection before it looked at the stream"),
            Self::Reset { reason, .. } => write!(f, "{reason}"),
            Self::PerTryTimeout => f.write_str("no response within the attempt's timeout"),
            Self::RouteTimeout => f.write_str("no response within the route's timeout"),
            Self::Idle { request_complete: false } => f.write_str("the rest of the request did not come"),
            Self::Idle { .. } => f.write_str("nothing moved within the stream's idle timeout"),
            Self::StreamDuration { .. } => f.write_str("the stream outlived its longest duration"),
            Self::DownstreamGone => f.write_str("the client went away"),
            Self::Malformed(reason) => write!(f, "malformed response: {reason}"),
            Self::Unconvertible(reason) => {
                write!(f, "the request cannot be sent in the upstream's HTTP version: {reason}")
            }
            Self::Overflow => f.write_str("a circuit breaker is open"),
            Self::Response(_) => f.write_str("the response asks for another attempt"),
        }
    }
}
