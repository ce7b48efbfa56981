//! A whole control plane in this process, and real gRPC clients over TLS.

mod ads;
mod identity;
mod support;
