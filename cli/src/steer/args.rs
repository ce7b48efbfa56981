//! The flags of the commands that steer traffic.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use weft_api::Duration;

use crate::ask::Address;
use crate::cluster::Cluster;
use crate::completion;

/// Where the objects are, and what to do with the one that the command means.
#[derive(Args, Debug, Clone)]
pub(crate) struct Steering {
    /// Namespace of the Service, if its name does not say; without it the only one that has such a Service in a folder, the current one in a cluster
    #[arg(short, long, add = completion::namespaces())]
    pub(crate) namespace: Option<String>,
    /// The folder of files that the control plane reads. Without it and without a flag that names a cluster: what the control plane
    /// on this machine says that it reads, or where none answers, the cluster that kubectl knows
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["context", "kubeconfig", "control_plane"])]
    pub(crate) folder: Option<PathBuf>,
    /// The control plane's admin address, host:port or unix:PATH [default: $WEFT_CONTROL_PLANE, then 127.0.0.1:15014]
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["context", "kubeconfig"])]
    pub(crate) control_plane: Option<Address>,
    /// Make the change: in the folder's file, or by server-side apply as field manager `weft`
    #[arg(long)]
    pub(crate) apply: bool,
    /// Take over fields of a cluster's object that another field manager owns
    #[arg(long, requires = "apply")]
    pub(crate) force: bool,
    /// Follow the calls to the Service until Ctrl-C: who answers how many of them, how well, how fast
    #[arg(long)]
    pub(crate) watch: bool,
    /// Format of the object
    #[arg(short, long, value_enum, default_value_t = Format::Yaml)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
}

/// How the object is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// As users write it
    Yaml,
    /// For programs
    Json,
}

#[derive(Args, Debug, Clone)]
pub(crate) struct SplitArgs {
    /// The Service that is called: NAME, NAME.NAMESPACE or NAMESPACE/NAME, with :PORT if it has several
    pub(crate) service: ServiceName,
    /// Who answers, and its share: v1=90 means the Service SERVICE-v1, or else the Service v1
    #[arg(required = true, value_name = "VERSION=WEIGHT")]
    pub(crate) shares: Vec<Share>,
    /// The route to change, if several are attached to the Service
    #[arg(long, value_name = "NAME")]
    pub(crate) route: Option<String>,
    /// The route's rule to change, by its name or its place (0 is the first); without it the one for all requests
    #[arg(long, value_name = "NAME")]
    pub(crate) rule: Option<String>,
    #[command(flatten)]
    pub(crate) steering: Steering,
}

#[derive(Args, Debug, Clone)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["attempts", "on", "codes", "backoff", "budget", "off"]))]
pub(crate) struct RetryArgs {
    /// The Service that is called: NAME, NAME.NAMESPACE or NAMESPACE/NAME, with :PORT for one of its ports
    pub(crate) service: ServiceName,
    /// Retries after the first try, 0 to 10
    pub(crate) attempts: Option<u32>,
    /// When to retry, such as 5xx,reset; a TrafficPolicy's `retries.conditions` has the words
    #[arg(long, value_name = "WHEN", value_delimiter = ',')]
    pub(crate) on: Vec<String>,
    /// Response codes that are retried too, such as 429,503
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    pub(crate) codes: Vec<u16>,
    /// Least and most time before a retry, such as 25ms or 25ms..1s
    #[arg(long, value_name = "TIME")]
    pub(crate) backoff: Option<Backoff>,
    /// Retries under way at most, in percent of the requests under way
    #[arg(long, value_name = "PERCENT")]
    pub(crate) budget: Option<f64>,
    /// Take what the policy says of retries out of it
    #[arg(long, conflicts_with_all = ["attempts", "on", "codes", "backoff", "budget"])]
    pub(crate) off: bool,
    #[command(flatten)]
    pub(crate) steering: Steering,
}

#[derive(Args, Debug, Clone)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["request", "per_try", "connect", "idle", "off"]))]
pub(crate) struct TimeoutArgs {
    /// The Service that is called: NAME, NAME.NAMESPACE or NAMESPACE/NAME, with :PORT for one of its ports
    pub(crate) service: ServiceName,
    /// From the request to the end of the response, retries included, such as 3s; 0s for no limit
    pub(crate) request: Option<Duration>,
    /// For each try
    #[arg(long = "try", value_name = "TIME")]
    pub(crate) per_try: Option<Duration>,
    /// Until a connection stands
    #[arg(long, value_name = "TIME")]
    pub(crate) connect: Option<Duration>,
    /// A connection without traffic
    #[arg(long, value_name = "TIME")]
    pub(crate) idle: Option<Duration>,
    /// Take what the policy says of time limits out of it
    #[arg(long, conflicts_with_all = ["request", "per_try", "connect", "idle"])]
    pub(crate) off: bool,
    #[command(flatten)]
    pub(crate) steering: Steering,
}

#[derive(Args, Debug, Clone)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["delay", "abort", "abort_grpc", "off"]))]
pub(crate) struct FaultArgs {
    /// The Service that is called: NAME, NAME.NAMESPACE or NAMESPACE/NAME, with :PORT for one of its ports
    pub(crate) service: ServiceName,
    /// Hold calls for this long, such as 2s
    #[arg(long, value_name = "TIME")]
    pub(crate) delay: Option<Duration>,
    /// Answer calls with this HTTP status, such as 503
    #[arg(long, value_name = "STATUS", conflicts_with = "abort_grpc")]
    pub(crate) abort: Option<u16>,
    /// Answer calls with this gRPC status, 1 to 16, such as 14 for UNAVAILABLE
    #[arg(long, value_name = "STATUS")]
    pub(crate) abort_grpc: Option<u32>,
    /// Share of the calls, for the delay and for the answer [default: 100]
    #[arg(long, value_name = "PERCENT", requires = "what")]
    pub(crate) percent: Option<f64>,
    /// Remove the fault
    #[arg(long, conflicts_with_all = ["delay", "abort", "abort_grpc", "percent"])]
    pub(crate) off: bool,
    #[command(flatten)]
    pub(crate) steering: Steering,
}

/// A Service as people name it, and one of its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceName {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
    pub(crate) port: Option<u16>,
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "is no Service; write NAME, NAME.NAMESPACE or NAMESPACE/NAME, and :PORT behind it for one port".to_owned()
        };
        let (whole, port) = match text.rsplit_once(':') {
            Some((whole, port)) => (whole, Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?)),
            None => (text, None),
        };
        let whole = whole.strip_prefix("service/").or_else(|| whole.strip_prefix("svc/")).unwrap_or(whole);
        let (name, namespace) = match (whole.split_once('/'), whole.split_once('.')) {
            (Some((namespace, name)), _) => (name, Some(namespace.to_owned())),
            // The name of DNS may go on: reviews.shop.svc.cluster.local.
            (None, Some((name, rest))) => (name, Some(rest.split(".svc").next().unwrap_or(rest).to_owned())),
            (None, None) => (whole, None),
        };
        let is_label = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !is_label(name) || namespace.as_deref().is_some_and(|namespace| !is_label(namespace)) {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), namespace, port })
    }
}

/// Who answers, and its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) version: String,
    pub(crate) weight: u32,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "is no share; write VERSION=WEIGHT, such as v1=90, the weight a whole number from 0 to 1000000".to_owned()
        };
        let (version, weight) = text.split_once('=').ok_or_else(wrong)?;
        let weight = weight.parse().ok().filter(|weight| *weight <= 1_000_000).ok_or_else(wrong)?;
        if version.is_empty() {
            return Err(wrong());
        }
        Ok(Self { version: version.to_owned(), weight })
    }
}

/// Least and most time before a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    pub(crate) base: Duration,
    pub(crate) max: Option<Duration>,
}

impl FromStr for Backoff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| text.parse::<Duration>().map_err(|error| error.to_string());
        match text.split_once("..") {
            Some((base, max)) => Ok(Self { base: parse(base)?, max: Some(parse(max)?) }),
            None => Ok(Self { base: parse(text)?, max: None }),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_named_as_people_do() {
        let named = |namespace: Option<&str>, port| {
            Ok(ServiceName { name: "reviews".into(), namespace: namespace.map(str::to_owned), port })
        };
        assert_eq!("reviews".parse(), named(None, None));
        assert_eq!("reviews.shop:80".parse(), named(Some("shop"), Some(80)));
        assert_eq!("svc/reviews".parse(), named(None, None));
        assert_eq!("shop/reviews".parse(), named(Some("shop"), None));
        assert_eq!("reviews.shop.svc.cluster.local".parse(), named(Some("shop"), None));
        for wrong in ["", "Reviews", "reviews:", "reviews:0", "a/b/c", "reviews."] {
            assert!(wrong.parse::<ServiceName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_and_backoffs_are_read() {
        assert_eq!("v1=90".parse(), Ok(Share { version: "v1".into(), weight: 90 }));
        for wrong in ["v1", "=1", "v1=", "v1=-1", "v1=1000001", "v1=ten"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
        assert!("25ms..1s".parse::<Backoff>().unwrap().max.is_some());
        assert!("soon".parse::<Backoff>().is_err());
    }
}
