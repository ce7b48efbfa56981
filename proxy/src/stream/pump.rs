//! Moves a body from its source into its sink.

use super::body::{ReadError, Source, Step};
use super::sink::{Sink, WriteError};
use std::task::{Context, Poll, ready};
use thiserror::Error;

/// Which side broke.
#[derive(Debug, Error)]
pub enum PumpError {
    /// The body could not be read to its end.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The body could not be sent on.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The movement of one body.
///
/// Whatever the source has at hand goes into one write: the sink is flushed when the source has run dry or the sink is
/// full, never in between. A sink that does not take more stops the reading, so that back-pressure reaches the sender.
#[derive(Debug, Default)]
pub struct Pump {
    moved: u64,
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Moving,
    Flushing,
    Done,
}

impl Pump {
    /// A movement that may be over already.
    pub fn resumed(is_done: bool) -> Self {
        Self { moved: 0, phase: if is_done { Phase::Done } else { Phase::Moving } }
    }

    /// Bytes moved so far.
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether the body has been moved to its end and flushed.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Moves what can be moved; ready when the body has ended and everything is flushed.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut impl Source,
        sink: &mut Sink<'_>,
    ) -> Poll<Result<(), PumpError>> {
        // Moving => Flushing
        while self.phase == Phase::Moving {
            match source.poll_next(cx) {
                Poll::Pending => {
                    ready!(sink.poll_flush(cx))?;
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => {
                    // What arrived before the break belongs to the peer.
                    ready!(sink.poll_flush(cx))?;
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Ready(Ok(Step::Data)) => {
                    let before = source.data().len();
                    ready!(sink.poll_send(cx, source))?;
                    self.moved += before.saturating_sub(source.data().len()) as u64;
                }
                Poll::Ready(Ok(Step::End)) => {
                    sink.end(source)?;
                    self.phase = Phase::Flushing;
                }
            }
        }
        // Flushing => Done
        if self.phase == Phase::Flushing {
            ready!(sink.poll_flush(cx))?;
            self.phase = Phase::Done;
        }
        Poll::Ready(Ok(()))
    }
}
