//! What is counted and written down when a request is over.

use super::life::Context;
use super::local::{Flag, LocalReply};
use super::{Direction, Downstream};
use crate::http::{RequestHead, ResponseHead};
use crate::observe::{self, AccessRecord, RequestKey, RequestMetrics, ResponseClass, RetryOutcome, Text, Tls, access};
use crate::stream::body::Source;
use crate::upstream::pool::Target;
use crate::upstream::{Cluster, EndpointIdentity, Outcome};
use crate::worker::Worker;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weft_rules::Route;
use weft_xds::names::ResourceName;

/// The record of one request. It is written when the request finishes, and also when its future is dropped: a request
/// that nobody waits for any more has ended too.
pub struct Record<'a> {
    worker: &'a Rc<Worker>,
    downstream: &'a Downstream,
    started: Instant,
    latency: Duration,
    line: Option<Box<Line>>,
    route: Option<Arc<Route>>,
    cluster_name: Option<Arc<str>>,
    target: Option<Target>,
    status: u16,
    flag: Option<Flag>,
    retries: u32,
    received: u64,
    sent: u64,
    written: bool,
}

/// The parts of the request's head for the access log; copied only if somebody reads it.
struct Line {
    method: Vec<u8>,
    path: Vec<u8>,
    authority: Vec<u8>,
}

impl<'a> Record<'a> {
    /// Begins the record as the head has arrived.
    pub fn begin(cx: &Context<'a>, request: &RequestHead) -> Self {
        let line = access::enabled().then(|| {
            Box::new(Line {
                method: request.method().to_vec(),
                path: request.path_and_query().to_vec(),
                authority: request.authority().to_vec(),
            })
        });
        Self {
            worker: cx.worker,
            downstream: cx.downstream,
            started: Instant::now(),
            latency: Duration::ZERO,
            line,
            route: None,
            cluster_name: None,
            target: None,
            status: 0,
            flag: None,
            retries: 0,
            received: 0,
            sent: 0,
            written: false,
        }
    }

    /// The route that was found.
    pub fn route(&mut self, route: &Arc<Route>) {
        self.route = Some(route.clone());
    }

    /// The cluster that was drawn.
    pub fn cluster(&mut self, cluster: &Arc<Cluster>) {
        self.cluster_name = Some(cluster.name());
    }

    /// The endpoint of the current attempt.
    pub fn target(&mut self, target: &Target) {
        self.target = Some(target.clone());
    }

    /// Another attempt begins.
    pub fn retried(&mut self) {
        self.retries += 1;
    }

    /// Attempts so far, the current one included.
    pub fn attempts(&self) -> u32 {
        self.retries + 1
    }

    /// A retry was wanted and not made.
    pub fn not_retried(&self, outcome: RetryOutcome) {
        if let Some(cluster) = &self.cluster_name {
            self.worker.shared.metrics.cluster(service_of(cluster)).retry(outcome);
        }
    }

    /// The response's head.
    pub fn response(&mut self, response: &ResponseHead) {
        self.status = response.status();
        self.grpc_status(response.fields.get("grpc-status"));
    }

    /// What the response's trailers say; with gRPC they tell how it went.
    pub fn trailers(&mut self, source: &impl Source) {
        self.grpc_status(source.trailers().and_then(|trailers| trailers.get("grpc-status")));
    }

    /// A gRPC failure counts as the HTTP status that means the same, though its HTTP status is 200.
    fn grpc_status(&mut self, value: Option<&[u8]>) {
        let status = match value {
            Some(b"2" | b"13" | b"15") => 500,
            Some(b"12") => 501,
            Some(b"14") => 503,
            Some(b"4") => 504,
            _ => return,
        };
        self.status = status;
    }

    /// The proxy answers itself.
    pub fn local(&mut self, answer: &LocalReply) {
        self.status = answer.status;
        self.flag = answer.flag;
        self.sent = answer.body.len() as u64;
    }

    /// The head of the last attempt's response came this long after the attempt began.
    pub fn answered_after(&mut self, latency: Duration) {
        self.latency = latency;
    }

    /// Tells the endpoint how the last attempt ended, where only the end of its response said so.
    pub fn judge(&self, outcome: Outcome) {
        if let Some(target) = &self.target {
            target.finish(outcome, self.latency);
        }
    }

    /// Bytes of both bodies.
    pub fn bytes(&mut self, received: u64, sent: u64) {
        self.received = received;
        self.sent = sent;
    }

    /// The response went out whole.
    pub fn finish(&mut self) {
        self.write(ResponseClass::of_status(self.status));
    }

    /// It did not.
    pub fn finish_broken(&mut self, flag: Flag) {
        self.flag = Some(flag);
        self.write(ResponseClass::Error);
    }

    fn write(&mut self, class: ResponseClass) {
        if std::mem::replace(&mut self.written, true) {
            return;
        }
        let duration = self.started.elapsed();
        let flag = self.flag.map(|flag| observe::Flag::new(flag.as_str()));
        let handles = self.handles();
        handles.record(class, flag, duration);
        handles.bytes(self.received, self.sent);
        if self.retries > 0
            && let Some(cluster) = &self.cluster_name
        {
            let failed = matches!(class, ResponseClass::ServerError | ResponseClass::Error);
            let outcome = if failed { RetryOutcome::Failure } else { RetryOutcome::Success };
            self.worker.shared.metrics.cluster(service_of(cluster)).retry(outcome);
        }
        if let Some(line) = &self.line {
            AccessRecord {
                direction: self.downstream.direction,
                method: &line.method,
                path: &line.path,
                authority: &line.authority,
                status: self.status,
                flag,
                route: self.route.as_ref().map_or("", |route| &route.name),
                cluster: self.cluster_name.as_deref().unwrap_or_default(),
                endpoint: self.target.as_ref().map(Target::address),
                source: Some(self.downstream.source),
                peer: self.peer(),
                retries: self.retries,
                received: self.received,
                sent: self.sent,
                duration,
            }
            .write();
        }
    }

    /// The SPIFFE ID of the other side.
    fn peer(&self) -> &str {
        match self.downstream.direction {
            Direction::Inbound => self.downstream.peer.as_ref().map_or("", |peer| &peer.spiffe),
            Direction::Outbound => self.endpoint_identity().map_or("", |identity| &identity.spiffe),
        }
    }

    fn endpoint_identity(&self) -> Option<&EndpointIdentity> {
        self.target.as_ref()?.endpoint()?.identity()
    }

    /// The metric handles for this kind of request; resolved once per connection.
    fn handles(&self) -> Arc<RequestMetrics> {
        let route = self.route.as_ref().map_or("", |route| &route.name);
        let service = self.cluster_name.as_deref().map_or("", service_of);
        let peer = self.peer();
        let mut handles = self.downstream.handles.borrow_mut();
        let known = handles.iter().find(|known| {
            let key = known.key();
            key.route.as_str() == route
                && key.destination_service.as_str() == service
                && key.peer.as_str() == peer
                && key.destination_workload.as_str() == self.destination_workload()
        });
        if let Some(known) = known {
            return known.clone();
        }
        let resolved = self.worker.shared.metrics.request(self.key(route, service, peer));
        if handles.len() == handles.inline_size() {
            handles.remove(0);
        }
        handles.push(resolved.clone());
        resolved
    }

    fn destination_workload(&self) -> &str {
        match self.downstream.direction {
            Direction::Inbound => &self.worker.settings().workload,
            Direction::Outbound => self.endpoint_identity().map_or("", |identity| workload_of(identity)),
        }
    }

    fn destination_namespace(&self) -> &str {
        match self.downstream.direction {
            Direction::Inbound => &self.worker.settings().namespace,
            Direction::Outbound => self.endpoint_identity().map_or("", |identity| namespace_of(identity)),
        }
    }

    fn key(&self, route: &str, service: &str, peer: &str) -> RequestKey {
        let settings = self.worker.settings();
        let (source_workload, source_namespace, tls) = match (self.downstream.direction, &self.downstream.peer) {
            (Direction::Outbound, _) => {
                let tls = if self.endpoint_identity().is_some() { Tls::Mutual } else { Tls::None };
                (settings.workload.as_str(), settings.namespace.as_str(), tls)
            }
            (Direction::Inbound, Some(peer)) => (peer.workload.as_str(), peer.namespace.as_str(), Tls::Mutual),
            (Direction::Inbound, None) => ("", "", Tls::None),
        };
        RequestKey {
            direction: self.downstream.direction,
            source_workload: Text::from(source_workload),
            source_namespace: Text::from(source_namespace),
            destination_service: Text::from(service),
            destination_workload: Text::from(self.destination_workload()),
            destination_namespace: Text::from(self.destination_namespace()),
            route: Text::from(route),
            peer: Text::from(peer),
            tls,
        }
    }
}

/// `namespace/name` of a Service's cluster; the whole name of any other.
fn service_of(cluster: &str) -> &str {
    match ResourceName::parse(cluster) {
        Some(ResourceName::ServiceCluster(_)) => {
            let rest = cluster.split_once('/').map_or(cluster, |(_, rest)| rest);
            rest.rsplit_once('/').map_or(rest, |(service, _port)| service)
        }
        Some(ResourceName::InboundCluster { .. }) => "",
        _ => cluster,
    }
}

/// The workload in an endpoint's DNS name, `<pod>.<workload>.<namespace>.pod.weft.mesh`.
fn workload_of(identity: &EndpointIdentity) -> &str {
    identity.pod.as_deref().and_then(|name| name.split('.').nth(1)).unwrap_or_default()
}

/// The namespace in it.
fn namespace_of(identity: &EndpointIdentity) -> &str {
    identity.pod.as_deref().and_then(|name| name.split('.').nth(2)).unwrap_or_default()
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.written {
            self.finish_broken(Flag::DownstreamClosed);
        }
    }
}
