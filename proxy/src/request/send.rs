//! Attempts at endpoints, one after the other, until one has an answer that is good enough.

use super::Direction;
use super::attempt::{Answered, Attempt};
use super::failure::Failure;
use super::life::{ATTEMPT_COUNT, Context};
use super::local::{Flag, LocalReply, UNDELIVERED, UNREACHED};
use super::record::Record;
use super::reply::Reply;
use super::timeout::Clock;
use crate::http::{Framing, RequestHead, ResponseHead};
use crate::observe::RetryOutcome;
use crate::stream::body::Replay;
use crate::upstream::pool::Target;
use crate::upstream::{Cluster, Tried};
use std::pin::pin;
use std::sync::Arc;
use tokio::time::Instant;
use weft_rules::Forward;

/// Why there is no response from upstream.
pub(super) enum Stopped {
    /// This is the answer instead.
    Answer(LocalReply),
    /// Nobody waits for one.
    DownstreamGone,
}

/// Tries endpoints until one answers well enough, within the policy, the budget and the deadline.
#[allow(clippy::too_many_arguments)]
pub(super) async fn send(
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
    let ends_connect =
        request.is_connect() && forward.upgrades.iter().any(|rule| rule.name == "connect" && rule.terminate);
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
        let attempt = Attempt { cx, target: &target, request: &*request, framing, clock, ends_connect };
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
        if !found_nobody(attempted, response) {
            retry_permit = match cluster.breaker().retry() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    record.not_retried(RetryOutcome::OverBudget);
                    return failure.into_answer(cx, request, &target, false);
                }
            };
        }
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

/// Whether the endpoint's sidecar found no application there, or one that was ending. Budgets keep retries from multiplying a load that is
/// too much already; this is not one, and all requests to a replica that ends come back at once.
fn found_nobody(attempted: weft_rules::Attempt, response: &ResponseHead) -> bool {
    attempted == weft_rules::Attempt::Undelivered && response.fields.get(UNDELIVERED) == Some(UNREACHED)
}

fn worth_retrying(
    retry: Option<&weft_rules::RetryPolicy>,
    attempted: weft_rules::Attempt,
    response: &ResponseHead,
) -> bool {
    retry.is_some_and(|policy| policy.decide(attempted, |name| response.fields.get(name).map(Into::into)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::local;
    use weft_rules::Attempt::{Response, Undelivered};

    #[test]
    fn the_budget_is_not_for_what_a_believed_peer_says_found_no_application() {
        let unavailable = Response { status: 503, grpc_status: None };
        for (attempted, mark, expected) in [
            (Undelivered, Some(UNREACHED), true),
            (Undelivered, Some(local::OVERLOADED), false),
            // The mark of somebody who is not believed.
            (unavailable, Some(UNREACHED), false),
            (unavailable, None, false),
        ] {
            let mut response = ResponseHead::new();
            if let Some(mark) = mark {
                response.fields.append(UNDELIVERED.as_bytes(), mark);
            }
            assert_eq!(found_nobody(attempted, &response), expected, "{attempted:?} {mark:?}");
        }
    }
}
