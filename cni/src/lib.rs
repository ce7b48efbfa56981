//! Traffic redirection into the sidecar. The CNI plugin and the init container share [`redirect`].

pub mod redirect;
