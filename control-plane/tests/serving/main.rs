//! A whole control plane in this process, and real gRPC clients over TLS.

// Clippy knows #[test] functions as tests, but not their helpers.
#![allow(clippy::unwrap_used)]

mod ads;
mod identity;
mod support;
mod webhook;
