//! The data path under simulated time, from bytes to bytes: configuration text in, what each side sees out.

mod allocations;
mod calls;
mod draining;
mod fields;
mod floods;
mod frames;
mod http1;
mod http2;
mod limits;
mod pools;
mod resending;
mod retries;
mod sim;
mod stalls;
