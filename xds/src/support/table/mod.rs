//! The decisions, by message. Every field of every message here is in exactly one list; a test holds that against the
//! descriptors, so that a field which a newer Envoy brings has to be decided upon.

mod access;
mod bootstrap;
mod cluster;
mod common;
mod http;
mod listener;
mod route;
mod tls;

/// What happens to each field of one message.
pub(super) struct Decision {
    /// Full name.
    pub(super) message: &'static str,
    /// Acted upon. Single values may still be refused by what compiles the message.
    pub(super) enforced: &'static [&'static str],
    /// Skipped and reported: what it asks for does not change where a request goes or what its sender sees (names,
    /// statistics, logs, tuning), or has no effect without something that is refused.
    pub(super) ignored: &'static [&'static str],
    /// Refused where set: skipping it would quietly do something else than asked for.
    pub(super) refused: &'static [&'static str],
}

/// All decisions.
pub(super) fn all() -> impl Iterator<Item = &'static Decision> {
    [
        listener::TABLE,
        http::TABLE,
        route::TABLE,
        access::TABLE,
        cluster::TABLE,
        tls::TABLE,
        common::TABLE,
        bootstrap::TABLE,
    ]
    .into_iter()
    .flatten()
}
