//! Redirects (`envoy.config.route.v3.RedirectAction`).

use std::borrow::Cow;

use weft_xds::FieldError;

use crate::path::PathMatch;
use crate::proto::{refuse, route};
use crate::rewrite::PathRewrite;
use crate::view::RequestView;

/// A compiled redirect.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    scheme: Option<String>,
    host: Option<String>,
    port: Option<u32>,
    path: RedirectPath,
    strip_query: bool,
}

#[derive(Debug, Clone)]
enum RedirectPath {
    Keep,
    /// Replaces the path; where it holds a query, the request's query too.
    Replace(Vec<u8>),
    Rewrite(PathRewrite),
}

impl Redirect {
    pub(crate) fn compile(
        message: &route::RedirectAction,
        matched: &PathMatch,
        path: &str,
    ) -> Result<Self, FieldError> {
        use route::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
        let status = match RedirectResponseCode::try_from(message.response_code) {
            Ok(RedirectResponseCode::MovedPermanently) => 301,
            Ok(RedirectResponseCode::Found) => 302,
            Ok(RedirectResponseCode::SeeOther) => 303,
            Ok(RedirectResponseCode::TemporaryRedirect) => 307,
            Ok(RedirectResponseCode::PermanentRedirect) => 308,
            Err(_) => {
                return Err(refuse(
                    &format!("{path}.response_code"),
                    format!("unknown value {}", message.response_code),
                ));
            }
        };
        if message.port_redirect > 65_535 {
            return Err(refuse(&format!("{path}.port_redirect"), format!("{} is not a port", message.port_redirect)));
        }
        let rewrite = |prefix: &str, regex, full: &str| {
            PathRewrite::compile(prefix, regex, full, matched, path)
                .map(|rewrite| rewrite.map_or(RedirectPath::Keep, RedirectPath::Rewrite))
        };
        let redirect_path = match message.path_rewrite_specifier.as_ref() {
            None => RedirectPath::Keep,
            Some(PathRewriteSpecifier::PathRedirect(text)) if text.is_empty() => RedirectPath::Keep,
            Some(PathRewriteSpecifier::PathRedirect(text)) => RedirectPath::Replace(text.as_bytes().to_vec()),
            Some(PathRewriteSpecifier::PrefixRewrite(text)) => rewrite(text, None, "")?,
            Some(PathRewriteSpecifier::RegexRewrite(regex)) => rewrite("", Some(regex), "")?,
            Some(PathRewriteSpecifier::PathRewrite(text)) => rewrite("", None, text)?,
        };
        Ok(Self {
            status,
            scheme: match message.scheme_rewrite_specifier.as_ref() {
                Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
                Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if !scheme.is_empty() => Some(scheme.clone()),
                _ => None,
            },
            host: Some(message.host_redirect.clone()).filter(|host| !host.is_empty()),
            port: Some(message.port_redirect).filter(|&port| port != 0),
            path: redirect_path,
            strip_query: message.strip_query,
        })
    }

    /// The `Location` to answer with.
    pub fn location<V: RequestView + ?Sized>(&self, view: &V) -> Vec<u8> {
        let scheme = self.scheme.as_ref().map_or(view.scheme(), |scheme| scheme.as_bytes());
        let mut out = [scheme, b"://"].concat();
        match &self.host {
            Some(host) => out.extend_from_slice(host.as_bytes()),
            None => out.extend_from_slice(self.kept_host(view, scheme)),
        }
        if let Some(port) = self.port {
            out.extend_from_slice(format!(":{port}").as_bytes());
        }
        let query = view.query().filter(|_| !self.strip_query);
        let (path, query) = match &self.path {
            RedirectPath::Keep => (Cow::Borrowed(view.path()), query),
            RedirectPath::Replace(path) if path.contains(&b'?') => (path.into(), None),
            RedirectPath::Replace(path) => (path.into(), query),
            RedirectPath::Rewrite(rewrite) => (rewrite.apply(view.path()).into(), query),
        };
        out.extend_from_slice(&path);
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        out
    }

    /// The request's host, without its port where the redirect brings its own port, or a scheme for which it was the other's default.
    fn kept_host<'a, V: RequestView + ?Sized>(&self, view: &'a V, scheme: &[u8]) -> &'a [u8] {
        let authority = view.authority();
        let (host, port) = split_port(authority);
        let other_default = scheme != view.scheme()
            && matches!((view.scheme(), port), (b"http", Some(b"80")) | (b"https", Some(b"443")));
        if self.port.is_some() || other_default { host } else { authority }
    }
}

/// `host:port`, `[v6]:port`, `host` or `[v6]` in its two parts.
pub(crate) fn split_port(authority: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memrchr(b':', authority) {
        // A colon inside brackets belongs to an IPv6 address.
        Some(colon) if !authority[colon..].contains(&b']') => (&authority[..colon], Some(&authority[colon + 1..])),
        _ => (authority, None),
    }
}
