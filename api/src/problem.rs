//! What is wrong with a user's file, said so that it can be mended without reading our code.

use std::fmt;

/// Whether a [`Problem`] stops the object from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is refused as a whole; the last good configuration stays.
    Error,
    /// The file is used, but probably does not mean what its author thinks.
    Warning,
}

/// One thing wrong with one field of one object.
///
/// `Display` gives one line: `file:line: Kind namespace/name: field: value: why; way out`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// The file, as it was named by the caller.
    pub file: String,
    /// 1-based line of the field, or of the nearest parent that exists; 0 where there are no lines, as in an API server.
    pub line: u32,
    /// `Kind namespace/name`, or empty where the document is not an object.
    pub object: String,
    /// Path of the field, for example `spec.rules[0].backendRefs[1].weight`; empty for the whole document.
    pub field: String,
    /// The offending value as written; empty where there is none (a missing field).
    pub value: String,
    /// Why the value cannot stand.
    pub why: String,
    /// What to write instead; may be empty where `why` already says it.
    pub hint: String,
    /// Error or warning.
    pub severity: Severity,
}

impl Problem {
    /// Whether the object cannot be used.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: ", self.file)?,
            line => write!(f, "{}:{line}: ", self.file)?,
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object.escape_debug())?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        if !self.value.is_empty() {
            write!(f, "{}: ", one_line(&self.value))?;
        }
        f.write_str(&self.why)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// A value in quotes, escaped and cut so that a problem stays one readable line.
fn one_line(value: &str) -> String {
    const LONGEST: usize = 60;
    if value.chars().count() > LONGEST {
        let head: String = value.chars().take(LONGEST).collect();
        format!("{head:?}…")
    } else {
        format!("{value:?}")
    }
}
