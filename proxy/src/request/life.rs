//! The life of a request, from its head to its record.

use super::attempt::Answered;
use super::edge;
use super::filters::{self, Verdict};
use super::local::{self, Flag, LocalReply, UNDELIVERED};
use super::prepare::{longest, prepare};
use super::record::Record;
use super::relay::{Relay, Relayed};
use super::reply::Reply;
use super::send::{Stopped, send};
use super::timeout::Clock;
use super::{Direction, Downstream};
use crate::http::{Framing, RequestHead, ResponseHead};
use crate::snapshot::{HttpChain, RouteSource};
use crate::stream::body::{Body, Replay, Source, drain};
use crate::stream::pump::Pump;
use crate::worker::Worker;
use futures_util::FutureExt;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use weft_rules::{Action, IdleTimeout, Route};

/// Says which attempt this is, where a virtual host asks for it (`include_request_attempt_count`).
pub(super) const ATTEMPT_COUNT: &[u8] = b"x-envoy-attempt-count";

/// How much of a request's body is kept for retries.
const REPLAY_LIMIT: usize = 64 * 1024;

/// What a request lives in.
pub struct Context<'a> {
    /// The worker it runs on.
    pub worker: &'a Rc<Worker>,
    /// The configuration of its connection.
    pub chain: &'a Arc<HttpChain>,
    /// Its connection.
    pub downstream: &'a Downstream,
}

/// What became of it, as far as its connection cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// The response went out whole.
    Complete {
        /// Whether the request was read to its end as well.
        request_read: bool,
    },
    /// One side broke: the connection can carry nothing more.
    Broken,
}

/// Serves one request: match → authorize → pick → send → record.
pub async fn serve(
    cx: &Context<'_>,
    request: &mut RequestHead,
    body: Body<'_>,
    framing: Framing,
    reply: &mut Reply<'_>,
) -> Finished {
    let _busy = cx.worker.drain.busy();
    let mut record = Record::begin(cx, request);
    let mut body = Replay::new(body, REPLAY_LIMIT);
    let mut clock = Clock::new(&cx.worker.sweep, cx.chain.stream_idle_timeout);
    if let Err(answer) = edge::admit(cx.chain, request) {
        return respond(cx, &clock, request, &mut body, reply, &mut record, answer).await;
    }

    // Match.
    let Some(route) = find_route(cx, request) else {
        let answer = LocalReply::new(404, Flag::NoRoute, "no route matches this request\n");
        return respond(cx, &clock, request, &mut body, reply, &mut record, answer).await;
    };
    record.route(&route);

    // Authorize, and whatever else the filters decide.
    for filter in &cx.chain.filters {
        match filters::apply(filter, cx, &route, request).await {
            Verdict::Continue => {}
            Verdict::Respond(answer) => {
                return respond(cx, &clock, request, &mut body, reply, &mut record, answer).await;
            }
        }
    }
    let forward = match &route.action {
        Action::Forward(forward) => forward,
        Action::Redirect(redirect) => {
            let answer = LocalReply {
                status: redirect.status,
                flag: None,
                body: String::new(),
                fields: Vec::new(),
                undelivered: false,
            }
            .with_field("location", redirect.location(request));
            return respond(cx, &clock, request, &mut body, reply, &mut record, answer).await;
        }
        Action::Direct { status, body: text } => {
            let text = String::from_utf8_lossy(text).into_owned();
            let answer = LocalReply { status: *status, flag: None, body: text, fields: Vec::new(), undelivered: false };
            return respond(cx, &clock, request, &mut body, reply, &mut record, answer).await;
        }
    };

    // Pick, and send until an answer is good enough.
    let choice = forward.pick(cx.worker.random64());
    let Some(cluster) = cx.worker.store().cluster(&choice.name) else {
        let text = format!("cluster {} is not configured\n", choice.name);
        let answer = LocalReply::new(forward.cluster_not_found_status, Flag::NoCluster, text);
        return respond(cx, &clock, request, &mut body, reply, &mut record, answer).await;
    };
    record.cluster(&cluster);
    let upgrade = match prepare(cx, forward, choice, request) {
        Ok(upgrade) => upgrade,
        Err(answer) => return respond(cx, &clock, request, &mut body, reply, &mut record, answer).await,
    };
    let Ok(_permit) = cluster.breaker().request() else {
        let text = format!("{} has too many requests under way\n", cluster.name());
        let answer = LocalReply::new(503, Flag::Overflow, text).undelivered();
        return respond(cx, &clock, request, &mut body, reply, &mut record, answer).await;
    };
    clock.set_timeout(&cx.worker.sweep, forward.timeout);
    if let Some(idle) = forward.idle_timeout {
        let idle = match idle {
            IdleTimeout::After(idle) => Some(idle),
            IdleTimeout::Never => None,
        };
        clock.set_idle(&cx.worker.sweep, idle);
    }
    clock.set_longest(&cx.worker.sweep, longest(forward, request));
    if framing.is_empty() {
        clock.request_complete();
    }
    let mut response = cx.worker.response_head();
    let sent =
        send(cx, &clock, forward, &cluster, request, framing, &mut body, &mut response, reply, &mut record).await;
    let mut answered = match sent {
        Ok(answered) => answered,
        Err(Stopped::Answer(answer)) => {
            return respond(cx, &clock, request, &mut body, reply, &mut record, answer).await;
        }
        Err(Stopped::DownstreamGone) => {
            record.finish_broken(Flag::DownstreamClosed);
            return Finished::Broken;
        }
    };

    // Hand the response on.
    clock.moved();
    record.response(&response);
    believe_undelivered_only_from_peers(cx, &answered, &mut response);
    choice.response_headers.apply(&mut response.fields);
    if forward.attempt_count_in_response {
        response.fields.insert(ATTEMPT_COUNT, record.attempts().to_string().as_bytes());
    }
    let is_tunnel = upgrade && (response.status() == 101 || (request.is_connect() && response.status() == 200));
    if is_tunnel {
        body = body.into_tunnel();
    } else {
        body.stop_recording();
    }
    let _open = is_tunnel.then(|| cx.worker.shared.metrics.tunnel(cx.downstream.direction));
    let finished = hand_on(&clock, &mut answered, &mut body, &mut response, reply, is_tunnel, &mut record).await;
    if finished != Finished::Broken {
        answered.give_back(cx);
    }
    finished
}

/// The first route that matches, in the tables the chain names.
fn find_route(cx: &Context<'_>, request: &RequestHead) -> Option<Arc<Route>> {
    let random = cx.worker.random64();
    match &cx.chain.routes {
        RouteSource::Inline(table) => table.find(request, random).cloned(),
        RouteSource::Rds(name) => cx.worker.store().load().route(name)?.find(request, random).cloned(),
    }
}

fn believe_undelivered_only_from_peers(cx: &Context<'_>, answered: &Answered, response: &mut ResponseHead) {
    // Towards the application it means nothing; from an application it is a lie.
    if cx.downstream.direction == Direction::Outbound || !answered.is_authenticated() {
        response.fields.remove(UNDELIVERED);
    }
}

/// Relays both bodies to their ends.
#[allow(clippy::too_many_arguments)]
async fn hand_on(
    clock: &Clock,
    answered: &mut Answered,
    body: &mut Replay<'_>,
    response: &mut ResponseHead,
    reply: &mut Reply<'_>,
    is_tunnel: bool,
    record: &mut Record<'_>,
) -> Finished {
    let framing = answered.framing(response);
    let mut request_pump = Pump::resumed(answered.request_sent() && !is_tunnel);
    let mut response_pump = Pump::default();
    let (mut source, mut upstream) = answered.streams(is_tunnel);
    let mut sink = match reply.start(response, framing, is_tunnel) {
        Ok(sink) => sink,
        Err(_) => {
            upstream.abort(h2::Reason::CANCEL);
            record.finish_broken(Flag::DownstreamClosed);
            return Finished::Broken;
        }
    };
    let mut relay = Relay {
        request: (body, &mut upstream, &mut request_pump),
        response: (&mut source, &mut sink, &mut response_pump),
        clock,
        is_tunnel,
    };
    let relayed = {
        let relaying = pin!(relay.run());
        if is_tunnel { clock.race_stream(relaying).await } else { clock.race(relaying).await }
    };
    record.bytes(request_pump.moved(), response_pump.moved());
    record.trailers(&source);
    let trailers = source.trailers().cloned();
    drop(source);
    if Answered::is_decided_by_trailers(response) {
        record.judge(Answered::outcome(response, trailers.as_ref()));
    }
    // The head is out, so the only way to say that the rest will not come is to break the stream.
    let (flag, reason) = match relayed {
        Ok(Relayed::Complete) => {
            let request_read = request_pump.is_done();
            if !request_read {
                upstream.abort(h2::Reason::NO_ERROR);
            }
            record.finish();
            if is_tunnel {
                return Finished::Broken;
            }
            if request_read {
                answered.completed();
            }
            return Finished::Complete { request_read };
        }
        Ok(Relayed::DownstreamGone) => (Flag::DownstreamClosed, h2::Reason::CANCEL),
        Ok(Relayed::UpstreamBroke { reason, reset }) => {
            tracing::debug!(%reason, "upstream broke its response");
            (Flag::UpstreamReset, reset.map_or(h2::Reason::INTERNAL_ERROR, handed_on))
        }
        Err(over) => (over.flag(), h2::Reason::INTERNAL_ERROR),
    };
    upstream.abort(h2::Reason::CANCEL);
    sink.abort(reason);
    record.finish_broken(flag);
    Finished::Broken
}

/// The code by which an endpoint's reset is told to whoever asked. Most codes speak of the connection they come on; REFUSED_STREAM
/// would even promise that nobody has seen the request. These have a meaning for the call itself: gRPC reads them as CANCELLED,
/// RESOURCE_EXHAUSTED and PERMISSION_DENIED.
fn handed_on(reset: h2::Reason) -> h2::Reason {
    match reset {
        h2::Reason::CANCEL | h2::Reason::ENHANCE_YOUR_CALM | h2::Reason::INADEQUATE_SECURITY => reset,
        _ => h2::Reason::INTERNAL_ERROR,
    }
}

/// Answers in the upstream's place.
async fn respond(
    cx: &Context<'_>,
    clock: &Clock,
    request: &RequestHead,
    body: &mut Replay<'_>,
    reply: &mut Reply<'_>,
    record: &mut Record<'_>,
    answer: LocalReply,
) -> Finished {
    record.local(&answer);
    // A short body has come with its head: the connection stays usable when it is read.
    let request_read = drain(body.inner(), REPLAY_LIMIT).now_or_never().unwrap_or(false);
    if !request_read {
        reply.close();
    }
    clock.moved();
    let sent = pin!(local::send(reply, request, cx.downstream, &answer));
    match clock.race_answer(sent).await {
        Ok(Ok(())) => {
            record.finish();
            Finished::Complete { request_read }
        }
        Ok(Err(_)) => {
            record.finish_broken(Flag::DownstreamClosed);
            Finished::Broken
        }
        Err(over) => {
            record.finish_broken(over.flag());
            Finished::Broken
        }
    }
}
