//! A connection's life: inspect → choose a filter chain → terminate TLS → serve.

use super::detect::{ClientHello, Protocol, Sniffed, read_some, sniff, speaks_http2};
use crate::ads::Lookup;
use crate::observe;
use crate::request::local::{Flag, LocalReply};
use crate::request::{Direction, Downstream, server_http1, server_http2};
use crate::snapshot::{ChainBody, Codec, Criteria, FilterChain, HttpChain, Listener, Transport, UnknownDestination};
use crate::stream::BoxIo;
use crate::stream::prefixed::Prefixed;
use crate::stream::sweep::{Passed, race};
use crate::stream::wire::Wire;
use crate::tcp;
use crate::tls;
use crate::worker::Worker;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tracing::debug;
use weft_rules::view::NoRequest;
use weft_xds::names::{ALPN_H2, ALPN_HTTP1, ALPN_TCP};

/// Serves a connection of the local application, whose listener is found by its original destination.
pub async fn serve_outbound(worker: Rc<Worker>, io: BoxIo, downstream: Downstream) {
    let Some(on_demand) = &worker.shared.on_demand else { return };
    let destination = downstream.destination;
    match on_demand.outbound(destination).await {
        Lookup::Found(listener) => serve(worker, listener, io, downstream).await,
        Lookup::Absent => match scope(&worker, destination) {
            Scope { unknown: UnknownDestination::PassThrough, .. } => tcp::pass_through(&worker, io, &downstream).await,
            Scope { unknown: UnknownDestination::Refuse, .. } => {
                let text = format!("{destination} is not known to the mesh, and unknown destinations are refused\n");
                refuse(&worker, io, downstream, LocalReply::new(502, Flag::NoRoute, text)).await;
            }
        },
        Lookup::NoAnswer => {
            if !scope(&worker, destination).is_mesh {
                return tcp::pass_through(&worker, io, &downstream).await;
            }
            let text = format!("no configuration for {destination} arrived in time: is the control plane reachable?\n");
            refuse(&worker, io, downstream, LocalReply::new(503, Flag::NoConfiguration, text)).await;
        }
    }
}

/// What the mesh says about an address for which there is no listener.
struct Scope {
    is_mesh: bool,
    unknown: UnknownDestination,
}

fn scope(worker: &Worker, destination: std::net::SocketAddr) -> Scope {
    let listener = worker.store().listener(&worker.settings().inbound_listener);
    match listener.as_ref().and_then(|listener| listener.mesh.as_ref()) {
        Some(mesh) => Scope { is_mesh: mesh.contains(destination.ip()), unknown: mesh.unknown_destination },
        None => Scope { is_mesh: false, unknown: UnknownDestination::PassThrough },
    }
}

/// Says no in the client's own protocol where that is HTTP; elsewhere the connection is closed.
async fn refuse(worker: &Rc<Worker>, mut io: BoxIo, downstream: Downstream, answer: LocalReply) {
    debug!(destination = %downstream.destination, flag = ?answer.flag, "connection refused");
    let mut received = Vec::new();
    let budget = worker.sweep.after(worker.settings().detection_budget);
    match sniff(&mut io, &mut received, Some(&budget)).await {
        Ok(Sniffed::Protocol(Protocol::Http1)) => {
            let mut wire = Wire::new(io, received);
            let deadline = worker.sweep.after(worker.settings().handshake_timeout);
            // Boxed, as it is rare.
            let _ = deadline.race(Box::pin(server_http1::refuse(&downstream, &mut wire, answer))).await;
        }
        Ok(Sniffed::Protocol(Protocol::Http2)) => {
            server_http2::refuse_all(worker, io, received, &downstream, &answer).await
        }
        _ => {}
    }
}

/// Serves a connection whose listener is known.
pub async fn serve(worker: Rc<Worker>, listener: Arc<Listener>, mut io: BoxIo, mut downstream: Downstream) {
    let mut received = Vec::new();
    // Boxed, as everything that is over when the connection idles: its task is as large as its largest state.
    let inspected = match Box::pin(inspect(&worker, &listener, &downstream, &mut io, &mut received)).await {
        Some(inspected) => inspected,
        None => return,
    };
    let Some(chain) = select(&listener, &downstream, &inspected) else {
        return debug!(source = %downstream.source, destination = %downstream.destination, ?inspected, "no filter chain takes this connection");
    };
    let Some(tls) = &chain.tls else {
        let spoken = match inspected {
            Inspected::Http1 => Some(Codec::Http1),
            Inspected::Http2 => Some(Codec::Http2),
            _ => None,
        };
        if matches!(inspected, Inspected::Silent) && matches!(chain.body, ChainBody::Tcp(_)) {
            return Box::pin(serve_silent(worker, listener, chain, io, downstream)).await;
        }
        let chosen = Chosen { listener, inspected };
        return serve_chain(worker, &chain, chosen, io, received, downstream, spoken).await;
    };
    let timeout = chain.handshake_timeout.unwrap_or(worker.settings().handshake_timeout);
    let deadline = worker.sweep.after(timeout);
    let handshake = tls::accept(io, received, tls, &worker.shared.identity);
    let stream = match deadline.race(Box::pin(handshake)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return debug!(source = %downstream.source, destination = %downstream.destination, %error, "TLS handshake failed");
        }
        Err(Passed) => return debug!(source = %downstream.source, "TLS handshake timed out"),
    };
    drop(deadline);
    downstream.is_tls = true;
    downstream.peer = stream.peer().cloned();
    let spoken = match stream.alpn() {
        Some(alpn) if alpn == ALPN_HTTP1.as_bytes() || alpn == b"http/1.1" => Some(Codec::Http1),
        Some(alpn) if alpn == ALPN_H2.as_bytes() || alpn == b"h2" => Some(Codec::Http2),
        Some(alpn) if alpn == ALPN_TCP.as_bytes() && matches!(chain.body, ChainBody::Http(_)) => {
            // Rules on requests would be passed by.
            return debug!(source = %downstream.source, "opaque bytes on a port with HTTP rules refused");
        }
        _ => None,
    };
    let chosen = Chosen { listener, inspected };
    serve_chain(worker, &chain, chosen, Box::new(stream), Vec::new(), downstream, spoken).await;
}

/// What is known of a connection before its chain is chosen.
#[derive(Debug)]
enum Inspected {
    /// Nobody needed to look, or what came tells nothing.
    Raw,
    Tls(ClientHello),
    Http1,
    Http2,
    /// The client waits for the server to speak.
    Silent,
}

/// Reads as much as the choice of a chain needs; `None` when the client has gone.
async fn inspect(
    worker: &Worker,
    listener: &Listener,
    downstream: &Downstream,
    io: &mut BoxIo,
    received: &mut Vec<u8>,
) -> Option<Inspected> {
    let port = downstream.destination.port();
    let wants_http = listener.wants_http_inspection(port);
    if !listener.wants_tls_inspection(port) && !wants_http {
        return Some(Inspected::Raw);
    }
    // Where only TLS is served, or a client of which nothing is known gets HTTP, the client speaks first however long it takes.
    let unknown = select(listener, downstream, &Inspected::Silent);
    let speaks_first = unknown.is_none_or(|chain| matches!(chain.body, ChainBody::Http(_)));
    let waits = listener.strict_tls(port) || speaks_first;
    let limit = if waits { listener.inspection.timeout } else { Some(worker.settings().detection_budget) };
    let budget = limit.map(|limit| worker.sweep.after(limit));
    match sniff(io, received, budget.as_ref()).await {
        Ok(Sniffed::Protocol(Protocol::Tls(hello))) => Some(Inspected::Tls(hello)),
        Ok(Sniffed::Protocol(Protocol::Http1)) => Some(Inspected::Http1),
        Ok(Sniffed::Protocol(Protocol::Http2)) => Some(Inspected::Http2),
        Ok(Sniffed::Protocol(Protocol::Other)) => Some(Inspected::Raw),
        Ok(Sniffed::Silent) if waits && !listener.inspection.continue_on_timeout => None,
        Ok(Sniffed::Silent) => Some(Inspected::Silent),
        Ok(Sniffed::Closed) | Err(_) => None,
    }
}

fn select(listener: &Listener, downstream: &Downstream, inspected: &Inspected) -> Option<Arc<FilterChain>> {
    let hello = match inspected {
        Inspected::Tls(hello) => Some(hello),
        _ => None,
    };
    let application: smallvec::SmallVec<[&[u8]; 4]> = match inspected {
        Inspected::Tls(hello) => hello.alpn.iter().map(Vec::as_slice).collect(),
        Inspected::Http1 => [b"http/1.1".as_slice()].into_iter().collect(),
        Inspected::Http2 => [b"h2c".as_slice()].into_iter().collect(),
        Inspected::Raw | Inspected::Silent => smallvec::SmallVec::new(),
    };
    let criteria = Criteria {
        destination: downstream.destination,
        transport: if hello.is_some() { Transport::Tls } else { Transport::Raw },
        application: &application,
        server_name: hello.and_then(|hello| hello.server_name.as_deref()),
        source: downstream.source,
    };
    listener.select(&criteria).cloned()
}

/// The budget ended in silence, so the far side is connected; but the first bytes of the client still decide, as long as
/// no byte of the server has been passed on.
async fn serve_silent(
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    chain: Arc<FilterChain>,
    mut io: BoxIo,
    downstream: Downstream,
) {
    let ChainBody::Tcp(opaque) = &chain.body else { return };
    if !may_connect(&chain, &downstream) {
        return;
    }
    let Some(mut upstream) = tcp::connect(&worker, opaque, &downstream).await else { return };
    let (mut from_client, mut from_server) = (Vec::new(), Vec::new());
    let server_spoke = tokio::select! {
        biased;
        read = read_some(&mut io, &mut from_client) => match read {
            Ok(_) => false,
            Err(_) => return,
        },
        read = read_some(&mut upstream, &mut from_server) => match read {
            Ok(_) => true,
            Err(_) => return,
        },
    };
    if server_spoke || from_client.is_empty() {
        return tcp::relay_from(&worker, opaque, io, from_client, upstream, from_server, &downstream).await;
    }
    // The client was slow, not silent: what it says now decides.
    let budget = worker.sweep.after(worker.settings().detection_budget);
    let inspected = match sniff(&mut io, &mut from_client, Some(&budget)).await {
        Ok(Sniffed::Protocol(Protocol::Tls(hello))) => Inspected::Tls(hello),
        Ok(Sniffed::Protocol(Protocol::Http1)) => Inspected::Http1,
        Ok(Sniffed::Protocol(Protocol::Http2)) => Inspected::Http2,
        Ok(_) => Inspected::Raw,
        Err(_) => return,
    };
    drop(budget);
    match select(&listener, &downstream, &inspected) {
        Some(chosen) if Arc::ptr_eq(&chosen, &chain) => {
            tcp::relay_from(&worker, opaque, io, from_client, upstream, from_server, &downstream).await;
        }
        Some(_) => {
            drop(upstream);
            let io = Box::new(Prefixed::new(io, from_client));
            // Boxed: this future would otherwise contain itself. It cannot come back here, since there are bytes now.
            Box::pin(serve(worker, listener, io, downstream)).await;
        }
        None => debug!(source = %downstream.source, "no filter chain takes this connection"),
    }
}

/// Serves the bytes inside a chain's TLS, or the plain ones.
async fn serve_chain(
    worker: Rc<Worker>,
    chain: &Arc<FilterChain>,
    chosen: Chosen,
    io: BoxIo,
    received: Vec<u8>,
    downstream: Downstream,
    spoken: Option<Codec>,
) {
    if !may_connect(chain, &downstream) {
        return;
    }
    match &chain.body {
        ChainBody::Tcp(opaque) => {
            let connecting = Box::pin(tcp::connect(&worker, opaque, &downstream));
            let Some(upstream) = connecting.await else { return };
            tcp::relay_from(&worker, opaque, io, received, upstream, Vec::new(), &downstream).await;
        }
        ChainBody::Http(http) => serve_http(worker, http.clone(), chosen, io, received, downstream, spoken).await,
    }
}

/// How a connection's chain was chosen, so that its requests live by the configuration of their own time: a connection may stay
/// open for hours, and access that was taken away must not last as long.
pub struct Chosen {
    listener: Arc<Listener>,
    inspected: Inspected,
}

impl Chosen {
    /// Brings the chain up to date. False if the listener as it is now has no HTTP chain for this connection.
    pub fn refresh(&mut self, worker: &Worker, downstream: &Downstream, chain: &mut Arc<HttpChain>) -> bool {
        let snapshot = worker.store().load();
        // One that is forgotten because nobody asks for it any more has not changed.
        let Some(now) = snapshot.listener(&self.listener.name) else { return true };
        if Arc::ptr_eq(now, &self.listener) {
            return true;
        }
        let selected = select(now, downstream, &self.inspected).filter(|chain| may_connect(chain, downstream));
        let Some(ChainBody::Http(http)) = selected.as_ref().map(|chain| &chain.body) else {
            debug!(source = %downstream.source, listener = %now.name, "the listener has changed: connection refused");
            return false;
        };
        *chain = http.clone();
        self.listener = now.clone();
        true
    }
}

/// Connection-level access rules.
fn may_connect(chain: &FilterChain, downstream: &Downstream) -> bool {
    let identity = downstream.peer.as_ref().map(|peer| peer.principal());
    let peer = weft_rules::Peer {
        identity,
        source_ip: downstream.source.ip(),
        destination: downstream.destination,
        server_name: None,
    };
    chain.network_rbac.iter().all(|rbac| {
        let verdict = rbac.decide(&NoRequest, &peer);
        if !verdict.allowed {
            debug!(peer = identity, source = %downstream.source, policy = verdict.policy, "connection denied");
        }
        verdict.allowed
    })
}

async fn serve_http(
    worker: Rc<Worker>,
    chain: Arc<HttpChain>,
    chosen: Chosen,
    mut io: BoxIo,
    mut received: Vec<u8>,
    downstream: Downstream,
    spoken: Option<Codec>,
) {
    let codec = match (chain.codec, spoken) {
        (Codec::Http1, _) => Codec::Http1,
        (Codec::Http2, _) => Codec::Http2,
        (Codec::Auto, Some(spoken)) => spoken,
        (Codec::Auto, None) => {
            // Before the first byte the connection idles; from then on a request is on its way.
            let after = |limit: Option<Duration>| limit.map(|limit| worker.sweep.after(limit));
            if received.is_empty()
                && !matches!(
                    race(after(chain.idle_timeout).as_ref(), read_some(&mut io, &mut received)).await,
                    Ok(Ok(1..))
                )
            {
                return;
            }
            let deadline = after(chain.head_timeout());
            match speaks_http2(&mut io, &mut received, deadline.as_ref()).await {
                Ok(Some(true)) => Codec::Http2,
                Ok(Some(false)) => Codec::Http1,
                Ok(None) | Err(_) => return,
            }
        }
    };
    let protocol = if codec == Codec::Http2 { observe::Protocol::Http2 } else { observe::Protocol::Http1 };
    let metrics = worker.shared.metrics.connection(downstream.direction, protocol, downstream.tls());
    let _open = metrics.open();
    let downstream = Rc::new(downstream);
    if codec == Codec::Http2 {
        Box::pin(server_http2::serve(worker, chain, chosen, downstream, io, received)).await;
    } else {
        Box::pin(server_http1::serve(worker, chain, chosen, downstream, io, received)).await;
    }
}

impl From<crate::snapshot::Direction> for Direction {
    fn from(direction: crate::snapshot::Direction) -> Self {
        match direction {
            crate::snapshot::Direction::Inbound => Self::Inbound,
            crate::snapshot::Direction::Outbound | crate::snapshot::Direction::Unspecified => Self::Outbound,
        }
    }
}

/// Sizes in bytes of the futures that a connection's task holds, for tests.
#[cfg(test)]
pub(crate) fn sizes(worker: &Rc<Worker>) -> Vec<(&'static str, usize)> {
    let source = "198.18.0.9:40000".parse().unwrap();
    let downstream = Downstream::plain(Direction::Outbound, source, "198.19.0.1:80".parse().unwrap());
    let listener = worker.store().listener("test").unwrap();
    let io = || -> BoxIo { Box::new(tokio::io::duplex(64).0) };
    let filter_chain = select(&listener, &downstream, &Inspected::Raw).unwrap();
    let ChainBody::Http(chain) = &filter_chain.body else { panic!("the test's chain is HTTP") };
    let chosen = || Chosen { listener: listener.clone(), inspected: Inspected::Raw };
    let shared = Rc::new(downstream.clone());
    vec![
        ("connection", size_of_val(&serve(worker.clone(), listener.clone(), io(), downstream.clone()))),
        (
            "HTTP/1.1",
            size_of_val(&server_http1::serve(
                worker.clone(),
                chain.clone(),
                chosen(),
                shared.clone(),
                io(),
                Vec::new(),
            )),
        ),
        (
            "HTTP/2",
            size_of_val(&server_http2::serve(worker.clone(), chain.clone(), chosen(), shared, io(), Vec::new())),
        ),
        ("relay", size_of_val(&tcp::relay(io(), io(), None))),
    ]
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
