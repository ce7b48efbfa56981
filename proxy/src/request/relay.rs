//! Both bodies of an exchange, at the same time, to their ends.

use crate::stream::body::{ReadError, Source};
use crate::stream::pump::{Pump, PumpError};
use crate::stream::sink::{Sink, WriteError};
use crate::stream::sweep::Deadline;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// How relaying ended.
#[derive(Debug)]
pub enum Relayed {
    /// The response is complete. The request may not be: a server may answer before it has read everything.
    Complete,
    /// The client went away, or broke its request.
    DownstreamGone,
    /// The upstream broke the response, or does not take the request.
    UpstreamBroke(String),
    /// Nothing moved for too long.
    Idle,
}

/// The two directions of one exchange.
pub struct Relay<'x, 's, Q, P> {
    /// The request's body and its movement so far.
    pub request: (&'x mut Q, &'x mut Sink<'s>, &'x mut Pump),
    /// The response's body.
    pub response: (&'x mut P, &'x mut Sink<'s>, &'x mut Pump),
    /// Called once the request is complete.
    pub request_complete: &'x dyn Fn(),
    /// After a protocol switch both directions run to their ends, and an end is passed on as a half-close.
    pub is_tunnel: bool,
}

impl<Q: Source, P: Source> Relay<'_, '_, Q, P> {
    /// Moves both bodies until the exchange is over. `idle` is the longest time without a byte in either direction, watched
    /// by `deadline`.
    pub async fn run(&mut self, idle: Option<(Duration, &Deadline)>) -> Relayed {
        let Some((idle, deadline)) = idle else { return poll_fn(|cx| self.poll(cx)).await };
        loop {
            let moved = self.moved();
            deadline.reset(Instant::now() + idle);
            match deadline.race(poll_fn(|cx| self.poll(cx))).await {
                Ok(relayed) => return relayed,
                Err(_) if self.moved() == moved => return Relayed::Idle,
                Err(_) => {}
            }
        }
    }

    fn moved(&self) -> u64 {
        self.request.2.moved() + self.response.2.moved()
    }

    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Relayed> {
        let (source, sink, pump) = &mut self.request;
        let request = if pump.is_done() { Poll::Ready(Ok(())) } else { pump.poll(cx, *source, sink) };
        let request_done = match request {
            Poll::Ready(Ok(())) => {
                (self.request_complete)();
                true
            }
            Poll::Ready(Err(PumpError::Read(_))) => return Poll::Ready(Relayed::DownstreamGone),
            // An upstream that stopped reading may still be answering.
            Poll::Ready(Err(PumpError::Write(WriteError::Reset(h2::Reason::NO_ERROR)))) => false,
            Poll::Ready(Err(PumpError::Write(WriteError::Io(_)))) if !self.is_tunnel => false,
            Poll::Ready(Err(PumpError::Write(error))) => return Poll::Ready(Relayed::UpstreamBroke(error.to_string())),
            Poll::Pending => false,
        };
        if request_done && self.is_tunnel && self.request.1.poll_shutdown(cx).is_pending() {
            return Poll::Pending;
        }

        let (source, sink, pump) = &mut self.response;
        let response_done = match pump.poll(cx, *source, sink) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(PumpError::Write(_))) => return Poll::Ready(Relayed::DownstreamGone),
            Poll::Ready(Err(PumpError::Read(error))) => return Poll::Ready(Relayed::UpstreamBroke(broken(&error))),
            Poll::Pending => {
                if self.response.1.poll_reset(cx).is_ready() {
                    return Poll::Ready(Relayed::DownstreamGone);
                }
                false
            }
        };
        if response_done && self.is_tunnel {
            if self.response.1.poll_shutdown(cx).is_pending() {
                return Poll::Pending;
            }
            return if request_done { Poll::Ready(Relayed::Complete) } else { Poll::Pending };
        }
        if response_done { Poll::Ready(Relayed::Complete) } else { Poll::Pending }
    }
}

fn broken(error: &ReadError) -> String {
    error.to_string()
}
