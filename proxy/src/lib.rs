//! proxy

pub mod admin;
pub mod ads;
pub mod bootstrap;
pub mod http;
pub mod http1;
pub mod observe;
pub mod upstream;
pub mod tls;
pub mod accept;
pub mod request;
pub mod snapshot;
pub mod stream;
pub mod tcp;
pub mod worker;
