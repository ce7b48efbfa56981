//! Where an attempt goes.

use super::connect::{self, ConnectError, Connected, mesh_alpn};
use super::{Http1Connection, Lease, PoolKey, http2, life};
use crate::http::{RequestHead, Version};
use crate::request::Downstream;
use crate::tls::verifier::expected_peer;
use crate::tls::{ClientTls, ExpectedPeer, LocalIdentity};
use crate::upstream::{Cluster, Endpoint, EndpointId, Outcome, PickContext, PickError, Protocol};
use crate::worker::Worker;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// An endpoint of a cluster, or the original destination where the cluster has no endpoints of its own.
#[derive(Clone)]
pub struct Target {
    cluster: Arc<Cluster>,
    endpoint: Option<Arc<Endpoint>>,
    address: SocketAddr,
}

/// What tells targets apart. Endpoints have an id that is never used again, also when their identity changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetId {
    /// An endpoint and what is spoken with it.
    Endpoint(EndpointId, Protocol),
    /// An address under a cluster's settings.
    Address(u64, SocketAddr, Protocol),
}

impl Target {
    /// Chooses an endpoint, avoiding those tried before.
    ///
    /// # Errors
    /// When there is none to choose.
    pub fn pick(
        cluster: &Arc<Cluster>,
        downstream: &Downstream,
        tried: &[EndpointId],
        random: u64,
    ) -> Result<Self, PickError> {
        if cluster.is_original_destination() {
            return Ok(Self { cluster: cluster.clone(), endpoint: None, address: downstream.destination });
        }
        let endpoint = cluster.pick(&PickContext { tried, random })?;
        Ok(Self { cluster: cluster.clone(), address: endpoint.address(), endpoint: Some(endpoint) })
    }

    /// Its cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Its endpoint, if the cluster has some.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.endpoint.as_ref()
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells the endpoint how an attempt ended whose answer, or failure, took `latency` to come.
    pub fn finish(&self, outcome: Outcome, latency: Duration) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.finish(outcome, latency, Instant::now());
        }
    }

    /// How to secure a connection to it; `None` for plaintext.
    ///
    /// # Errors
    /// When the identity that EDS gives it is none.
    pub fn tls(&self, protocol: Protocol, local: &Arc<LocalIdentity>) -> Option<Result<ClientTls, String>> {
        let endpoint = self.endpoint.as_ref()?;
        let tls = endpoint.tls()?;
        let expected = match endpoint.identity() {
            Some(identity) => expected_peer(&identity.spiffe, identity.pod.as_deref()),
            None => Ok(ExpectedPeer::default()),
        };
        // Between sidecars the name says which protocol is inside; a context of another mesh keeps its own list.
        let mesh = mesh_alpn(protocol);
        let alpn = tls.alpn().iter().any(|name| name == mesh.as_bytes()).then_some(mesh);
        Some(expected.map(|expected| tls.client(local, expected, alpn)).map_err(|error| error.to_string()))
    }

    /// A connection for a request: one that idles, or a new one. With `fresh` only a new one will do. An application that may be ending
    /// gets a new one too, which is kept for no other request.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn lease(
        &self,
        worker: &Rc<Worker>,
        downstream: &Downstream,
        request: &RequestHead,
        fresh: bool,
    ) -> Result<Lease, ConnectError> {
        let protocol = self.cluster.http_protocol(request.version == Version::Http2);
        let key = PoolKey { target: self.id(protocol), generation: worker.shared.identity.generation() };
        let connect = || connect::connect(worker.clone(), downstream.clone(), self.clone(), protocol);
        let leaving = downstream.leads_to_leaving(worker);
        if protocol == Protocol::Http2 {
            let settings = http2::Settings::of(&self.cluster.config());
            let leased = if leaving {
                // Boxed: a connection's task is as large as its largest state, and this one is rare.
                Box::pin(http2::alone(&settings, connect(), self.cluster.connect_timeout())).await
            } else {
                worker.pools.slot(key).lease(&settings, connect).await
            };
            return leased.map(Lease::Http2);
        }
        if !fresh
            && !leaving
            && let Some(mut connection) = worker.pools.take_http1(&key)
        {
            connection.reused = true;
            connection.life.count_request();
            return Ok(Lease::Http1(connection));
        }
        let connection = self.connection(connect().await?, key);
        connection.life.count_request();
        Ok(Lease::Http1(connection))
    }

    /// A connection of raw bytes, for a CONNECT that ends here.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn tunnel(
        &self,
        worker: &Rc<Worker>,
        downstream: &Downstream,
    ) -> Result<Box<Http1Connection>, ConnectError> {
        let connected = connect::connect(worker.clone(), downstream.clone(), self.clone(), Protocol::Tcp).await?;
        let key = PoolKey { target: self.id(Protocol::Tcp), generation: worker.shared.identity.generation() };
        Ok(self.connection(connected, key))
    }

    fn connection(&self, connected: Connected, key: PoolKey) -> Box<Http1Connection> {
        let endpoint = self.endpoint.as_ref().map(Arc::downgrade);
        Http1Connection::new(connected, key, life::Limits::of(&self.cluster.config()), endpoint)
    }

    fn id(&self, protocol: Protocol) -> TargetId {
        match &self.endpoint {
            Some(endpoint) => TargetId::Endpoint(endpoint.id(), protocol),
            None => TargetId::Address(self.cluster.id(), self.address, protocol),
        }
    }
}
