//! What routing, filters and balancing see of a message, whichever protocol carried it.
//!
//! [`RequestHead`] and [`ResponseHead`] are filled by the codecs ([`crate::http1`], the h2 side) and
//! read by everything between them. No `http`, `hyper` or `h2` type crosses this seam. All types
//! are reused between messages: `clear()` keeps the capacity, so that a connection in its steady
//! state allocates nothing for a head.
//!
//! Invariants:
//! - Field names are tokens and values hold no CR, LF or NUL, however they got there: a head
//!   can always be written to an HTTP/1.1 connection without splitting it.
//! - Order, letter case, duplicates and bytes from 0x80 of received fields are preserved.
//! - Targets are kept byte for byte; nothing is decoded, resolved or merged.

pub mod convert;
mod edit;
mod fields;
mod head;
pub(crate) mod syntax;
mod view;

pub use fields::Fields;
pub use head::{Framing, RequestHead, ResponseHead, Version};
