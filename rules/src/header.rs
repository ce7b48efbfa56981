//! Matching one header (`envoy.config.route.v3.HeaderMatcher`).

use std::borrow::Cow;
use std::ops::Range;

use weft_xds::FieldError;

use crate::proto::{refuse, route};
use crate::string::{StringMatcher, full_match};
use crate::view::{RequestView, field};

/// A compiled `HeaderMatcher`.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    name: String,
    condition: Condition,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Debug, Clone)]
enum Condition {
    Text(StringMatcher),
    /// Base-10 integers in a half-open range.
    Range(Range<i64>),
    Present(bool),
}

impl HeaderMatcher {
    /// Compiles the message, the deprecated specifiers included.
    pub fn compile(message: &route::HeaderMatcher, path: &str) -> Result<Self, FieldError> {
        use route::header_matcher::HeaderMatchSpecifier as Specifier;
        if message.name.is_empty() {
            return Err(refuse(&format!("{path}.name"), "empty; name a header"));
        }
        let sub = |field: &str| format!("{path}.{field}");
        #[allow(deprecated)]
        let condition = match message.header_match_specifier.as_ref() {
            // Envoy: without a specifier, presence alone is matched.
            None => Condition::Present(true),
            Some(Specifier::PresentMatch(present)) => Condition::Present(*present),
            Some(Specifier::RangeMatch(range)) => Condition::Range(range.start..range.end),
            Some(Specifier::StringMatch(text)) => Condition::Text(StringMatcher::compile(text, &sub("string_match"))?),
            Some(Specifier::ExactMatch(text)) => Condition::Text(StringMatcher::exact(text)),
            Some(Specifier::PrefixMatch(text)) => Condition::Text(StringMatcher::prefix(text)),
            Some(Specifier::SuffixMatch(text)) => Condition::Text(StringMatcher::suffix(text)),
            Some(Specifier::ContainsMatch(text)) => Condition::Text(StringMatcher::contains(text)),
            Some(Specifier::SafeRegexMatch(regex)) => {
                Condition::Text(StringMatcher::regex(full_match(regex, &sub("safe_regex_match"))?))
            }
        };
        Ok(Self {
            name: message.name.to_ascii_lowercase(),
            condition,
            invert: message.invert_match,
            missing_is_empty: message.treat_missing_header_as_empty,
        })
    }

    /// Whether the request satisfies the matcher.
    pub fn matches<V: RequestView + ?Sized>(&self, view: &V) -> bool {
        self.matches_value(field(view, &self.name))
    }

    /// Whether a header of this value (joined if repeated; `None` when absent) satisfies the matcher.
    ///
    /// An absent header satisfies no value matcher, inverted or not, unless missing headers are to be treated as empty.
    pub fn matches_value(&self, value: Option<Cow<'_, [u8]>>) -> bool {
        let value = match value {
            None if self.missing_is_empty => Some(Cow::Borrowed(&b""[..])),
            value => value,
        };
        match &self.condition {
            Condition::Present(present) => (value.is_some() == *present) != self.invert,
            Condition::Text(matcher) => value.is_some_and(|value| matcher.matches(&value) != self.invert),
            Condition::Range(range) => value.is_some_and(|value| in_range(&value, range) != self.invert),
        }
    }

    /// The header's lower-case name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Compiles a list of matchers, all of which have to match.
pub(crate) fn compile_all(messages: &[route::HeaderMatcher], path: &str) -> Result<Vec<HeaderMatcher>, FieldError> {
    messages.iter().enumerate().map(|(i, message)| HeaderMatcher::compile(message, &format!("{path}[{i}]"))).collect()
}

fn in_range(value: &[u8], range: &Range<i64>) -> bool {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .is_some_and(|number: i64| range.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::kind::Int64Range;
    use route::header_matcher::HeaderMatchSpecifier as Specifier;

    fn matches(specifier: Option<Specifier>, invert: bool, missing_is_empty: bool, value: Option<&str>) -> bool {
        let message = route::HeaderMatcher {
            name: "X-Test".into(),
            invert_match: invert,
            treat_missing_header_as_empty: missing_is_empty,
            header_match_specifier: specifier,
        };
        HeaderMatcher::compile(&message, "h").unwrap().matches_value(value.map(|value| value.as_bytes().into()))
    }

    #[test]
    fn a_missing_header_satisfies_no_value_matcher_even_inverted() {
        #[allow(deprecated)]
        let exact = || Some(Specifier::ExactMatch("a".into()));
        assert!(!matches(exact(), false, false, None));
        assert!(!matches(exact(), true, false, None));
        assert!(matches(exact(), true, false, Some("b")));
    }

    #[test]
    fn a_missing_header_can_be_treated_as_empty() {
        let range = || Some(Specifier::RangeMatch(Int64Range { start: 0, end: 10 }));
        assert!(!matches(range(), false, true, None));
        assert!(matches(range(), true, true, None));
    }

    #[test]
    fn presence_can_be_asked_for_denied_and_inverted() {
        assert!(matches(None, false, false, Some("")));
        assert!(!matches(None, false, false, None));
        assert!(matches(Some(Specifier::PresentMatch(false)), false, false, None));
        assert!(matches(Some(Specifier::PresentMatch(true)), true, false, None));
        assert!(!matches(Some(Specifier::PresentMatch(true)), true, false, Some("x")));
    }

    #[test]
    fn a_range_holds_its_start_but_not_its_end_and_only_whole_numbers() {
        let range = || Some(Specifier::RangeMatch(Int64Range { start: -10, end: 0 }));
        assert!(matches(range(), false, false, Some("-10")));
        assert!(!matches(range(), false, false, Some("0")));
        assert!(!matches(range(), false, false, Some("-1somestring")));
        assert!(!matches(range(), false, false, Some("-1.5")));
    }
}
