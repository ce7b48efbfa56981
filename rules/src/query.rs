//! Matching query parameters (`envoy.config.route.v3.QueryParameterMatcher`).

use weft_xds::FieldError;

use crate::proto::{refuse, route};
use crate::string::StringMatcher;

/// A compiled `QueryParameterMatcher`. Names and values are compared as sent, percent-encoding included, as in Envoy; of a repeated
/// parameter the first counts.
#[derive(Debug, Clone)]
pub struct QueryMatcher {
    name: Vec<u8>,
    condition: Condition,
}

#[derive(Debug, Clone)]
enum Condition {
    Text(StringMatcher),
    Present(bool),
}

impl QueryMatcher {
    /// Compiles the message; without a specifier, presence alone is matched.
    pub fn compile(message: &route::QueryParameterMatcher, path: &str) -> Result<Self, FieldError> {
        use route::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;
        if message.name.is_empty() {
            return Err(refuse(&format!("{path}.name"), "empty; name a query parameter"));
        }
        let condition = match message.query_parameter_match_specifier.as_ref() {
            None => Condition::Present(true),
            Some(Specifier::PresentMatch(present)) => Condition::Present(*present),
            Some(Specifier::StringMatch(text)) => {
                Condition::Text(StringMatcher::compile(text, &format!("{path}.string_match"))?)
            }
        };
        Ok(Self { name: message.name.as_bytes().to_vec(), condition })
    }

    /// Whether the query (without its `?`) satisfies the matcher.
    pub fn matches(&self, query: Option<&[u8]>) -> bool {
        let value = query.and_then(|query| parameter(query, &self.name));
        match &self.condition {
            Condition::Text(matcher) => value.is_some_and(|value| matcher.matches(value)),
            Condition::Present(present) => value.is_some() == *present,
        }
    }
}

/// The first value of a parameter; empty where it has no `=`.
pub(crate) fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|&byte| byte == b'&').find_map(|pair| {
        let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        (&pair[..end] == name).then(|| pair.get(end + 1..).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::parameter;

    #[test]
    fn the_first_of_a_repeated_parameter_counts_and_nothing_is_decoded() {
        let query = b"a=1&a=2&flag&b=x=y&%61=3&=z";
        assert_eq!(parameter(query, b"a"), Some(&b"1"[..]));
        assert_eq!(parameter(query, b"flag"), Some(&b""[..]));
        assert_eq!(parameter(query, b"b"), Some(&b"x=y"[..]));
        assert_eq!(parameter(query, b"%61"), Some(&b"3"[..]));
        assert_eq!(parameter(query, b"c"), None);
        assert_eq!(parameter(b"", b"a"), None);
    }
}
