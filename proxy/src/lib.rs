//! proxy

pub mod http;
pub mod http1;
