//! What an attempt says about the endpoint it went to.

use std::time::Duration;

/// How an attempt ended, for the endpoint's load and outlier detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response came.
    Response {
        /// The HTTP status.
        status: u16,
        /// `grpc-status`, from the head or the trailers.
        grpc_status: Option<u32>,
        /// `Retry-After`, or gRPC's push-back.
        retry_after: Option<Duration>,
    },
    /// No connection could be made, or its handshake failed or took too long.
    ConnectFailure,
    /// The connection or stream broke before the response was whole.
    Reset,
    /// No response in time.
    Timeout,
    /// The client went away: says nothing about the endpoint.
    Cancelled,
}

impl Outcome {
    /// An ordinary response.
    pub fn status(status: u16) -> Self {
        Self::Response { status, grpc_status: None, retry_after: None }
    }

    /// The HTTP status that outlier detection counts: of gRPC its equivalent, of failures on this side 503 or 504, as in Envoy.
    pub(super) fn effective_status(self) -> Option<u16> {
        match self {
            Self::Response { grpc_status: Some(code), status: 200, .. } => Some(http_status_of_grpc(code)),
            Self::Response { status, .. } => Some(status),
            Self::ConnectFailure | Self::Reset => Some(503),
            Self::Timeout => Some(504),
            Self::Cancelled => None,
        }
    }

    /// Whether the failure was seen on this side rather than told by the endpoint.
    pub(super) fn is_local_origin(self) -> bool {
        matches!(self, Self::ConnectFailure | Self::Reset | Self::Timeout)
    }

    /// Whether the endpoint should get less: it is overloaded, or cannot be reached. An application's plain 500 is no sign of load.
    pub(super) fn is_penalized(self) -> bool {
        self.is_local_origin() || matches!(self.effective_status(), Some(429 | 502..=504))
    }

    pub(super) fn pause(self) -> Option<Duration> {
        match self {
            Self::Response { retry_after, .. } if self.is_penalized() => retry_after,
            _ => None,
        }
    }
}

/// The mapping of `google.rpc.Code`.
fn http_status_of_grpc(code: u32) -> u16 {
    match code {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_failure_counts_though_its_http_status_is_200() {
        let outcome = |code| Outcome::Response { status: 200, grpc_status: Some(code), retry_after: None };
        assert_eq!(outcome(0).effective_status(), Some(200));
        assert_eq!(outcome(14).effective_status(), Some(503));
        assert!(outcome(8).is_penalized());
        assert!(!outcome(13).is_penalized());
    }
}
