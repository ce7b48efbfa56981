//! The admin side of the process: readiness, drain, and the servers that show what the proxy knows.

pub mod drain;
pub mod readiness;

pub use drain::{Busy, Drain, DrainTrigger};
pub use readiness::{ReadyGuard, Readiness};
