//! What a rule may see of a request.

use std::borrow::Cow;

/// A request's head as the rules read it. Implemented by the proxy over its own head type and by tests over plain strings.
///
/// Bytes are as they were on the wire: nothing is decoded or normalized, so a rule decides on what the application will get.
pub trait RequestView {
    /// The method, for example `GET`.
    fn method(&self) -> &[u8];
    /// The path without `?` and query; empty for a CONNECT without a path.
    fn path(&self) -> &[u8];
    /// What follows the first `?`, if there is one.
    fn query(&self) -> Option<&[u8]>;
    /// `Host` or `:authority`, empty when absent.
    fn authority(&self) -> &[u8];
    /// `http` or `https`.
    fn scheme(&self) -> &[u8];
    /// The value of a header by its lower-case name; repeated fields joined by a comma in their order, as Envoy does.
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// A header or pseudo-header (`:method`, `:path` with query, `:authority`, `:scheme`) of a request. `host` is `:authority`.
pub fn field<'a, V: RequestView + ?Sized>(view: &'a V, name: &str) -> Option<Cow<'a, [u8]>> {
    match name {
        ":method" => Some(view.method().into()),
        ":path" => Some(path_and_query(view)),
        ":authority" | "host" => Some(view.authority().into()).filter(|host: &Cow<'_, [u8]>| !host.is_empty()),
        ":scheme" => Some(view.scheme().into()),
        _ => view.header(name),
    }
}

/// The path with its query, as `:path` carries it.
pub fn path_and_query<V: RequestView + ?Sized>(view: &V) -> Cow<'_, [u8]> {
    match view.query() {
        None => view.path().into(),
        Some(query) => [view.path(), b"?", query].concat().into(),
    }
}

/// The view of a connection that carries no HTTP: matchers of headers and paths find nothing in it, as in Envoy's network filter.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRequest;

impl RequestView for NoRequest {
    fn method(&self) -> &[u8] {
        b""
    }
    fn path(&self) -> &[u8] {
        b""
    }
    fn query(&self) -> Option<&[u8]> {
        None
    }
    fn authority(&self) -> &[u8] {
        b""
    }
    fn scheme(&self) -> &[u8] {
        b""
    }
    fn header(&self, _: &str) -> Option<Cow<'_, [u8]>> {
        None
    }
}
