//! How a route rewrites the path and the authority of what it forwards.

use std::borrow::Cow;

use regex::bytes::{Captures, Regex};
use weft_xds::FieldError;

use crate::path::PathMatch;
use crate::proto::{matcher, refuse, unsupported};
use crate::string::search;
use crate::view::{RequestView, field};

/// What becomes of the path; the query always stays.
#[derive(Debug, Clone)]
pub(crate) enum PathRewrite {
    /// The first `matched` bytes, or everything if `None`, become `replacement`.
    Prefix {
        matched: Option<usize>,
        replacement: Vec<u8>,
    },
    Regex(Substitution),
    /// The whole path is replaced.
    Full(Vec<u8>),
}

impl PathRewrite {
    /// At most one of the three may be set.
    pub(crate) fn compile(
        prefix: &str,
        regex: Option<&matcher::RegexMatchAndSubstitute>,
        full: &str,
        matched: &PathMatch,
        path: &str,
    ) -> Result<Option<Self>, FieldError> {
        match (prefix, regex, full) {
            ("", None, "") => Ok(None),
            (prefix, None, "") => Ok(Some(Self::Prefix { matched: matched.matched_len(), replacement: prefix.into() })),
            ("", Some(regex), "") => {
                Ok(Some(Self::Regex(Substitution::compile(regex, &format!("{path}.regex_rewrite"))?)))
            }
            ("", None, full) => {
                // Envoy ≥ 1.36 reads path_rewrite as a format string.
                unsupported(full.contains('%'), path, "path_rewrite with %")?;
                Ok(Some(Self::Full(full.into())))
            }
            _ => Err(refuse(path, "more than one of prefix_rewrite, regex_rewrite and path_rewrite is set; keep one")),
        }
    }

    /// The path of a request that matched, rewritten.
    pub(crate) fn apply(&self, path: &[u8]) -> Vec<u8> {
        match self {
            Self::Prefix { matched, replacement } => {
                [replacement, path.get(matched.unwrap_or(path.len())..).unwrap_or_default()].concat()
            }
            Self::Regex(substitution) => substitution.apply(path),
            Self::Full(full) => full.clone(),
        }
    }
}

/// A compiled `RegexMatchAndSubstitute`: every match is replaced.
#[derive(Debug, Clone)]
pub(crate) struct Substitution {
    pattern: Regex,
    template: Vec<Piece>,
}

#[derive(Debug, Clone)]
enum Piece {
    Literal(Vec<u8>),
    Group(usize),
}

impl Substitution {
    pub(crate) fn compile(message: &matcher::RegexMatchAndSubstitute, path: &str) -> Result<Self, FieldError> {
        let pattern = message
            .pattern
            .as_ref()
            .ok_or_else(|| refuse(&format!("{path}.pattern"), "missing; give a regular expression"))?;
        let pattern = search(pattern, &format!("{path}.pattern"))?;
        let template = template(message.substitution.as_bytes(), pattern.captures_len()).map_err(|problem| {
            refuse(&format!("{path}.substitution"), format!("{:?} {problem}", message.substitution))
        })?;
        Ok(Self { pattern, template })
    }

    fn apply(&self, subject: &[u8]) -> Vec<u8> {
        let expand = |groups: &Captures<'_>| {
            self.template.iter().fold(Vec::new(), |mut out, piece| {
                match piece {
                    Piece::Literal(text) => out.extend_from_slice(text),
                    Piece::Group(n) => out.extend_from_slice(groups.get(*n).map_or(&b""[..], |group| group.as_bytes())),
                }
                out
            })
        };
        self.pattern.replace_all(subject, expand).into_owned()
    }
}

/// RE2's rewrite syntax: `\0`…`\9` are groups, `\\` is a backslash, `$` means nothing.
fn template(text: &[u8], groups: usize) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut literal = Vec::new();
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, if byte == b'\\' { bytes.next() } else { None }) {
            (b'\\', Some(b'\\')) => literal.push(b'\\'),
            (b'\\', Some(digit)) if digit.is_ascii_digit() => {
                let group = usize::from(digit - b'0');
                if group >= groups {
                    return Err(format!("refers to group {group}, but the pattern has only {}", groups - 1));
                }
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                pieces.push(Piece::Group(group));
            }
            (b'\\', _) => {
                return Err("holds a backslash that is followed neither by a digit nor by a backslash".into());
            }
            (byte, _) => literal.push(byte),
        }
    }
    pieces.push(Piece::Literal(literal));
    Ok(pieces)
}

/// What becomes of `Host` / `:authority`.
#[derive(Debug, Clone)]
pub(crate) enum HostRewrite {
    Literal(Vec<u8>),
    /// The value of this request header; nothing if it is absent or empty.
    Header(String),
    /// The chosen endpoint's host name; nothing where it has none.
    Endpoint,
    /// The path (without query) after a substitution.
    PathRegex(Substitution),
}

impl HostRewrite {
    pub(crate) fn apply<'a, V: RequestView + ?Sized>(
        &'a self,
        view: &'a V,
        endpoint: Option<&'a str>,
    ) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Literal(host) => Some(host.into()),
            Self::Header(name) => field(view, name).filter(|value| !value.is_empty()),
            Self::Endpoint => endpoint.filter(|name| !name.is_empty()).map(|name| name.as_bytes().into()),
            Self::PathRegex(substitution) => Some(substitution.apply(view.path()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn substitution(pattern: &str, substitution: &str) -> Result<Substitution, FieldError> {
        let pattern = Some(matcher::RegexMatcher { regex: pattern.into(), ..Default::default() });
        Substitution::compile(&matcher::RegexMatchAndSubstitute { pattern, substitution: substitution.into() }, "r")
    }

    #[test]
    fn every_match_is_replaced_with_its_groups() {
        let s = substitution("/(v)([0-9])", r"/$2-\2\1\\").unwrap();
        assert_eq!(s.apply(b"/v1/x/v2"), br"/$2-1v\/x/$2-2v\");
    }

    #[test]
    fn a_group_the_pattern_lacks_is_refused() {
        let error = substitution("a(b)", r"\2").unwrap_err();
        assert_eq!(error.path, "r.substitution");
        assert!(error.problem.contains("group 2"));
        assert!(substitution("a", r"\x").is_err());
    }

    #[test]
    fn a_prefix_rewrite_replaces_what_matched() {
        let rewrite = |matched| PathRewrite::Prefix { matched, replacement: b"/new".to_vec() };
        assert_eq!(rewrite(Some(4)).apply(b"/old/x"), b"/new/x");
        assert_eq!(rewrite(None).apply(b"/old/x"), b"/new");
    }
}
