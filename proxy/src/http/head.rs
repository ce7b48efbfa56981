//! The heads of requests and responses, and how a body is delimited.

use std::fmt;
use std::ops::Range;

use super::Fields;

/// The protocol version a message was received with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 (and what claims a lower minor version).
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

/// How a body is delimited on an HTTP/1.1 connection (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// Exactly so many bytes. `Length(0)` is an empty body that was announced as such.
    Length(u64),
    /// Chunks until one of size zero, then trailers.
    Chunked,
    /// All bytes until the connection ends; only responses.
    UntilClose,
}

impl Framing {
    /// Whether no byte of a body will follow.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// A request's method, target and fields.
///
/// The target is kept as received. What its form means (RFC 9112 §3.2) is found once, when it is set:
/// [`path_and_query`](Self::path_and_query) and [`authority`](Self::authority) cost nothing.
#[derive(Default, PartialEq, Eq)]
pub struct RequestHead {
    method: Vec<u8>,
    target: Vec<u8>,
    form: Form,
    /// `:authority`, or what replaced the received authority. Empty: the target's or the Host field's.
    authority: Vec<u8>,
    /// `:scheme`. Empty: the target's, or `http`.
    scheme: Vec<u8>,
    /// The version it was received with.
    pub version: Version,
    /// The fields, Host among them on HTTP/1.1.
    pub fields: Fields,
}

/// The forms of a request target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    /// `/path?query`, and `*`.
    #[default]
    Origin,
    /// `scheme://authority/path?query`: where the scheme and the authority end.
    Absolute { scheme: usize, authority: usize },
    /// `host:port`, of CONNECT.
    Authority,
}

impl RequestHead {
    /// An empty head, no allocation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the request and keeps the memory.
    pub fn clear(&mut self) {
        self.method.clear();
        self.target.clear();
        self.form = Form::Origin;
        self.authority.clear();
        self.scheme.clear();
        self.version = Version::Http11;
        self.fields.clear();
    }

    /// The method, as received: methods are case-sensitive.
    pub fn method(&self) -> &[u8] {
        &self.method
    }

    /// The target as on the wire: `/path?query`, `http://host/path`, `host:port` or `*`.
    pub fn target(&self) -> &[u8] {
        &self.target
    }

    /// Path and query, byte for byte: of an absolute-form target what follows the authority (`/` if nothing
    /// does), `*` of `OPTIONS *`, empty for CONNECT.
    pub fn path_and_query(&self) -> &[u8] {
        match self.form {
            Form::Origin => &self.target,
            Form::Absolute { authority, .. } if authority == self.target.len() => b"/",
            Form::Absolute { authority, .. } => &self.target[authority..],
            Form::Authority => b"",
        }
    }

    /// The path without its query.
    pub fn path(&self) -> &[u8] {
        let whole = self.path_and_query();
        match memchr::memchr(b'?', whole) {
            Some(at) => &whole[..at],
            None => whole,
        }
    }

    /// What follows the first `?` of the target, if there is one.
    pub fn query(&self) -> Option<&[u8]> {
        let whole = self.path_and_query();
        memchr::memchr(b'?', whole).map(|at| &whole[at + 1..])
    }

    /// Whom the request is for: `:authority`, or else the target's authority, or else the Host field's
    /// value; empty if there is none of them.
    pub fn authority(&self) -> &[u8] {
        if !self.authority.is_empty() {
            return &self.authority;
        }
        match self.form {
            Form::Absolute { .. } | Form::Authority => &self.target[self.target_authority()],
            Form::Origin => self.fields.get("host").unwrap_or_default(),
        }
    }

    /// The scheme: `:scheme` or what [`set_scheme`](Self::set_scheme) was given, or else an absolute-form target's, or
    /// else `http`.
    pub fn scheme(&self) -> &[u8] {
        match self.form {
            _ if !self.scheme.is_empty() => &self.scheme,
            Form::Absolute { scheme, .. } => &self.target[..scheme],
            Form::Origin | Form::Authority => b"http",
        }
    }

    /// Whether this is CONNECT, whose target is an authority and whose success turns the connection
    /// into a tunnel.
    pub fn is_connect(&self) -> bool {
        self.method == b"CONNECT"
    }

    /// Whether this is HEAD, whose response has no body.
    pub fn is_head(&self) -> bool {
        self.method == b"HEAD"
    }

    /// Whether the target is in absolute-form.
    pub fn is_absolute_form(&self) -> bool {
        matches!(self.form, Form::Absolute { .. })
    }

    /// Sets the method. A CONNECT's method is set before its target.
    pub fn set_method(&mut self, method: &[u8]) {
        replace(&mut self.method, method);
    }

    /// Sets the target in any of its forms. The method decides whether it is in authority-form. A missing path
    /// before a query is filled in: `http://host?q` becomes `http://host/?q` (RFC 9110 §4.2.3 calls them equal).
    pub fn set_target(&mut self, target: &[u8]) {
        replace(&mut self.target, target);
        self.form = if self.is_connect() { Form::Authority } else { absolute_form(target).unwrap_or_default() };
        if let Form::Absolute { authority, .. } = self.form
            && target.get(authority).is_some_and(|b| *b != b'/')
        {
            self.target.insert(authority, b'/');
        }
    }

    /// Replaces path and query, leaving an absolute-form target's scheme and authority. Does nothing to a CONNECT.
    pub fn set_path_and_query(&mut self, path_and_query: &[u8]) {
        match self.form {
            Form::Origin => replace(&mut self.target, path_and_query),
            Form::Absolute { authority, .. } => {
                self.target.truncate(authority);
                self.target.extend_from_slice(path_and_query);
            }
            Form::Authority => {}
        }
    }

    /// Replaces the authority wherever the request has one: the target's, the Host field's and what
    /// [`authority`](Self::authority) returns. No Host field is added; the encoder writes one where the protocol needs it.
    pub fn set_authority(&mut self, authority: &[u8]) {
        match self.form {
            Form::Absolute { scheme, .. } => {
                let old = self.target_authority();
                self.target.splice(old, authority.iter().copied());
                let start = scheme + SCHEME_END.len();
                self.form = Form::Absolute { scheme, authority: start + authority.len() };
            }
            Form::Authority => replace(&mut self.target, authority),
            Form::Origin => {}
        }
        replace(&mut self.authority, authority);
        if self.fields.contains("host") {
            self.fields.insert(b"Host", authority);
        }
    }

    /// Sets the scheme, without touching the target.
    pub fn set_scheme(&mut self, scheme: &[u8]) {
        replace(&mut self.scheme, scheme);
    }

    /// Turns an absolute-form target into the origin-form that an origin server is sent (RFC 9112 §3.2.1),
    /// or into `*` for OPTIONS without a path (§3.2.4). Scheme and authority are kept beside it.
    pub fn make_origin_form(&mut self) {
        let Form::Absolute { scheme, authority } = self.form else {
            return;
        };
        if self.scheme.is_empty() {
            self.scheme.extend_from_slice(&self.target[..scheme]);
        }
        if self.authority.is_empty() {
            let range = self.target_authority();
            self.authority.extend_from_slice(&self.target[range]);
        }
        self.target.drain(..authority);
        if self.target.is_empty() {
            let path = if self.method == b"OPTIONS" { b'*' } else { b'/' };
            self.target.push(path);
        }
        self.form = Form::Origin;
    }

    /// Replaces the Host field of an absolute-form request by the target's authority.
    pub(crate) fn align_host_with_target(&mut self) {
        let authority = self.target_authority();
        self.fields.insert(b"Host", &self.target[authority]);
    }

    fn target_authority(&self) -> Range<usize> {
        match self.form {
            Form::Absolute { scheme, authority } => scheme + SCHEME_END.len()..authority,
            Form::Authority => 0..self.target.len(),
            Form::Origin => 0..0,
        }
    }
}

const SCHEME_END: &[u8] = b"://";

/// Where scheme and authority end, if `target` is in absolute-form with an authority (RFC 3986 §3.1).
fn absolute_form(target: &[u8]) -> Option<Form> {
    if !target.first()?.is_ascii_alphabetic() {
        return None;
    }
    let scheme = target.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))?;
    let rest = target[scheme..].strip_prefix(SCHEME_END)?;
    let authority = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    Some(Form::Absolute { scheme, authority: scheme + SCHEME_END.len() + authority })
}

impl Clone for RequestHead {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.clone_from(self);
        copy
    }

    /// Copies into memory already held: a copy for replay allocates nothing in steady state.
    fn clone_from(&mut self, source: &Self) {
        self.method.clone_from(&source.method);
        self.target.clone_from(&source.target);
        self.form = source.form;
        self.authority.clone_from(&source.authority);
        self.scheme.clone_from(&source.scheme);
        self.version = source.version;
        self.fields.clone_from(&source.fields);
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method.escape_ascii().to_string())
            .field("target", &self.target.escape_ascii().to_string())
            .field("authority", &self.authority().escape_ascii().to_string())
            .field("version", &self.version)
            .field("fields", &self.fields)
            .finish()
    }
}

/// A response's status and fields.
#[derive(Default, PartialEq, Eq)]
pub struct ResponseHead {
    status: u16,
    reason: Vec<u8>,
    /// The version it was received with.
    pub version: Version,
    /// The fields.
    pub fields: Fields,
}

impl ResponseHead {
    /// An empty head (status 0), no allocation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the response and keeps the memory.
    pub fn clear(&mut self) {
        self.status = 0;
        self.reason.clear();
        self.version = Version::Http11;
        self.fields.clear();
    }

    /// The status code: three digits.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase as received; often empty.
    pub fn reason(&self) -> &[u8] {
        &self.reason
    }

    /// Whether a final response follows this one. 101 is final: it ends HTTP on the connection.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Sets the status and leaves the reason.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
    }

    /// Sets the reason phrase. Control characters become spaces.
    pub fn set_reason(&mut self, reason: &[u8]) {
        replace(&mut self.reason, reason);
        for byte in &mut self.reason {
            if !super::syntax::is_field_value(&[*byte]) {
                *byte = b' ';
            }
        }
    }
}

impl Clone for ResponseHead {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.clone_from(self);
        copy
    }

    fn clone_from(&mut self, source: &Self) {
        self.status = source.status;
        self.reason.clone_from(&source.reason);
        self.version = source.version;
        self.fields.clone_from(&source.fields);
    }
}

impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("reason", &self.reason.escape_ascii().to_string())
            .field("version", &self.version)
            .field("fields", &self.fields)
            .finish()
    }
}

fn replace(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_method(method.as_bytes());
        head.set_target(target.as_bytes());
        head.fields.append(b"Host", b"from-host");
        head
    }

    /// Method and target, then what scheme, authority, path and query are made of it.
    #[test]
    fn target_forms_are_told_apart() {
        let table = [
            ("GET /a/b?c=d", "http from-host /a/b c=d"),
            ("GET /", "http from-host / -"),
            ("GET /?", "http from-host / "),
            ("GET //double//slash/%2F..", "http from-host //double//slash/%2F.. -"),
            ("GET /a?b?c#d", "http from-host /a b?c#d"),
            ("GET /http://other/x", "http from-host /http://other/x -"),
            ("GET http://other:80/x?y", "http other:80 /x y"),
            ("GET HTTPS://other", "HTTPS other / -"),
            ("GET http://other?q", "http other / q"),
            ("GET http://[::1]:8/x", "http [::1]:8 /x -"),
            ("OPTIONS *", "http from-host * -"),
            ("CONNECT other:443", "http other:443  -"),
        ];
        for (line, expected) in table {
            let (method, target) = line.split_once(' ').unwrap();
            let head = request(method, target);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let found = format!(
                "{} {} {} {}",
                text(head.scheme()),
                text(head.authority()),
                text(head.path()),
                head.query().map_or("-".to_owned(), text),
            );
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn mutators_respect_the_form() {
        let mut head = request("GET", "http://other:80/x?y");
        head.set_authority(b"third");
        assert_eq!(head.target(), b"http://third/x?y");
        assert_eq!(head.fields.get("host"), Some(&b"third"[..]));
        head.set_path_and_query(b"/z");
        assert_eq!(head.target(), b"http://third/z");
        head.make_origin_form();
        assert_eq!(head.target(), b"/z");
        assert_eq!(head.authority(), b"third");
        head.set_path_and_query(b"/w");
        assert_eq!(head.target(), b"/w");
    }

    #[test]
    fn options_of_a_whole_server_becomes_an_asterisk() {
        let mut head = request("OPTIONS", "http://other:80");
        head.make_origin_form();
        assert_eq!(head.target(), b"*");
        let mut head = request("GET", "http://other:80");
        head.make_origin_form();
        assert_eq!(head.target(), b"/");
    }

    #[test]
    fn a_cleared_head_remembers_nothing() {
        let mut head = request("GET", "https://other/x");
        head.set_authority(b"third");
        head.set_scheme(b"https");
        head.clear();
        assert_eq!(head, RequestHead::new());
    }
}
