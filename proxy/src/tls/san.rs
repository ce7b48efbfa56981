//! Envoy's subject alternative name matchers (`match_typed_subject_alt_names`).

use std::net::IpAddr;

use weft_rules::string::StringMatcher;
use weft_xds::FieldError;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::SubjectAltNameMatcher;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use weft_xds::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::peer::PeerIdentity;

/// One compiled matcher; a peer needs to satisfy any one of a list.
#[derive(Debug, Clone)]
pub struct SanMatcher {
    kind: SanType,
    matcher: StringMatcher,
    /// The pattern, where it is exact and of a DNS name: a certificate's `*.example.com` matches it too.
    exact_dns: Option<String>,
}

impl SanMatcher {
    /// Compiles a matcher.
    ///
    /// # Errors
    /// If the kind of name is not DNS, URI, e-mail or IP address, or the pattern does not compile.
    pub fn from_proto(message: &SubjectAltNameMatcher, path: &str) -> Result<Self, FieldError> {
        let kind = match SanType::try_from(message.san_type) {
            Ok(kind @ (SanType::Dns | SanType::Uri | SanType::Email | SanType::IpAddress)) => kind,
            _ => {
                return Err(FieldError::invalid(
                    format!("{path}.san_type"),
                    message.san_type,
                    "is no supported kind of name",
                    "use DNS, URI, EMAIL or IP_ADDRESS",
                ));
            }
        };
        let path = format!("{path}.matcher");
        let matcher = message
            .matcher
            .as_ref()
            .ok_or_else(|| FieldError::missing(&path, "set exact, prefix, suffix, contains or safe_regex"))?;
        let exact_dns = match &matcher.match_pattern {
            Some(MatchPattern::Exact(name)) if kind == SanType::Dns => Some(name.clone()),
            _ => None,
        };
        Ok(Self { kind, matcher: StringMatcher::compile(matcher, &path)?, exact_dns })
    }

    /// Whether one of the peer's names of this kind matches.
    pub fn matches(&self, peer: &PeerIdentity) -> bool {
        let matches = |name: &String| self.matcher.matches(name.as_bytes());
        match self.kind {
            SanType::Dns => peer.dns_names.iter().any(|name| match &self.exact_dns {
                Some(wanted) => dns_matches(name, wanted),
                None => matches(name),
            }),
            SanType::Uri => peer.uris.iter().any(matches),
            SanType::Email => peer.emails.iter().any(matches),
            SanType::IpAddress => peer.addresses.iter().map(IpAddr::to_string).any(|ip| matches(&ip)),
            _ => false,
        }
    }
}

/// A certificate's name against a wanted one: case does not count, and a leading `*` stands for one label (RFC 9525 §6.3).
fn dns_matches(presented: &str, wanted: &str) -> bool {
    if presented.eq_ignore_ascii_case(wanted) {
        return true;
    }
    match (presented.strip_prefix("*."), wanted.split_once('.')) {
        (Some(parent), Some((label, wanted))) => {
            !label.is_empty() && parent.contains('.') && parent.eq_ignore_ascii_case(wanted)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_xds::envoy::r#type::matcher::v3::StringMatcher as Message;

    fn matcher(kind: SanType, pattern: MatchPattern) -> SanMatcher {
        let message = SubjectAltNameMatcher {
            san_type: kind.into(),
            matcher: Some(Message { match_pattern: Some(pattern), ..Default::default() }),
            ..Default::default()
        };
        SanMatcher::from_proto(&message, "m").unwrap()
    }

    #[test]
    fn a_name_counts_only_for_its_kind() {
        let peer = PeerIdentity {
            dns_names: vec!["a.example".into()],
            addresses: vec!["198.18.0.1".parse().unwrap()],
            ..PeerIdentity::default()
        };
        let exact = |text: &str| MatchPattern::Exact(text.into());
        assert!(matcher(SanType::Dns, exact("A.example")).matches(&peer));
        assert!(!matcher(SanType::Uri, exact("a.example")).matches(&peer));
        assert!(matcher(SanType::IpAddress, exact("198.18.0.1")).matches(&peer));
        assert!(matcher(SanType::Dns, MatchPattern::Suffix(".example".into())).matches(&peer));
    }

    #[test]
    fn a_wildcard_stands_for_exactly_one_label() {
        assert!(dns_matches("*.example.com", "www.example.com"));
        assert!(!dns_matches("*.example.com", "a.b.example.com"));
        assert!(!dns_matches("*.example.com", "example.com"));
        assert!(!dns_matches("*.com", "example.com"));
    }

    #[test]
    fn an_unsupported_kind_is_refused_with_its_path() {
        let error = SanMatcher::from_proto(&SubjectAltNameMatcher::default(), "a[0]").unwrap_err();
        assert_eq!(error.path, "a[0].san_type");
    }
}
