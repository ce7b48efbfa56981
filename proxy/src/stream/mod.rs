//! Bytes and body frames in motion: what both codecs look like to a request.
//!
//! - [`wire`]: a transport with its read and write buffer, the ground HTTP/1.1 stands on.
//! - [`prefixed`]: a transport of which somebody has read the beginning.
//! - [`guard`]: ends HTTP/2 connections that carry little but control frames.
//! - [`body`]: where a message's body comes from, whatever the codec.
//! - [`sink`]: where a message's body goes, whatever the codec.
//! - [`pump`]: moves one into the other with back-pressure, flushing only when the source has run dry.
//! - [`spare`]: buffers for whoever moves bytes just now.
//! - [`sweep`]: deadlines without a timer per request.
//!
//! Everything here is single-threaded and polled by one task per connection or stream.

pub mod body;
pub mod guard;
pub mod keep_alive;
pub mod prefixed;
pub mod pump;
pub mod sink;
pub mod spare;
pub mod sweep;
pub mod wire;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

/// A byte transport: a TCP socket, a TLS stream over one, or an in-memory pipe under test.
pub trait Io: AsyncRead + AsyncWrite + Unpin {
    /// What has become of the bytes sent, where the transport knows.
    fn delivery(&self) -> Option<&dyn Delivery> {
        None
    }
}

/// Tells sent bytes from taken ones. A write to a socket that the peer has closed succeeds all the same; only the peer's
/// acknowledgements say whether anybody can have read it.
pub trait Delivery {
    /// Bytes handed to the network so far. Costs nothing.
    fn sent(&self) -> u64;
    /// How many of them the peer's kernel has taken, on a connection that the peer has closed; `None` where it cannot be found
    /// out.
    fn taken(&self) -> Option<Taken>;
}

/// What a peer has taken of the bytes sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Bytes acknowledged.
    pub bytes: u64,
    /// The connection is over: there will be no more.
    pub is_final: bool,
}

impl Io for TcpStream {}

impl Io for DuplexStream {}

// The way to the control plane.
impl Io for tokio_rustls::client::TlsStream<TcpStream> {}

impl Io for BoxIo {
    fn delivery(&self) -> Option<&dyn Delivery> {
        (**self).delivery()
    }
}

/// A transport of any kind. One virtual call per read or write is nothing beside the system call behind it, and it
/// keeps the data path compiled once.
pub type BoxIo = Box<dyn Io>;
