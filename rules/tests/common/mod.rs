//! Requests and configurations as text.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part

use std::borrow::Cow;

use weft_rules::{Forward, RequestView, Route, RouteTable, route::Action};
use weft_xds::envoy::config::route::v3::RouteConfiguration;

/// A request written as `GET http://host/path?query` and `name: value` lines.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) scheme: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
}

pub(crate) fn request(text: &str) -> Request {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let (method, url) = lines.next().unwrap().split_once(' ').unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let slash = rest.find('/').unwrap_or(rest.len());
    let (path, query) = match rest[slash..].split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (&rest[slash..], None),
    };
    Request {
        method: method.into(),
        scheme: scheme.into(),
        authority: rest[..slash].into(),
        path: path.into(),
        query,
        headers: lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.into(), v.into())).collect(),
    }
}

impl RequestView for Request {
    fn method(&self) -> &[u8] {
        self.method.as_bytes()
    }
    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }
    fn query(&self) -> Option<&[u8]> {
        self.query.as_deref().map(str::as_bytes)
    }
    fn authority(&self) -> &[u8] {
        self.authority.as_bytes()
    }
    fn scheme(&self) -> &[u8] {
        self.scheme.as_bytes()
    }
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let values: Vec<&str> =
            self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.join(",").into_bytes().into())
    }
}

/// A route configuration in YAML.
pub(crate) fn config(yaml: &str) -> RouteConfiguration {
    weft_xds::yaml::from_str(yaml).unwrap()
}

pub(crate) fn table(yaml: &str) -> RouteTable {
    RouteTable::compile(&config(yaml), "").unwrap()
}

/// The error of a configuration that is refused, as `path: problem`.
pub(crate) fn refusal(yaml: &str) -> String {
    RouteTable::compile(&config(yaml), "").unwrap_err().to_string()
}

/// One virtual host for every domain, with the routes given as a YAML list.
pub(crate) fn table_of_routes(routes: &str) -> RouteTable {
    table(&format!("{{virtual_hosts: [{{name: v, domains: ['*'], routes: {routes}}}]}}"))
}

/// The name of the route a request gets, or `-`.
pub(crate) fn route_of(table: &RouteTable, text: &str) -> String {
    table.find(&request(text), 0).map_or("-".into(), |route| route.name.clone())
}

/// The first route's forward action.
pub(crate) fn forward(table: &RouteTable) -> Forward {
    match &table.routes().next().unwrap().action {
        Action::Forward(forward) => *forward.clone(),
        other => panic!("not a forward: {other:?}"),
    }
}

pub(crate) fn first(table: &RouteTable) -> &Route {
    table.routes().next().unwrap()
}
