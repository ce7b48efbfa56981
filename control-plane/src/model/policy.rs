//! Policies as they apply to one service port or workload: conflicts resolved, defaults filled in.

use std::time::Duration;

/// How callers treat a service port.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Until the end of the response, retries included; `None` for no limit.
    pub request_timeout: Option<Duration>,
    /// For each try; `None` for no limit.
    pub try_timeout: Option<Duration>,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// A connection without traffic; `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// Retries that the user asked for, beyond those that are always made.
    pub retries: Option<Retries>,
    /// Retries under way at most, in percent of the requests under way.
    pub retry_budget_percent: f64,
    /// Retries that are always allowed at once.
    pub retry_budget_min: u32,
    /// The balancing algorithm.
    pub algorithm: Algorithm,
    /// Percent of healthy endpoints below which all are used again.
    pub panic_threshold: f64,
    /// When an endpoint that fails is left out.
    pub outliers: Option<Outliers>,
    /// How much one caller may have under way.
    pub limits: Limits,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            request_timeout: None,
            try_timeout: None,
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Some(Duration::from_secs(3600)),
            retries: None,
            retry_budget_percent: 20.0,
            retry_budget_min: 3,
            algorithm: Algorithm::PeakEwma,
            panic_threshold: 0.0,
            outliers: None,
            limits: Limits::default(),
        }
    }
}

/// Retries that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// After the first try.
    pub attempts: u32,
    /// Conditions in Envoy's words.
    pub on: Vec<&'static str>,
    /// Response codes that are retried too.
    pub codes: Vec<u16>,
    /// Least time before the first retry.
    pub backoff_base: Duration,
    /// Most time before a retry.
    pub backoff_max: Duration,
}

/// A balancing algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The better of two random endpoints by a moving average of latency and requests under way.
    PeakEwma,
    /// The better of two random endpoints by requests under way.
    LeastRequest,
    /// In turn.
    RoundRobin,
}

/// When an endpoint that fails is left out. 0 turns a criterion off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outliers {
    /// Errors in a row.
    pub consecutive_errors: u32,
    /// Gateway errors in a row.
    pub consecutive_gateway_errors: u32,
    /// Percent of failures within an interval.
    pub failure_percentage: u32,
    /// Requests within an interval below which the percentage does not count.
    pub minimum_requests: u32,
    /// How often endpoints are looked at.
    pub interval: Duration,
    /// How long an endpoint is left out the first time.
    pub base_ejection: Duration,
    /// The longest that an endpoint is left out.
    pub max_ejection: Duration,
    /// Percent of endpoints that may be left out at once.
    pub max_ejection_percent: u32,
}

/// How much one caller may have under way to one service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests.
    pub requests: u32,
    /// Requests over one connection; `None` for any number.
    pub requests_per_connection: Option<u32>,
}

impl Default for Limits {
    /// In effect none: a limit that nobody chose should not be what fails first.
    fn default() -> Self {
        Self { connections: 1_000_000, pending: 1_000_000, requests: 1_000_000, requests_per_connection: None }
    }
}

/// Which callers a port accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// Mutual TLS and plaintext.
    #[default]
    Permissive,
    /// Mutual TLS only.
    Strict,
}

/// Who may call a workload: a call that a `deny` rule matches is refused; then one `allow` rule has to match, if there is any allow policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Rules that refuse.
    pub deny: Vec<AccessRule>,
    /// Rules that let pass; `None` without any allow policy, which lets everything pass.
    pub allow: Option<Vec<AccessRule>>,
}

/// A caller and a call that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRule {
    /// Name for logs and statistics: `<namespace>/<policy>[<rule>]`.
    pub name: String,
    /// Any one of these; empty for everyone, authenticated or not.
    pub from: Vec<Caller>,
    /// Any one of these; empty for every call.
    pub to: Vec<Call>,
}

/// A caller: each list that is not empty has to match by one of its elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Patterns of SPIFFE identities, from `identities`.
    pub identities: Vec<Pattern>,
    /// Patterns of SPIFFE identities, from `serviceAccounts`.
    pub accounts: Vec<Pattern>,
    /// Patterns of SPIFFE identities, from `namespaces`.
    pub namespaces: Vec<Pattern>,
}

/// A call: each list that is not empty has to match by one of its elements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Ports of the workload.
    pub ports: Vec<u16>,
    /// HTTP methods.
    pub methods: Vec<String>,
    /// Paths without the query.
    pub paths: Vec<Pattern>,
}

impl Call {
    /// Whether only an HTTP request can match.
    #[must_use]
    pub fn needs_http(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }
}

/// A text, or its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The whole text.
    Exact(String),
    /// Its beginning.
    Prefix(String),
}

impl Pattern {
    /// A pattern as users write it: a `*` at the end stands for any rest.
    #[must_use]
    pub fn from_star(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }
}

/// Delays and errors on purpose. Shares are in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How long calls are held, and how many of them.
    pub delay: Option<(Duration, u32)>,
    /// What calls are answered with, and how many of them.
    pub abort: Option<(AbortStatus, u32)>,
}

/// What an aborted call is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
}
