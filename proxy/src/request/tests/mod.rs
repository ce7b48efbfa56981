//! The data path under simulated time, from bytes to bytes: configuration text in, what each side sees out.

mod fields;
mod http1;
mod http2;
mod limits;
mod resending;
mod retries;
mod sim;
