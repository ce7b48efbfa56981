//! Which fields of Envoy's messages Weft acts upon: the one table, and the walk that holds messages against it.
//!
//! prost drops what it does not know, and a compiler of messages does not look at what it does not implement. So what
//! arrives is walked as raw bytes first: a field that the table refuses, or that Weft has never heard of, is an error
//! with its path; one that the table ignores is reported.
//!
//! `table` is written by hand; `fields` (numbers and types) is generated from the descriptors, which are megabytes in
//! memory and so not there while the proxy runs.

mod defaults;
mod fields;
mod table;
mod walk;
mod within;
mod without;

use std::sync::LazyLock;

pub use walk::check;
pub use within::{Within, each_within};
pub use without::{Without, without_each};

use prost::{Message, Name};

use crate::field::FieldError;

/// What happens to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Support {
    /// Acted upon.
    Enforced,
    /// Skipped, and reported as such: names, statistics, log tuning.
    Ignored,
    /// A message that sets it is not accepted.
    Refused,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The message's full name.
    pub message: &'static str,
    /// The field's name in the proto file.
    pub field: &'static str,
    /// Its number.
    pub number: u32,
    /// What happens to it.
    pub support: Support,
    /// What it is where a message leaves it unset, if that is more than nothing, zero or off.
    pub default: Option<&'static str>,
}

/// The whole table, ordered by message and field number; what the reference page is made from.
pub fn rows() -> impl Iterator<Item = Row> {
    fields::MESSAGES.iter().enumerate().flat_map(|(index, message)| {
        message.fields.iter().enumerate().map(move |(at, field)| Row {
            message: message.name,
            field: field.name,
            number: field.number,
            support: SUPPORT[index][at],
            default: defaults::of(message.name, field.name),
        })
    })
}

/// [`check`] for a message that is already decoded, such as one from a file, whose unknown fields were found by name.
///
/// # Errors
/// As [`check`].
pub fn check_message<M: Message + Name>(message: &M) -> Result<Vec<String>, FieldError> {
    check(&M::type_url(), &message.encode_to_vec())
}

/// The messages that are decided upon, in the order of the table. For the generator of `fields`.
#[doc(hidden)]
pub fn messages() -> Vec<&'static str> {
    table::all().map(|decision| decision.message).collect()
}

/// Numbers and types of one message's fields.
struct Fields {
    name: &'static str,
    /// Ordered by number.
    fields: &'static [Field],
}

struct Field {
    number: u32,
    name: &'static str,
    shape: Shape,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    One,
    Many,
    Map,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Nothing below it is looked at.
    Leaf,
    /// `google.protobuf.BoolValue`.
    Flag,
    /// `google.protobuf.Any`.
    Any,
    /// A message of the table, by its place in [`fields::MESSAGES`].
    Message(u16),
}

/// The decisions in the order of [`fields::MESSAGES`]: two kilobytes, made at the first use.
static SUPPORT: LazyLock<Vec<Vec<Support>>> = LazyLock::new(|| {
    let support = |message: &Fields| {
        let decision = table::all().find(|decision| decision.message == message.name);
        let of = |field: &Field| match decision {
            Some(decision) if decision.enforced.contains(&field.name) => Support::Enforced,
            Some(decision) if decision.ignored.contains(&field.name) => Support::Ignored,
            // Refusing is also the safe answer to what is in no list; a test holds that there is no such field.
            decision => {
                debug_assert!(decision.is_some_and(|all| all.refused.contains(&field.name)));
                Support::Refused
            }
        };
        message.fields.iter().map(of).collect()
    };
    fields::MESSAGES.iter().map(support).collect()
});

fn find(message: &str) -> Option<u16> {
    let found = fields::MESSAGES.binary_search_by(|fields| fields.name.cmp(message));
    found.ok().and_then(|index| u16::try_from(index).ok())
}

#[cfg(test)]
mod tests;
