//! Where configuration comes from: the control plane, over one stream or one for each kind.
//!
//! - `state`: the protocol as a pure state machine: subscriptions, ACK and NACK, warming, make before break.
//! - `state_of_the_world`: the same over the older dialect, for a control plane that has no other.
//! - `resource`: what travels on it, compiled, and how it gets into the snapshot.
//! - `on_demand`: asking for a destination when its first connection appears.
//! - `client`: the task that ties these to a stream; `streams`: of what that is made; `channel`: the connection under it; `dial`: how that
//!   is made.
//! - `source`: what resources may say about where others come from.
//! - `keep`: the last good configuration in a file.
//!
//! Invariant: while the stream is down, whatever was in force stays in force.

mod channel;
mod client;
mod dial;
mod keep;
mod kind;
mod on_demand;
mod resource;
mod source;
mod state;
mod state_of_the_world;
mod streams;

pub use channel::{ControlPlane, ControlPlaneChannel, ControlPlaneTls, Dialect, Streams};
pub use client::{Client, Connect, Dump, Handle, Parts, Responses, Wants};
pub use kind::{Key, Kind};
pub use on_demand::{ANSWER_LIMIT, IDLE_LIMIT, Lookup, MAX_DESTINATIONS, OnDemand};
pub use resource::{Applier, Compiler, Resource, trust_bundle};
pub use source::{Service, Source};
pub use state::{Answer, Change, Compile, Compiled, Raw, Record, Refusal, State, WARM_LIMIT};
