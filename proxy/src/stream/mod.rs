//! Bytes and body frames in motion: what both codecs look like to a request.
//!
//! - [`wire`]: a transport with its read and write buffer, the ground HTTP/1.1 stands on.
//! - [`prefixed`]: a transport of which somebody has read the beginning.
//! - [`body`]: where a message's body comes from, whatever the codec.
//! - [`sink`]: where a message's body goes, whatever the codec.
//! - [`pump`]: moves one into the other with back-pressure, flushing only when the source has run dry.
//! - [`sweep`]: deadlines without a timer per request.
//!
//! Everything here is single-threaded and polled by one task per connection or stream.

pub mod body;
pub mod prefixed;
pub mod pump;
pub mod sink;
pub mod sweep;
pub mod wire;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte transport: a TCP socket, a TLS stream over one, or an in-memory pipe under test.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// A transport of any kind. One virtual call per read or write is nothing beside the system call behind it, and it
/// keeps the data path compiled once.
pub type BoxIo = Box<dyn Io>;
