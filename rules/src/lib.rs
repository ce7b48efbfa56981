//! Compiled routes, matchers and access decisions.
//!
//! Envoy messages go in, compiled structures come out; asking them costs no allocation in the common case. Nothing here does IO,
//! is async, or reads a clock: time and randomness are arguments, so the proxy, `weft explain`, `weft validate` and the model
//! tests all get the same answers.
//!
//! | module | job |
//! |---|---|
//! | [`view`] | what a rule may see of a request |
//! | [`string`], [`header`], [`query`] | the leaf matchers |
//! | [`table`], [`path`] | which virtual host and route a request gets |
//! | [`route`] | what a route does: forward, redirect, answer |
//! | [`rewrite`], [`mutation`], [`redirect`], [`hash`] | how a route edits a request, or where it sends the client |
//! | [`retry`] | whether and when to try again |
//! | [`rbac`], [`fault`], [`overrides`] | the decisions of the two HTTP filters, and what routes change about them |
//!
//! Every `compile` refuses what it does not implement with a [`FieldError`] that names the field's path; a field whose absence
//! changes no behaviour (statistics, tracing names) is skipped.

pub mod fault;
pub mod hash;
pub mod header;
pub mod mutation;
pub mod overrides;
pub mod path;
pub mod query;
pub mod rbac;
pub mod redirect;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod string;
pub mod table;
pub mod view;

mod proto;

pub use fault::{Fault, FaultDecision};
pub use overrides::FilterOverride;
pub use rbac::{Peer, Rbac, Verdict};
pub use retry::{Attempt, RetryPolicy};
pub use route::{Action, ClusterChoice, Forward, IdleTimeout, Route};
pub use table::RouteTable;
pub use view::RequestView;
pub use weft_xds::FieldError;
