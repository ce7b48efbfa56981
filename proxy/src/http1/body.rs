//! Bodies, from bytes: which of them are data, which are framing.

use crate::http::{Fields, Framing};

use super::section::{Facts, SectionEnd, parse_fields};
use super::{BodyError, Limits};

/// What is at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// `len` bytes of the body after `skip` bytes of framing. Take `skip + len` bytes.
    Data {
        /// Bytes of framing to drop.
        skip: usize,
        /// Bytes of the body to forward; never 0.
        len: usize,
    },
    /// `len` bytes of framing and no data yet. Take them.
    Skip {
        /// Bytes of framing to drop; never 0.
        len: usize,
    },
    /// The input is empty, or (in a trailer section) incomplete: keep it and read more.
    NeedMore,
    /// The body is complete; nothing of the input belongs to it. See [`BodyDecoder::trailers`].
    End,
}

/// Decodes one body. Data is never copied: the steps say where it lies in the input.
///
/// ```
/// use weft_proxy::http::Framing;
/// use weft_proxy::http1::{BodyDecoder, BodyStep, Limits};
///
/// let mut body = BodyDecoder::new(Framing::Chunked, Limits::default());
/// let input = b"3;x=y\r\nabc\r\n0\r\n\r\nnext";
/// assert_eq!(body.decode(input), Ok(BodyStep::Data { skip: 7, len: 3 }));
/// assert_eq!(body.decode(&input[10..]), Ok(BodyStep::Skip { len: 7 }));
/// assert_eq!(body.decode(&input[17..]), Ok(BodyStep::End));
/// ```
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    limits: Limits,
    extension_bytes: usize,
    trailers: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// `Content-Length`, bytes left.
    Length(u64),
    UntilClose,
    /// In a chunk's size, of which so many digits have come.
    Size {
        size: u64,
        digits: u8,
    },
    /// In whitespace after the size, which only an extension may follow.
    SpaceAfterSize {
        size: u64,
    },
    Extension {
        size: u64,
    },
    /// After the CR of the size's line.
    SizeLineFeed {
        size: u64,
    },
    /// In a chunk, bytes left, never 0.
    Chunk(u64),
    ChunkCarriageReturn,
    ChunkLineFeed,
    Trailers(SectionEnd),
    Done,
}

/// Extensions of all chunks of a body together: nobody uses them, and unbounded they would let a peer
/// send much for each byte of data.
const MAX_EXTENSION_BYTES: usize = 16 * 1024;

/// Digits of a 64-bit size; more could only be leading zeros.
const MAX_SIZE_DIGITS: u8 = 16;

const START_OF_SIZE: State = State::Size { size: 0, digits: 0 };

impl BodyDecoder {
    /// A decoder for a body delimited by `framing`. `limits` bound the trailers.
    pub fn new(framing: Framing, limits: Limits) -> Self {
        Self {
            state: match framing {
                Framing::None | Framing::Length(0) => State::Done,
                Framing::Length(length) => State::Length(length),
                Framing::UntilClose => State::UntilClose,
                Framing::Chunked => START_OF_SIZE,
            },
            limits,
            extension_bytes: 0,
            trailers: Fields::new(),
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailers of a chunked body that is complete.
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    /// How many bytes of data are certain to follow: what is left of the length or of the chunk.
    pub fn known_remaining(&self) -> u64 {
        match self.state {
            State::Length(left) | State::Chunk(left) => left,
            _ => 0,
        }
    }

    /// Says what the bytes at the start of `input` are; the caller takes them off before the next call.
    ///
    /// # Errors
    /// The body is malformed; the message must be aborted and the connection closed.
    pub fn decode(&mut self, input: &[u8]) -> Result<BodyStep, BodyError> {
        let mut at = 0;
        loop {
            match self.state {
                State::Done if at == 0 => return Ok(BodyStep::End),
                State::Done => return Ok(BodyStep::Skip { len: at }),
                State::Trailers(end) => {
                    return Ok(match self.decode_trailers(&input[at..], end)? {
                        BodyStep::Skip { len } => BodyStep::Skip { len: at + len },
                        _ if at > 0 => BodyStep::Skip { len: at },
                        step => step,
                    });
                }
                _ => {}
            }
            let Some(&byte) = input.get(at) else {
                return Ok(match at {
                    0 => BodyStep::NeedMore,
                    len => BodyStep::Skip { len },
                });
            };
            if let Some(len) = self.take_data(input.len() - at) {
                return Ok(BodyStep::Data { skip: at, len });
            }
            self.state = self.next_framing_state(byte)?;
            at += 1;
        }
    }

    /// The connection has ended: whether that is where the body ends.
    ///
    /// # Errors
    /// [`BodyError::Truncated`]: part of the body is missing.
    pub fn finish_eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose | State::Done => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// In data: takes as much as there is of `available` bytes, at least one.
    fn take_data(&mut self, available: usize) -> Option<usize> {
        let (left, after) = match self.state {
            State::Length(left) => (left, State::Done),
            State::Chunk(left) => (left, State::ChunkCarriageReturn),
            State::UntilClose => return Some(available),
            _ => return None,
        };
        let taken = usize::try_from(left).map_or(available, |left| left.min(available));
        self.state = match (self.state, left - taken as u64) {
            (_, 0) => after,
            (State::Length(_), left) => State::Length(left),
            (_, left) => State::Chunk(left),
        };
        Some(taken)
    }

    /// RFC 9112 §7.1, one byte at a time: size lines are short, and no state is lost between reads.
    fn next_framing_state(&mut self, byte: u8) -> Result<State, BodyError> {
        Ok(match (self.state, byte) {
            // Size => Size
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits == MAX_SIZE_DIGITS {
                    return Err(BodyError::ChunkSizeOverflow);
                }
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    _ => (byte | 0x20) - b'a' + 10,
                };
                // 16 digits of 4 bits fit; the last bit is left to readers that keep sizes in signed numbers.
                let size = size << 4 | u64::from(digit);
                if i64::try_from(size).is_err() {
                    return Err(BodyError::ChunkSizeOverflow);
                }
                State::Size { size, digits: digits + 1 }
            }
            (State::Size { digits: 0, .. }, _) => return Err(BodyError::ChunkSize),
            // Size => SizeLineFeed | Extension | SpaceAfterSize
            (State::Size { size, .. }, b'\r') => State::SizeLineFeed { size },
            (State::Size { size, .. } | State::SpaceAfterSize { size }, b';') => {
                self.count_extension_byte()?;
                State::Extension { size }
            }
            (State::Size { size, .. } | State::SpaceAfterSize { size }, b' ' | b'\t') => {
                self.count_extension_byte()?;
                State::SpaceAfterSize { size }
            }
            (State::Size { .. } | State::SpaceAfterSize { .. }, _) => {
                return Err(BodyError::ChunkSize);
            }
            // Extension => Extension | SizeLineFeed
            (State::Extension { size }, b'\r') => State::SizeLineFeed { size },
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.count_extension_byte()?;
                State::Extension { size }
            }
            (State::Extension { .. }, _) => return Err(BodyError::Extension),
            // SizeLineFeed => Chunk | Trailers
            (State::SizeLineFeed { size: 0 }, b'\n') => State::Trailers(SectionEnd::default()),
            (State::SizeLineFeed { size }, b'\n') => State::Chunk(size),
            (State::SizeLineFeed { .. }, _) => return Err(BodyError::ChunkSize),
            // ChunkCarriageReturn => ChunkLineFeed => Size
            (State::ChunkCarriageReturn, b'\r') => State::ChunkLineFeed,
            (State::ChunkLineFeed, b'\n') => START_OF_SIZE,
            (State::ChunkCarriageReturn | State::ChunkLineFeed, _) => {
                return Err(BodyError::ChunkEnd);
            }
            (
                state @ (State::Length(_) | State::UntilClose | State::Chunk(_) | State::Trailers(_) | State::Done),
                _,
            ) => state,
        })
    }

    fn count_extension_byte(&mut self) -> Result<(), BodyError> {
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSION_BYTES {
            return Err(BodyError::ExtensionsTooLong { limit: MAX_EXTENSION_BYTES });
        }
        Ok(())
    }

    /// `input` starts with the trailer section, of which earlier calls may have seen a part.
    fn decode_trailers(&mut self, input: &[u8], mut end: SectionEnd) -> Result<BodyStep, BodyError> {
        let limit = self.limits.max_head_bytes;
        let window = &input[..input.len().min(limit)];
        let Some(len) = end.find(window).map_err(BodyError::Trailers)? else {
            if window.len() == limit {
                return Err(BodyError::Trailers(super::HeadError::HeadTooLarge { limit }));
            }
            self.state = State::Trailers(end);
            return Ok(BodyStep::NeedMore);
        };
        let mut facts = Facts::default();
        parse_fields(&window[..len - 2], self.limits.max_fields, &mut self.trailers, &mut facts)
            .map_err(BodyError::Trailers)?;
        if facts.hosts > 0 || facts.content_length.is_some() || facts.transfer_encoding.is_some() {
            return Err(BodyError::ForbiddenTrailer);
        }
        self.state = State::Done;
        Ok(BodyStep::Skip { len })
    }
}
