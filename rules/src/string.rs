//! Matching one string (`envoy.type.matcher.v3.StringMatcher`) and regular expressions.

use memchr::memmem;
use regex::bytes::{Regex, RegexBuilder};
use weft_xds::FieldError;

use crate::proto::{matcher, refuse};

/// A compiled `StringMatcher`.
#[derive(Debug, Clone)]
pub struct StringMatcher {
    pattern: Pattern,
    /// ASCII case is ignored; the pattern itself is then kept in lower case.
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Pattern {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Contains(Vec<u8>),
    Regex(Regex),
}

impl StringMatcher {
    /// Compiles the message; an unset pattern and `custom` are refused, as is `ignore_case` with a regular expression.
    pub fn compile(message: &matcher::StringMatcher, path: &str) -> Result<Self, FieldError> {
        use matcher::string_matcher::MatchPattern;
        let ignore_case = message.ignore_case;
        let bytes = |text: &str| {
            if ignore_case { text.to_ascii_lowercase().into_bytes() } else { text.as_bytes().to_vec() }
        };
        let pattern = match message.match_pattern.as_ref() {
            Some(MatchPattern::Exact(text)) => Pattern::Exact(bytes(text)),
            Some(MatchPattern::Prefix(text)) => Pattern::Prefix(bytes(text)),
            Some(MatchPattern::Suffix(text)) => Pattern::Suffix(bytes(text)),
            Some(MatchPattern::Contains(text)) => Pattern::Contains(bytes(text)),
            // Envoy: "ignore_case has no effect for the safe_regex match".
            Some(MatchPattern::SafeRegex(regex)) => {
                return Ok(Self::regex(full_match(regex, &format!("{path}.safe_regex"))?));
            }
            Some(MatchPattern::Custom(_)) => {
                return Err(refuse(
                    &format!("{path}.custom"),
                    "not supported; use exact, prefix, suffix, contains or safe_regex",
                ));
            }
            None => {
                return Err(refuse(path, "no pattern; set exact, prefix, suffix, contains or safe_regex"));
            }
        };
        Ok(Self { pattern, ignore_case })
    }

    /// A matcher of one exact string.
    pub fn exact(text: &str) -> Self {
        Self { pattern: Pattern::Exact(text.as_bytes().to_vec()), ignore_case: false }
    }

    pub(crate) fn prefix(text: &str) -> Self {
        Self { pattern: Pattern::Prefix(text.as_bytes().to_vec()), ignore_case: false }
    }

    pub(crate) fn suffix(text: &str) -> Self {
        Self { pattern: Pattern::Suffix(text.as_bytes().to_vec()), ignore_case: false }
    }

    pub(crate) fn contains(text: &str) -> Self {
        Self { pattern: Pattern::Contains(text.as_bytes().to_vec()), ignore_case: false }
    }

    pub(crate) fn regex(regex: Regex) -> Self {
        Self { pattern: Pattern::Regex(regex), ignore_case: false }
    }

    /// Whether the whole value satisfies the pattern.
    pub fn matches(&self, value: &[u8]) -> bool {
        match &self.pattern {
            Pattern::Regex(regex) => regex.is_match(value),
            Pattern::Exact(want) if self.ignore_case => value.eq_ignore_ascii_case(want),
            Pattern::Exact(want) => value == want.as_slice(),
            Pattern::Prefix(want) => value.get(..want.len()).is_some_and(|head| self.same(head, want)),
            Pattern::Suffix(want) => value.len() >= want.len() && self.same(&value[value.len() - want.len()..], want),
            Pattern::Contains(want) if self.ignore_case => {
                want.is_empty() || value.windows(want.len()).any(|window| window.eq_ignore_ascii_case(want))
            }
            Pattern::Contains(want) => memmem::find(value, want).is_some(),
        }
    }

    fn same(&self, value: &[u8], want: &[u8]) -> bool {
        if self.ignore_case { value.eq_ignore_ascii_case(want) } else { value == want }
    }
}

/// Compiled programs above this size are refused: a rule must not cost a proxy megabytes.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// A regular expression that has to match the whole value, as `safe_regex` always does.
pub(crate) fn full_match(message: &matcher::RegexMatcher, path: &str) -> Result<Regex, FieldError> {
    // Compiled alone first, so that a pattern like `a)|(b` cannot escape from the anchors around it.
    search(message, path)?;
    build(&format!(r"\A(?:{})\z", message.regex), path)
}

/// A regular expression that may match anywhere.
pub(crate) fn search(message: &matcher::RegexMatcher, path: &str) -> Result<Regex, FieldError> {
    if message.regex.is_empty() {
        return Err(refuse(&format!("{path}.regex"), "empty; give a regular expression"));
    }
    build(&message.regex, path)
}

/// RE2, which Envoy uses, knows `\d`, `\w`, `\s` and `\b` as ASCII classes: hence no Unicode mode, except where the pattern itself
/// needs it (`\p{Greek}`, a literal `é` in a class).
fn build(pattern: &str, path: &str) -> Result<Regex, FieldError> {
    let compile = |unicode| RegexBuilder::new(pattern).unicode(unicode).size_limit(REGEX_SIZE_LIMIT).build();
    compile(false).or_else(|_| compile(true)).map_err(|error| {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        refuse(&format!("{path}.regex"), format!("{pattern:?} does not compile: {reason}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use matcher::string_matcher::MatchPattern;

    fn compiled(pattern: MatchPattern, ignore_case: bool) -> Result<StringMatcher, FieldError> {
        StringMatcher::compile(&matcher::StringMatcher { ignore_case, match_pattern: Some(pattern) }, "m")
    }

    fn regex(pattern: &str) -> Result<StringMatcher, FieldError> {
        compiled(MatchPattern::SafeRegex(matcher::RegexMatcher { regex: pattern.into(), ..Default::default() }), false)
    }

    #[test]
    fn each_pattern_kind_matches_what_its_name_says() {
        for (pattern, hit, miss) in [
            (MatchPattern::Exact("abc".into()), "abc", "abcd"),
            (MatchPattern::Prefix("ab".into()), "abc", "cab"),
            (MatchPattern::Suffix("bc".into()), "abc", "bca"),
            (MatchPattern::Contains("b".into()), "abc", "ac"),
        ] {
            let m = compiled(pattern.clone(), false).unwrap();
            assert!(m.matches(hit.as_bytes()), "{pattern:?}");
            assert!(!m.matches(miss.as_bytes()), "{pattern:?}");
            assert!(!m.matches(hit.to_uppercase().as_bytes()), "{pattern:?} minds case");
            assert!(
                compiled(pattern.clone(), true).unwrap().matches(hit.to_uppercase().as_bytes()),
                "{pattern:?} ignores case"
            );
        }
    }

    #[test]
    fn a_regex_matches_the_whole_value_and_only_ascii_digits() {
        let m = regex(r"\d+|x").unwrap();
        assert!(m.matches(b"12") && m.matches(b"x"));
        assert!(!m.matches(b"12a") && !m.matches(b"ax") && !m.matches("٣".as_bytes()));
    }

    #[test]
    fn a_regex_cannot_leave_its_anchors() {
        let error = regex("a)|(b").unwrap_err();
        assert_eq!(error.path, "m.safe_regex.regex");
    }

    #[test]
    fn an_oversized_regex_is_refused() {
        assert!(regex(r"(\p{L}{100}){100}").is_err());
    }

    #[test]
    fn an_unset_pattern_is_refused_with_the_choices() {
        let error = StringMatcher::compile(&matcher::StringMatcher::default(), "m").unwrap_err();
        assert!(error.problem.contains("exact"), "{}", error.problem);
    }
}
