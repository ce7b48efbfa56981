//! Errors that name a field by its path, such as
//! `route_config.virtual_hosts[0].routes[2].route.timeout`.

use std::fmt;

/// What is wrong with one field of a message or a file.
///
/// `Display` gives `path: problem`. The problem says what the value was and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct FieldError {
    /// The field's path from the message's root, in proto names (`snake_case`). Empty for the message itself.
    pub path: String,
    /// What is wrong, with the value and the way out.
    pub problem: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.problem) } else { write!(f, "{}: {}", self.path, self.problem) }
    }
}

impl FieldError {
    /// An error at `path`; see [`FieldPath`] for building paths without allocating on success.
    pub fn new(path: impl fmt::Display, problem: impl Into<String>) -> Self {
        Self { path: path.to_string(), problem: problem.into() }
    }

    /// The field's value is not acceptable: `` `value` is <why>; <way out> ``.
    pub fn invalid(
        path: impl fmt::Display,
        value: impl fmt::Display,
        why: impl fmt::Display,
        way_out: impl fmt::Display,
    ) -> Self {
        Self::new(path, format!("`{value}` {why}; {way_out}"))
    }

    /// A field that must be there is missing.
    pub fn missing(path: impl fmt::Display, way_out: impl fmt::Display) -> Self {
        Self::new(path, format!("is required but not set; {way_out}"))
    }

    /// The same error, seen from a message that holds this one at `prefix`.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.path = if self.path.is_empty() {
            prefix.to_owned()
        } else if self.path.starts_with('[') || prefix.is_empty() {
            format!("{prefix}{}", self.path)
        } else {
            format!("{prefix}.{}", self.path)
        };
        self
    }
}

/// A path built while descending, on the stack: nothing is allocated until it is printed.
///
/// ```
/// use weft_xds::FieldPath;
/// let root = FieldPath::root("virtual_hosts");
/// let host = root.index(0);
/// let routes = host.field("routes");
/// assert_eq!(routes.index(2).field("match").to_string(), "virtual_hosts[0].routes[2].match");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct FieldPath<'a> {
    parent: Option<&'a FieldPath<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> FieldPath<'a> {
    /// The start of a path; empty for the message itself.
    #[must_use]
    pub fn root(name: &'a str) -> Self {
        Self { parent: None, step: Step::Field(name) }
    }

    /// A field of the message at this path.
    #[must_use]
    pub fn field<'b>(&'b self, name: &'b str) -> FieldPath<'b> {
        FieldPath { parent: Some(self), step: Step::Field(name) }
    }

    /// An element of the repeated field at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> FieldPath<'_> {
        FieldPath { parent: Some(self), step: Step::Index(index) }
    }

    /// An entry of the map at this path, written `["key"]`.
    #[must_use]
    pub fn key<'b>(&'b self, key: &'b str) -> FieldPath<'b> {
        FieldPath { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut dot = false;
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            dot = !parent.is_empty();
        }
        match self.step {
            Step::Field(name) if dot => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

impl FieldPath<'_> {
    fn is_empty(&self) -> bool {
        matches!(self.step, Step::Field("")) && self.parent.is_none_or(|parent| parent.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_root_leaves_no_dot() {
        let root = FieldPath::root("");
        assert_eq!(root.field("name").to_string(), "name");
        assert_eq!(root.field("a").key("b.c").field("d").to_string(), r#"a["b.c"].d"#);
    }

    #[test]
    fn within_joins_paths_with_one_dot() {
        let error = FieldError::new("timeout", "is negative");
        assert_eq!(error.clone().within("route").to_string(), "route.timeout: is negative");
        assert_eq!(error.within("").path, "timeout");
        assert_eq!(FieldError::new("", "x").within("a").path, "a");
        assert_eq!(FieldError::new("[3].b", "x").within("a").path, "a[3].b");
    }
}
