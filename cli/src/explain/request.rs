//! The request that is asked about.

use std::borrow::Cow;
use std::str::FromStr;

use weft_rules::RequestView;

/// `http://reviews.shop:80/ratings?x=1`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Name or address.
    pub(super) host: String,
    pub(super) port: u16,
    /// With the port if it was written, as clients send it.
    authority: String,
    path: String,
    query: Option<String>,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "is no URL that a sidecar sees into; write http://SERVICE.NAMESPACE[:PORT]/PATH".to_owned();
        let rest = match text.split_once("://") {
            Some(("http" | "grpc", rest)) => rest,
            // The application's own TLS is bytes to its sidecar.
            Some(_) => return Err(wrong()),
            None => text,
        };
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || authority.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { host: host.to_owned(), port, authority: authority.to_owned(), path: path.to_owned(), query })
    }
}

/// `x-user: ann`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// In lower case.
    name: String,
    value: String,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("is no header; write 'NAME: VALUE'")?;
        Ok(Self { name: name.trim().to_ascii_lowercase(), value: value.trim().to_owned() })
    }
}

/// A request as the rules see it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    method: String,
    url: Url,
    headers: Vec<Header>,
}

impl Asked {
    pub(super) fn new(method: &str, url: &Url, headers: &[Header]) -> Self {
        let (mut url, mut headers) = (url.clone(), headers.to_vec());
        // The Host header decides nothing in a mesh, but a backend sees it.
        if let Some(at) = headers.iter().position(|header| header.name == "host") {
            url.authority = headers.remove(at).value;
        }
        Self { method: method.to_ascii_uppercase(), url, headers }
    }

    /// `GET /ratings`.
    pub(super) fn line(&self) -> String {
        let query = self.url.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{} {}{query}", self.method, self.url.path)
    }
}

impl RequestView for Asked {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }

    fn path(&self) -> &[u8] {
        self.url.path.as_bytes()
    }

    fn query(&self) -> Option<&[u8]> {
        self.url.query.as_deref().map(str::as_bytes)
    }

    fn authority(&self) -> &[u8] {
        self.url.authority.as_bytes()
    }

    fn scheme(&self) -> &[u8] {
        b"http"
    }

    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.headers.iter().filter(|header| header.name == name).map(|header| header.value.as_bytes());
        let first = values.next()?;
        let rest: Vec<_> = values.collect();
        if rest.is_empty() {
            return Some(first.into());
        }
        Some([&[first], &rest[..]].concat().join(&b',').into())
    }
}
