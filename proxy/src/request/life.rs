//! The life of a request, from its head to its record.

use super::attempt::{Answered, Attempt};
use super::edge;
use super::failure::Failure;
use super::filters::{self, Verdict};
use super::local::{self, Flag, LocalReply, UNDELIVERED};
use super::record::Record;
use super::relay::{Relay, Relayed};
use super::reply::Reply;
use super::timeout::{Clock, Over};
use super::{Direction, Downstream};
use crate::http::{Framing, RequestHead, ResponseHead, convert};
use crate::http1::strip_hop_by_hop;
use crate::observe::RetryOutcome;
use crate::snapshot::{HttpChain, RouteSource};
use crate::stream::body::{Body, Replay, Source, drain};
use crate::stream::pump::Pump;
use crate::upstream::pool::Target;
use crate::upstream::{Cluster, Tried};
use crate::worker::Worker;
use futures_util::FutureExt;
use std::borrow::Cow;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weft_rules::{Action, ClusterChoice, Forward, IdleTimeout, Route};

/// Says which attempt this is, where a virtual host asks for it (`include_request_attempt_count`).
const ATTEMPT_COUNT: &[u8] = b"x-envoy-attempt-count";

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

/// Turns the received head into the one to send. Returns whether it asks to change the protocol.
fn prepare(
    cx: &Context<'_>,
    forward: &Forward,
    choice: &ClusterChoice,
    request: &mut RequestHead,
) -> Result<bool, LocalReply> {
    // The route's word, or else the listener's.
    let allows = |protocol: &[u8]| {
        let rule = forward.upgrades.iter().find(|rule| rule.name.as_bytes().eq_ignore_ascii_case(protocol));
        rule.map_or_else(|| cx.chain.upgrades.allows(protocol), |rule| rule.enabled)
    };
    let upgrade = match request.fields.get("upgrade") {
        Some(protocol) if request.fields.list_contains("connection", "upgrade") => {
            if !allows(protocol) {
                // The server may answer without switching; it just is not asked (RFC 9110 §7.8).
                request.fields.remove("upgrade");
                false
            } else {
                true
            }
        }
        _ => false,
    };
    if request.is_connect() && !allows(b"connect") {
        let text = "CONNECT is not enabled for this destination\n";
        return Err(LocalReply::new(403, Flag::NoRoute, text));
    }
    if upgrade {
        // Over HTTP/2 a WebSocket has no key; a server on HTTP/1.1 insists on one.
        let key = [cx.worker.random64().to_ne_bytes(), cx.worker.random64().to_ne_bytes()].concat();
        convert::websocket::ensure_key(request, key.try_into().unwrap_or_default());
    }
    strip_hop_by_hop(&mut request.fields, upgrade);
    // Only this proxy's own peers may claim it, and only in responses.
    request.fields.remove(UNDELIVERED);
    if let Some(path) = forward.rewritten_path(request) {
        request.set_path_and_query(&path);
    }
    if let Some(authority) = forward.rewritten_authority(choice, request, None).map(Cow::into_owned) {
        if forward.append_x_forwarded_host {
            let original = request.authority().to_vec();
            request.fields.append(b"x-forwarded-host", &original);
        }
        request.set_authority(&authority);
    }
    choice.request_headers.apply(&mut request.fields);
    Ok(upgrade || request.is_connect())
}

/// The longest life of a stream: what a gRPC client asks for, as far as the route believes it, in the place of the route's own limit.
fn longest(forward: &Forward, request: &RequestHead) -> Option<Duration> {
    let asked = || Some((forward.grpc_timeout?, grpc_timeout(request.fields.get("grpc-timeout")?)?));
    match asked() {
        Some((limits, asked)) => Some(limits.max.map_or(asked, |max| asked.min(max)).saturating_sub(limits.offset)),
        None => forward.max_stream_duration.flatten(),
    }
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests"). What is malformed asks for nothing.
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let n: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(n * 3600),
        b'M' => Duration::from_secs(n * 60),
        b'S' => Duration::from_secs(n),
        b'm' => Duration::from_millis(n),
        b'u' => Duration::from_micros(n),
        b'n' => Duration::from_nanos(n),
        _ => return None,
    })
}

/// Why there is no response from upstream.
enum Stopped {
    /// This is the answer instead.
    Answer(LocalReply),
    /// Nobody waits for one.
    DownstreamGone,
}

/// Tries endpoints until one answers well enough, within the policy, the budget and the deadline.
#[allow(clippy::too_many_arguments)]
async fn send(
    cx: &Context<'_>,
    clock: &Clock,
    forward: &Forward,
    cluster: &Arc<Cluster>,
    request: &mut RequestHead,
    framing: Framing,
    body: &mut Replay<'_>,
    response: &mut ResponseHead,
    reply: &mut Reply<'_>,
    record: &mut Record<'_>,
) -> Result<Answered, Stopped> {
    let retry = forward.retry.as_ref().filter(|policy| policy.applies_to(request));
    let mut tried = Tried::new();
    let mut retries = 0;
    let mut retry_permit = None;
    loop {
        let target = match Target::pick(cluster, cx.downstream, &tried, cx.worker.random64()) {
            Ok(target) => target,
            Err(error) => {
                let text = format!("{}: {error}\n", cluster.name());
                return Err(Stopped::Answer(LocalReply::new(503, Flag::NoHealthyEndpoint, text).undelivered()));
            }
        };
        record.target(&target);
        let started = Instant::now();
        let in_flight = target.endpoint().map(|endpoint| endpoint.begin());
        clock.begin_attempt(&cx.worker.sweep, cluster.config().max_stream_duration, retry);
        if forward.attempt_count_in_request {
            request.fields.insert(ATTEMPT_COUNT, (retries + 1).to_string().as_bytes());
        }
        let attempt = Attempt { cx, target: &target, request: &*request, framing, clock };
        let outcome = attempt.run(body, response, reply).await;
        drop(retry_permit.take());
        let (attempted, failure) = match outcome {
            Ok(answered) => {
                let answered = answered.holding(in_flight);
                let attempted = attempted(cx, &answered, response);
                let latency = started.elapsed();
                if Answered::is_decided_by_trailers(response) {
                    record.answered_after(latency);
                } else {
                    target.finish(Answered::outcome(response, None), latency);
                }
                if !worth_retrying(retry, attempted, response) {
                    return Ok(answered);
                }
                (attempted, Failure::Response(Box::new(answered)))
            }
            Err(Failure::DownstreamGone) => return Err(Stopped::DownstreamGone),
            Err(failure) => {
                target.finish(failure.outcome(), started.elapsed());
                (failure.attempted(), failure)
            }
        };

        // Again?
        let may_retry = retry.is_some_and(|policy| {
            retries < policy.num_retries && policy.decide(attempted, |name| response.fields.get(name).map(Into::into))
        });
        let exhausted = retries > 0 && retry.is_some_and(|policy| retries >= policy.num_retries);
        if may_retry && !body.can_rewind() {
            record.not_retried(RetryOutcome::BodyTooLarge);
        }
        if !may_retry || !body.can_rewind() || failure.is_final() {
            return failure.into_answer(cx, request, &target, exhausted);
        }
        retry_permit = match cluster.breaker().retry() {
            Ok(permit) => Some(permit),
            Err(_) => {
                record.not_retried(RetryOutcome::OverBudget);
                return failure.into_answer(cx, request, &target, false);
            }
        };
        drop(failure);
        clock.end_attempt();
        retries += 1;
        record.retried();
        tried.extend(target.endpoint().map(|endpoint| endpoint.id()));
        // Only now is it certain that another attempt follows.
        body.rewind();
        if let Some(policy) = retry {
            let pause = policy.backoff(retries, cx.worker.random());
            match clock.race(pin!(tokio::time::sleep(pause))).await {
                Ok(()) => {}
                Err(over) => return Failure::of_clock(over, clock).into_answer(cx, request, &target, false),
            }
        }
    }
}

impl Failure {
    /// What the client is told when no attempt follows this one.
    fn into_answer(
        self,
        cx: &Context<'_>,
        request: &RequestHead,
        target: &Target,
        exhausted: bool,
    ) -> Result<Answered, Stopped> {
        let cluster = target.cluster();
        let may_go_elsewhere = self.is_undelivered()
            || cx.downstream.leads_to_leaving(cx.worker) && self.may_be_repeated(request.method());
        match self {
            // A response nobody wanted to repeat is the answer.
            Self::Response(answered) => Ok(*answered),
            Self::DownstreamGone => Err(Stopped::DownstreamGone),
            Self::RouteTimeout => Err(Stopped::Answer(timed_out(cluster))),
            other => {
                let status = other.status();
                let flag = if exhausted { Flag::RetriesExhausted } else { other.flag() };
                let text = format!("{} at {}: {other}\n", cluster.name(), target.address());
                let answer = LocalReply::new(status, flag, text);
                Err(Stopped::Answer(if may_go_elsewhere { answer.undelivered() } else { answer }))
            }
        }
    }
}

fn timed_out(cluster: &Cluster) -> LocalReply {
    LocalReply::new(504, Flag::Timeout, format!("{}: no response within the route's timeout\n", cluster.name()))
}

fn attempted(cx: &Context<'_>, answered: &Answered, response: &ResponseHead) -> weft_rules::Attempt {
    if answered.is_authenticated()
        && cx.downstream.direction == Direction::Outbound
        && response.fields.contains(UNDELIVERED)
    {
        return weft_rules::Attempt::Undelivered;
    }
    let grpc_status =
        response.fields.get("grpc-status").and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    weft_rules::Attempt::Response { status: response.status(), grpc_status }
}

fn worth_retrying(
    retry: Option<&weft_rules::RetryPolicy>,
    attempted: weft_rules::Attempt,
    response: &ResponseHead,
) -> bool {
    retry.is_some_and(|policy| policy.decide(attempted, |name| response.fields.get(name).map(Into::into)))
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
    let flag = match relayed {
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
        Ok(Relayed::DownstreamGone) => Flag::DownstreamClosed,
        Ok(Relayed::UpstreamBroke(reason)) => {
            tracing::debug!(%reason, "upstream broke its response");
            Flag::UpstreamReset
        }
        Err(Over::Idle | Over::PerTryIdle) => Flag::StreamIdle,
        Err(Over::Duration) => Flag::StreamDuration,
        Err(Over::UpstreamDuration) => Flag::UpstreamDuration,
        Err(Over::Route | Over::PerTry) => Flag::Timeout,
    };
    // The head is out, so the only way to say that the rest will not come is to break the stream.
    let reason = if flag == Flag::DownstreamClosed { h2::Reason::CANCEL } else { h2::Reason::INTERNAL_ERROR };
    upstream.abort(h2::Reason::CANCEL);
    sink.abort(reason);
    record.finish_broken(flag);
    Finished::Broken
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
    match clock.race_stream(sent).await {
        Ok(Ok(())) => {
            record.finish();
            Finished::Complete { request_read }
        }
        Ok(Err(_)) => {
            record.finish_broken(Flag::DownstreamClosed);
            Finished::Broken
        }
        Err(_) => {
            record.finish_broken(Flag::StreamIdle);
            Finished::Broken
        }
    }
}
