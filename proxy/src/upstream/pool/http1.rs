//! An HTTP/1.1 connection to an endpoint.

use super::PoolKey;
use super::connect::Connected;
use super::life::{self, Life};
use crate::http1::{Limits, ResponseDecoder};
use crate::stream::wire::Wire;
use crate::upstream::Endpoint;
use crate::upstream::breaker::Permit;
use std::sync::Weak;

/// An HTTP/1.1 connection to an endpoint, used by one request at a time.
pub struct Http1Connection {
    /// Its transport and buffers.
    pub wire: Wire,
    /// Reads the responses.
    pub decoder: ResponseDecoder,
    /// Whether the peer proved who it is.
    pub authenticated: bool,
    /// Whether it has served a request before.
    pub reused: bool,
    pub(super) life: Life,
    pub(super) key: PoolKey,
    endpoint: Option<Weak<Endpoint>>,
    _permit: Permit,
}

impl Http1Connection {
    pub(super) fn new(
        connected: Connected,
        key: PoolKey,
        limits: life::Limits,
        endpoint: Option<Weak<Endpoint>>,
    ) -> Box<Self> {
        Box::new(Self {
            wire: Wire::new(connected.io, Vec::new()),
            decoder: ResponseDecoder::new(Limits::default()),
            authenticated: connected.authenticated,
            reused: false,
            life: Life::begin(limits),
            key,
            endpoint,
            _permit: connected.permit,
        })
    }

    /// Whether its endpoint still exists.
    pub(super) fn is_wanted(&self) -> bool {
        self.endpoint.as_ref().is_none_or(|endpoint| endpoint.strong_count() > 0)
    }
}
