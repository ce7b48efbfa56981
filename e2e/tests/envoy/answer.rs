//! Answers, and when two of them are equal.

use std::fmt;

use super::case::Case;

/// What came back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status, or how the connection ended without one.
    pub(crate) status: String,
    /// Statuses 1xx that came before it.
    pub(crate) interim: Vec<String>,
    /// Fields of the head, names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) trailers: Vec<(String, String)>,
}

/// Fields that cannot be equal: clocks, and the program's own name.
const OF_THE_MOMENT: [&str; 2] = ["date", "server"];

/// What both programs say in fields of their own, such as why they answered in the application's stead.
const OF_THE_PROGRAM: [&str; 2] = ["x-envoy-", "x-weft-"];

/// What depends on the text of an answer.
const OF_THE_TEXT: [&str; 3] = ["content-length", "content-type", "grpc-message"];

/// What marks an answer as the application's; see [`super::application`].
pub(crate) const APPLICATION: &str = "x-application";

impl Answer {
    /// One that never came, and why.
    pub(crate) fn none(why: &str) -> Self {
        Self { status: why.to_owned(), ..Self::default() }
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// Whether a client could not tell this from `other`. The text of an answer that a program makes itself is its own, unless the file
    /// asks for it.
    pub(crate) fn is_like(&self, other: &Self, case: &Case) -> bool {
        let in_the_file = |body: &str| !body.is_empty() && case.bootstrap.contains(body.trim());
        let asked_for = self.field(APPLICATION).is_some() || in_the_file(&self.body) || in_the_file(&other.body);
        let head = self.status == other.status && self.interim == other.interim && self.trailers == other.trailers;
        let fields = self.comparable(asked_for) == other.comparable(asked_for);
        head && fields && (!asked_for || self.body == other.body)
    }

    /// The fields that must be equal, in order of their names.
    fn comparable(&self, asked_for: bool) -> Vec<&(String, String)> {
        let matters = |(name, _): &&(String, String)| {
            let own = OF_THE_PROGRAM.iter().any(|prefix| name.starts_with(prefix));
            let of_the_text = OF_THE_TEXT.contains(&name.as_str());
            !OF_THE_MOMENT.contains(&name.as_str()) && !own && (asked_for || !of_the_text)
        };
        let mut fields: Vec<_> = self.fields.iter().filter(matters).collect();
        fields.sort();
        fields
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, interim, fields, body, trailers } = self;
        write!(formatter, "{interim:?} {status} {fields:?} {body:?} {trailers:?}")
    }
}
