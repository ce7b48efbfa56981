//! Requests.

use h2::ext::Protocol;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri};

use super::{ConvertError, copy_to_h2, printable};
use crate::http::{RequestHead, Version, syntax};

/// Fills `head`, cleared first, from an HTTP/2 request.
///
/// # Errors
/// The request is malformed in a way that the h2 crate lets pass; the answer is 400.
pub fn request_from_h2(parts: &http::request::Parts, head: &mut RequestHead) -> Result<(), ConvertError> {
    head.clear();
    head.version = Version::Http2;
    let protocol = parts.extensions.get::<Protocol>();
    let method = parts.method.as_str();
    if protocol.is_some() {
        head.set_method(b"GET");
    } else {
        head.set_method(method.as_bytes());
    }
    copy_fields(parts, head);
    let authority = authority(parts)?;
    if head.is_connect() {
        if !matches!(syntax::split_host_and_port(authority), Some((_, Some(port))) if !port.is_empty()) {
            return Err(ConvertError::Authority(printable(authority)));
        }
        head.set_target(authority);
        return Ok(());
    }
    let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let whole_server = path == "*" && parts.method == Method::OPTIONS;
    if !path.starts_with('/') && !whole_server {
        return Err(ConvertError::Path(path.to_owned()));
    }
    head.set_target(path.as_bytes());
    head.set_authority(authority);
    if let Some(scheme) = parts.uri.scheme_str() {
        head.set_scheme(scheme.as_bytes());
    }
    if let Some(protocol) = protocol {
        head.fields.append(b"Connection", b"Upgrade");
        head.fields.append(b"Upgrade", protocol.as_ref());
    }
    Ok(())
}

/// All fields but Host, cookies joined.
fn copy_fields(parts: &http::request::Parts, head: &mut RequestHead) {
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        if name == http::header::COOKIE {
            if !cookies.is_empty() {
                cookies.extend_from_slice(b"; ");
            }
            cookies.extend_from_slice(value.as_bytes());
        } else if name != http::header::HOST {
            head.fields.append(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    if !cookies.is_empty() {
        head.fields.append(b"cookie", &cookies);
    }
}

/// `:authority`, or Host where it is missing (RFC 9113 §8.3.1).
fn authority(parts: &http::request::Parts) -> Result<&[u8], ConvertError> {
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let host = hosts.next().map(|value| value.as_bytes());
    let authority = parts.uri.authority().map(|a| a.as_str().as_bytes());
    let mismatch = |host: &[u8], authority: &[u8]| ConvertError::AuthorityMismatch {
        host: printable(host),
        authority: printable(authority),
    };
    let found = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(mismatch(host, authority));
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        (None, None) => return Err(ConvertError::MissingAuthority),
    };
    if let Some(second) = hosts.next() {
        return Err(mismatch(second.as_bytes(), found));
    }
    if found.is_empty() {
        return Err(ConvertError::MissingAuthority);
    }
    if !syntax::is_host_and_port(found) {
        return Err(ConvertError::Authority(printable(found)));
    }
    Ok(found)
}

/// An HTTP/2 request from `head`, without the fields that HTTP/2 has no place for. With `extended_connect`, which the peer must have
/// allowed (SETTINGS_ENABLE_CONNECT_PROTOCOL), a request for an upgrade becomes an extended CONNECT; without,
/// its Upgrade is dropped.
///
/// # Errors
/// The request cannot be said in HTTP/2; the answer is 400.
pub fn request_to_h2(head: &RequestHead, extended_connect: bool) -> Result<Request<()>, ConvertError> {
    let upgrade =
        head.fields.get("upgrade").filter(|_| extended_connect && head.fields.list_contains("connection", "upgrade"));
    let mut request = Request::new(());
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = uri(head)?;
    *request.method_mut() = if upgrade.is_some() {
        Method::CONNECT
    } else {
        Method::from_bytes(head.method()).map_err(|_| ConvertError::Field(printable(head.method())))?
    };
    if let Some(upgrade) = upgrade {
        request.extensions_mut().insert(protocol(upgrade)?);
    }
    // The key is HTTP/1.1's own (RFC 8441 §5).
    let skip = |name: &[u8]| {
        name.eq_ignore_ascii_case(b"host") || (upgrade.is_some() && name.eq_ignore_ascii_case(b"sec-websocket-key"))
    };
    copy_to_h2(&head.fields, request.headers_mut(), skip)?;
    Ok(request)
}

fn uri(head: &RequestHead) -> Result<Uri, ConvertError> {
    let mut parts = http::uri::Parts::default();
    let authority = head.authority();
    if authority.is_empty() {
        return Err(ConvertError::MissingAuthority);
    }
    let bad_authority = || ConvertError::Authority(printable(authority));
    if !syntax::is_host_and_port(authority) {
        return Err(bad_authority());
    }
    parts.authority = Some(Authority::try_from(authority).map_err(|_| bad_authority())?);
    if !head.is_connect() {
        let path = head.path_and_query();
        let bad_path = || ConvertError::Path(printable(path));
        // The `http` crate would cut it there.
        if memchr::memchr(b'#', path).is_some() {
            return Err(bad_path());
        }
        parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| bad_path())?);
        let scheme = head.scheme();
        parts.scheme = Some(Scheme::try_from(scheme).map_err(|_| ConvertError::Scheme(printable(scheme)))?);
    }
    Uri::from_parts(parts).map_err(|_| bad_authority())
}

fn protocol(upgrade: &[u8]) -> Result<Protocol, ConvertError> {
    let refused = || ConvertError::Protocol(printable(upgrade));
    // `websocket`, or a name with a version: `foo/2`.
    let mut words = upgrade.split(|b| *b == b'/');
    if !words.all(syntax::is_token) {
        return Err(refused());
    }
    std::str::from_utf8(upgrade).map(Protocol::from).map_err(|_| refused())
}
