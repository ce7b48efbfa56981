//! TLS for the data path: who we are, who the peer must be, and an encrypted stream that writes once per flush.
//!
//! - [`identity`]: our key, certificate and trust bundle, replaced while connections run.
//! - [`peer`]: what a peer's certificate says about it.
//! - [`verifier`]: what a peer's certificate must say.
//! - [`san`]: Envoy's subject alternative name matchers.
//! - [`upstream`], [`downstream`]: Envoy's TLS contexts, ready for handshakes; [`context`] is what they share, `files` what they
//!   have from files.
//! - [`handshake`], [`stream`]: from a transport to a [`TlsStream`].
//! - [`signing`], [`state_dir`]: getting a certificate from the control plane, and keeping it over a restart.
//!
//! Invariants: no session is ever resumed, so every connection verifies its peer against the bundle of that moment; a
//! handshake that fails is never followed by plaintext.

pub mod context;
pub mod downstream;
pub mod handshake;
pub mod identity;
pub mod peer;
pub mod san;
pub mod signing;
pub mod state_dir;
pub mod stream;
pub mod upstream;
pub mod verifier;

mod files;
pub(crate) mod provider;
#[cfg(test)]
mod testing;

pub use downstream::DownstreamTls;
pub use handshake::{HandshakeError, accept, connect};
pub use identity::{Credentials, IdentityError, Leaf, LocalIdentity, TrustBundle};
pub use peer::PeerIdentity;
pub use stream::TlsStream;
pub use upstream::{ClientTls, UpstreamTls};
pub use verifier::{ExpectedPeer, PeerError};
