//! Both bodies of an exchange, at the same time, to their ends.

use super::timeout::Clock;
use crate::stream::body::{ReadError, Source};
use crate::stream::pump::{Pump, PumpError};
use crate::stream::sink::{Sink, WriteError};
use std::future::poll_fn;
use std::task::Poll;

/// How relaying ended.
#[derive(Debug)]
pub enum Relayed {
    /// The response is complete. The request may not be: a server may answer before it has read everything.
    Complete,
    /// The client went away, or broke its request.
    DownstreamGone,
    /// The upstream broke the response, or does not take the request.
    UpstreamBroke {
        /// What broke.
        reason: String,
        /// The code of the peer's RST_STREAM, where that is what broke it.
        reset: Option<h2::Reason>,
    },
}

impl Relayed {
    fn reading(error: &ReadError) -> Self {
        let reset = match error {
            ReadError::Http2(error) => reset_by_peer(error),
            _ => None,
        };
        Self::UpstreamBroke { reason: error.to_string(), reset }
    }

    fn writing(error: &WriteError) -> Self {
        let reset = match error {
            WriteError::Reset(reason) => Some(*reason),
            WriteError::Http2(error) => reset_by_peer(error),
            _ => None,
        };
        Self::UpstreamBroke { reason: error.to_string(), reset }
    }
}

fn reset_by_peer(error: &h2::Error) -> Option<h2::Reason> {
    error.reason().filter(|_| error.is_reset() && error.is_remote())
}

/// The two directions of one exchange.
pub struct Relay<'x, 's, Q, P> {
    /// The request's body and its movement so far.
    pub request: (&'x mut Q, &'x mut Sink<'s>, &'x mut Pump),
    /// The response's body.
    pub response: (&'x mut P, &'x mut Sink<'s>, &'x mut Pump),
    /// Told what moves, and when the request is complete.
    pub clock: &'x Clock,
    /// After a protocol switch both directions run to their ends, and an end is passed on as a half-close.
    pub is_tunnel: bool,
}

impl<Q: Source, P: Source> Relay<'_, '_, Q, P> {
    /// Moves both bodies until the exchange is over.
    pub async fn run(&mut self) -> Relayed {
        poll_fn(|cx| {
            let moved = self.moved();
            let relayed = self.poll(cx);
            if self.moved() != moved {
                self.clock.moved();
            }
            relayed
        })
        .await
    }

    fn moved(&self) -> u64 {
        self.request.2.moved() + self.response.2.moved()
    }

    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Relayed> {
        let (source, sink, pump) = &mut self.request;
        let request = if pump.is_done() { Poll::Ready(Ok(())) } else { pump.poll(cx, *source, sink) };
        let request_done = match request {
            Poll::Ready(Ok(())) => {
                self.clock.request_complete();
                true
            }
            Poll::Ready(Err(PumpError::Read(_))) => return Poll::Ready(Relayed::DownstreamGone),
            // An upstream that stopped reading may still be answering.
            Poll::Ready(Err(PumpError::Write(WriteError::Reset(h2::Reason::NO_ERROR)))) => false,
            Poll::Ready(Err(PumpError::Write(WriteError::Io(_)))) if !self.is_tunnel => false,
            Poll::Ready(Err(PumpError::Write(error))) => return Poll::Ready(Relayed::writing(&error)),
            Poll::Pending => false,
        };
        if request_done && self.is_tunnel && self.request.1.poll_shutdown(cx).is_pending() {
            return Poll::Pending;
        }

        let (source, sink, pump) = &mut self.response;
        let response_done = match pump.poll(cx, *source, sink) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(PumpError::Write(_))) => return Poll::Ready(Relayed::DownstreamGone),
            Poll::Ready(Err(PumpError::Read(error))) => return Poll::Ready(Relayed::reading(&error)),
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
