//! HTTP filters: what may answer in the upstream's place, in the order of the configuration.

use super::life::Context;
use super::local::{Flag, LocalReply};
use crate::http::RequestHead;
use crate::snapshot::HttpFilter;
use std::sync::atomic::{AtomicU32, Ordering};
use weft_rules::fault::AbortWith;
use weft_rules::{Action, Fault, FilterOverride, Peer, Rbac, Route};

/// Names under which routes override filters.
const RBAC: &str = "envoy.filters.http.rbac";
const FAULT: &str = "envoy.filters.http.fault";

/// What a filter wants.
#[derive(Debug)]
pub enum Verdict {
    /// The next filter decides.
    Continue,
    /// This is the answer.
    Respond(LocalReply),
}

/// Asks one filter.
pub async fn apply(filter: &HttpFilter, cx: &Context<'_>, route: &Route, request: &RequestHead) -> Verdict {
    match filter {
        HttpFilter::Rbac(rbac) => match route.filter_override(RBAC) {
            Some(FilterOverride::Disabled) => Verdict::Continue,
            Some(FilterOverride::Rbac(rbac)) => authorize(rbac, cx, request),
            _ => authorize(rbac, cx, request),
        },
        HttpFilter::Fault(fault) => match route.filter_override(FAULT) {
            Some(FilterOverride::Disabled) => Verdict::Continue,
            Some(FilterOverride::Fault(fault)) => inject(fault, cx, route, request).await,
            _ => inject(fault, cx, route, request).await,
        },
    }
}

fn authorize(rbac: &Rbac, cx: &Context<'_>, request: &RequestHead) -> Verdict {
    let identity = cx.downstream.peer.as_ref().map(|peer| peer.principal());
    let peer = Peer {
        identity,
        source_ip: cx.downstream.source.ip(),
        destination: cx.downstream.destination,
        server_name: None,
    };
    let verdict = rbac.decide(request, &peer);
    if verdict.allowed {
        return Verdict::Continue;
    }
    let who = identity.unwrap_or("a caller without identity");
    tracing::debug!(peer = who, policy = verdict.policy, "request denied");
    Verdict::Respond(LocalReply::new(403, Flag::Denied, format!("access denied for {who}\n")))
}

/// Faults under way in this process; the filter's limit counts over all of them, as in Envoy.
static ACTIVE_FAULTS: AtomicU32 = AtomicU32::new(0);

async fn inject(fault: &Fault, cx: &Context<'_>, route: &Route, request: &RequestHead) -> Verdict {
    // The cluster matters only to faults that name one; which of several a weighted route takes is decided later.
    let cluster = match &route.action {
        Action::Forward(forward) => forward.clusters().first().map_or("", |choice| &choice.name),
        _ => "",
    };
    let decision = fault.decide(request, cluster, cx.worker.random64());
    if decision.is_none() || fault.max_active.is_some_and(|max| ACTIVE_FAULTS.load(Ordering::Relaxed) >= max) {
        return Verdict::Continue;
    }
    let _active = ActiveFault::new();
    if let Some(delay) = decision.delay {
        tokio::time::sleep(delay).await;
    }
    let text = if decision.body.is_empty() { "fault filter abort\n" } else { decision.body };
    match decision.abort {
        None => Verdict::Continue,
        Some(AbortWith::Http(status)) => Verdict::Respond(LocalReply::new(status, Flag::Fault, text)),
        Some(AbortWith::Grpc(status)) => Verdict::Respond(
            LocalReply::new(200, Flag::Fault, String::new())
                .with_field("content-type", "application/grpc")
                .with_field("grpc-status", status.to_string())
                .with_field("grpc-message", text.trim_end()),
        ),
    }
}

struct ActiveFault;

impl ActiveFault {
    fn new() -> Self {
        ACTIVE_FAULTS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for ActiveFault {
    fn drop(&mut self) {
        ACTIVE_FAULTS.fetch_sub(1, Ordering::Relaxed);
    }
}
