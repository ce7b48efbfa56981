//! Compiled routes in order of precedence.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::name::ObjectName;

/// The routes of one service port. Routes of the service's own namespace hold for all callers; those of another
/// namespace (a consumer's) hold for callers of that namespace, and go before the former (Gateway API, GAMMA).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortRoutes {
    /// For all callers, best first. Without any, every request goes to the service itself.
    pub producer: Option<Vec<Arc<Rule>>>,
    /// For the callers of one namespace, best first.
    pub consumers: BTreeMap<Arc<str>, Vec<Arc<Rule>>>,
}

impl PortRoutes {
    /// The rules for callers of a namespace; `None` where no route is attached.
    #[must_use]
    pub fn for_namespace(&self, namespace: Option<&str>) -> Option<&[Arc<Rule>]> {
        namespace.and_then(|n| self.consumers.get(n)).or(self.producer.as_ref()).map(Vec::as_slice)
    }
}

/// One match of one rule of a route, with what happens then.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `<namespace>/<route>/<rule's name or index>`, for telemetry.
    pub name: String,
    /// What a request has to be like.
    pub matches: RequestMatch,
    /// What happens to it.
    pub action: Action,
    /// Changes to the request's headers.
    pub request_headers: HeaderChanges,
    /// Changes to the response's headers.
    pub response_headers: HeaderChanges,
}

/// What a request has to be like: every part matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestMatch {
    /// The path, without the query.
    pub path: PathMatch,
    /// The method.
    pub method: Option<&'static str>,
    /// Headers; names in lower case.
    pub headers: Vec<NamedMatch>,
    /// Query parameters.
    pub query: Vec<NamedMatch>,
}

/// How a path is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Byte for byte.
    Exact(String),
    /// Whole segments; without a slash at the end. Empty matches every path.
    Prefix(String),
    /// A regular expression over the whole path.
    Regex(String),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix(String::new())
    }
}

/// A header or query parameter and how its value is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMatch {
    /// Its name.
    pub name: String,
    /// The value, or a regular expression over it.
    pub value: ValueMatch,
}

/// How a value is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// Byte for byte.
    Exact(String),
    /// A regular expression over the whole value.
    Regex(String),
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It is sent to one of the backends.
    Forward(Forward),
    /// It is answered with a redirect.
    Redirect(Redirect),
    /// It is answered with this status, since no backend is valid.
    Fail(u16),
}

/// Where a request is sent and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forward {
    /// At least one, with a sum of weights above 0.
    pub backends: Vec<Backend>,
    /// The path that the backend sees.
    pub path: Option<PathChange>,
    /// The Host header that the backend sees.
    pub host: Option<String>,
    /// Time limit of the rule itself; `Some(None)` says "no limit".
    pub timeout: Option<Option<Duration>>,
    /// The same for each try.
    pub try_timeout: Option<Option<Duration>>,
    /// Retries of the rule itself.
    pub retry: Option<RuleRetry>,
}

/// Retries of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRetry {
    /// Response codes that are retried.
    pub codes: Vec<u16>,
    /// After the first try.
    pub attempts: u32,
    /// Least time before the first retry.
    pub backoff: Option<Duration>,
}

/// A service port with its share of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// The service.
    pub service: ObjectName,
    /// Its port.
    pub port: u16,
    /// Whether requests can go there.
    pub reference: Reference,
    /// Its share, in proportion to the sum.
    pub weight: u32,
    /// Changes to the headers of requests to it.
    pub request_headers: HeaderChanges,
    /// Changes to the headers of its responses.
    pub response_headers: HeaderChanges,
}

/// What became of a reference to a service port. The share of one that is not resolved is answered with 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Service and port exist, and the route may refer to them.
    Resolved,
    /// Service or port does not exist.
    Missing,
    /// It is in another namespace, which does not allow it (Gateway API, ReferenceGrant).
    NotPermitted,
}

/// Changes to headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Replaces all values.
    pub set: Vec<(String, String)>,
    /// Adds a value.
    pub add: Vec<(String, String)>,
    /// Removes.
    pub remove: Vec<String>,
}

/// A change of the path; the query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// Replaces the whole.
    Full(String),
    /// Replaces the prefix that matched.
    Prefix(String),
}

/// A redirect to the request's own location with some parts replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// Scheme.
    pub scheme: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Path.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// Age of a route, to break ties: the older wins, then the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seniority {
    /// Seconds since 1970 of its creation; a route that does not say counts as the youngest.
    pub created: i64,
    /// Its name.
    pub name: ObjectName,
}

/// A rule with what its rank depends on.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// The rule.
    pub rule: Rule,
    /// Its route.
    pub seniority: Seniority,
    /// Index of the rule in the route, then of the match in the rule.
    pub position: (usize, usize),
}

/// Puts rules in the Gateway API's order of precedence: exact path, then (our choice) regular expression by length, then longest
/// prefix; then a method, most headers, most query parameters; then the oldest route, the route's name, and the place in the route.
pub fn sort(rules: &mut [Ranked]) {
    rules.sort_by(precedence);
}

fn precedence(a: &Ranked, b: &Ranked) -> Ordering {
    let specificity = |r: &Ranked| {
        let m = &r.rule.matches;
        let path = match &m.path {
            PathMatch::Exact(_) => (0, Reverse(0)),
            PathMatch::Regex(text) => (1, Reverse(text.chars().count())),
            PathMatch::Prefix(text) => (2, Reverse(text.chars().count())),
        };
        (path, Reverse(m.method.is_some()), Reverse(m.headers.len()), Reverse(m.query.len()))
    };
    specificity(a)
        .cmp(&specificity(b))
        .then_with(|| a.seniority.cmp(&b.seniority))
        .then_with(|| a.position.cmp(&b.position))
}
