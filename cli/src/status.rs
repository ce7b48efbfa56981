//! `weft status`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use weft_control_plane::Status;
use weft_control_plane::xds::{ProxyState, ProxyStatus, TypeStatus};

use crate::ask::{self, Address};
use crate::cluster::{Cluster, PodName, items};
use crate::command::{Format, StatusArgs, exit};
use crate::output::{self, Colour, Table, paint};

/// The control plane's admin port, on its loopback.
const ADMIN_PORT: u16 = 15014;

/// The types in the order of the columns.
const TYPES: [&str; 5] = ["LDS", "RDS", "CDS", "EDS", "SDS"];

pub(crate) async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let status = ask(&args).await?;
    output::document(args.output, &status, || table(&status, args.output == Format::Wide, SystemTime::now()))?;
    let bad = status.source.refused || status.proxies.iter().any(|proxy| proxy.state == ProxyState::Nack);
    Ok(ExitCode::from(if bad { exit::BAD_NEWS } else { 0 }))
}

/// Asks the address that is given, or the control plane on this machine, or those in the cluster.
async fn ask(args: &StatusArgs) -> anyhow::Result<Status> {
    let environment = std::env::var("WEFT_CONTROL_PLANE").ok().filter(|address| !address.is_empty());
    let mut status = match whom(args, environment)? {
        Whom::Named(address) => ask::json(&address, "/status", "control plane", "--control-plane").await?,
        Whom::InCluster => in_cluster(&args.cluster).await?,
        Whom::Nearest => match here().await {
            Ok(status) => status,
            Err(_) => in_cluster(&args.cluster).await.context(
                "no control plane answers at 127.0.0.1:15014, and none can be asked in a cluster; name one with --control-plane or --context",
            )?,
        },
    };
    if let Some(namespace) = &args.namespace {
        status.proxies.retain(|proxy| proxy.namespace == *namespace);
    }
    if let Some(selector) = &args.selector {
        let pods = args.cluster.get(&["pods", "-A", "-l", selector]).await?;
        let is_chosen = |proxy: &ProxyStatus| {
            let mut pods = items(&pods).map(|pod| &pod["metadata"]);
            pods.any(|pod| pod["name"] == proxy.pod.as_str() && pod["namespace"] == proxy.namespace.as_str())
        };
        status.proxies.retain(is_chosen);
    }
    Ok(status)
}

/// Whose state is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Whom {
    Named(Address),
    InCluster,
    /// Nobody said: the control plane on this machine if there is one.
    Nearest,
}

/// A flag goes before the environment (`$WEFT_CONTROL_PLANE`), which goes before what happens to run here.
fn whom(args: &StatusArgs, environment: Option<String>) -> anyhow::Result<Whom> {
    if let Some(address) = &args.control_plane {
        return Ok(Whom::Named(address.clone()));
    }
    if args.cluster.is_named() || args.selector.is_some() {
        return Ok(Whom::InCluster);
    }
    let Some(address) = environment else { return Ok(Whom::Nearest) };
    match address.parse() {
        Ok(address) => Ok(Whom::Named(address)),
        Err(problem) => bail!("WEFT_CONTROL_PLANE: {address:?} {problem}"),
    }
}

async fn here() -> anyhow::Result<Status> {
    let address = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT)));
    ask::json(&address, "/status", "control plane", "--control-plane").await
}

/// What the first replica knows, with the proxies of all: each is connected to one of them.
async fn in_cluster(cluster: &Cluster) -> anyhow::Result<Status> {
    let mut all = statuses(cluster).await?.into_iter();
    let namespace = cluster.weft_namespace();
    let mut status = all
        .next()
        .with_context(|| format!("no control plane is ready in the namespace {namespace}; see `weft check`"))?;
    status.proxies.extend(all.flat_map(|other| other.proxies));
    status.proxies.sort_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
    Ok(status)
}

/// What each control plane of a cluster that is ready says.
pub(crate) async fn statuses(cluster: &Cluster) -> anyhow::Result<Vec<Status>> {
    let mut statuses = Vec::new();
    for name in cluster.control_planes().await? {
        let pod = PodName { name, namespace: Some(cluster.weft_namespace().to_owned()) };
        let forward = cluster.forward(&pod, ADMIN_PORT).await?;
        let address = Address::Tcp(forward.address);
        statuses.push(ask::json(&address, "/status", "control plane", "--weft-namespace").await?);
    }
    Ok(statuses)
}

fn table(status: &Status, wide: bool, now: SystemTime) -> String {
    let mut text = control_plane(status);
    text.push('\n');
    text.push_str(&proxies(&status.proxies, wide, now));
    text.push('\n');
    text.push_str(&services(status));
    text
}

fn control_plane(status: &Status) -> String {
    let ready = if status.ready { paint("ready", Colour::Green) } else { paint("not ready", Colour::Red) };
    let mut text = format!("CONTROL PLANE {ready}, version {}\n", status.version);
    // Writing to a String does not fail.
    let _ = writeln!(text, "  trust domain  {}", status.trust_domain);
    for root in &status.roots {
        let fingerprint = root.fingerprint.get(..16).unwrap_or(&root.fingerprint);
        let role = if root.signs { "signs" } else { "trusted" };
        let _ = writeln!(text, "  root          {fingerprint} ({role})");
    }
    let source = &status.source;
    let state = match (source.refused, source.loaded) {
        (false, true) => paint("applied", Colour::Green),
        (true, true) => paint("refused, the last good configuration is served", Colour::Red),
        (_, false) => paint("refused, nothing is served yet", Colour::Red),
    };
    let _ = writeln!(text, "  folder        {} (edit {}, {state})", source.folder, source.generation);
    for problem in &source.problems {
        let colour = if problem.severity == "error" { Colour::Red } else { Colour::Yellow };
        let _ = writeln!(text, "  {:<12}  {}", paint(&problem.severity, colour), problem.message);
    }
    text
}

fn proxies(proxies: &[ProxyStatus], wide: bool, now: SystemTime) -> String {
    let mut table = Table::new(["PROXY", "STATE", "LDS", "RDS", "CDS", "EDS", "SDS", "CONNECTED", "PROGRAM"])
        .more(wide, ["WORKLOAD", "DIALECT"]);
    for proxy in proxies {
        let [lds, rds, cds, eds, sds] = TYPES.map(|name| {
            let found = proxy.types.iter().find(|status| status.r#type == name);
            found.map_or_else(|| "-".to_owned(), cell)
        });
        let name = format!("{}/{}", proxy.namespace, proxy.pod);
        let connected = age(proxy.connected_since, now);
        let program = proxy.user_agent.clone();
        let cells = [name, state(proxy.state), lds, rds, cds, eds, sds, connected, program];
        table.row_and(cells, [proxy.workload.clone(), proxy.dialect.clone()]);
    }
    let mut text = table.titled("PROXIES", "none connected; a proxy connects by `dynamic_resources` in its bootstrap");
    for proxy in proxies {
        for status in &proxy.types {
            if let Some(error) = &status.error {
                let who = format!("{}/{} {}", proxy.namespace, proxy.pod, status.r#type);
                // Writing to a String does not fail.
                let _ = writeln!(text, "  {} {who}: {error}", state(ProxyState::Nack));
            }
        }
    }
    text
}

/// How many resources of a type, and their version; `!` where the proxy rejects some.
fn cell(status: &TypeStatus) -> String {
    let version = status.version.as_deref().and_then(|version| version.get(..8)).unwrap_or("-");
    let mark = match status.state {
        ProxyState::Synced => "",
        ProxyState::Stale => "…",
        ProxyState::Nack => "!",
    };
    format!("{}{mark} {version}", status.resources)
}

fn state(state: ProxyState) -> String {
    match state {
        ProxyState::Synced => paint("SYNCED", Colour::Green),
        ProxyState::Stale => paint("STALE", Colour::Yellow),
        ProxyState::Nack => paint("NACK", Colour::Red),
    }
}

fn services(status: &Status) -> String {
    let mut table = Table::new(["SERVICE", "ADDRESSES", "PORTS", "ENDPOINTS"]);
    for service in &status.services {
        let join = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(",") };
        table.row([
            format!("{}/{}", service.namespace, service.name),
            join(service.addresses.iter().map(ToString::to_string).collect()),
            join(service.ports.iter().map(ToString::to_string).collect()),
            format!("{}/{}", service.ready, service.endpoints),
        ]);
    }
    table.titled("SERVICES", "none; put a Service into the configuration folder")
}

/// How long ago a Unix time was: `42s`, `5m`, `3h`, `2d`.
fn age(since: u64, now: SystemTime) -> String {
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
    match now.duration_since(since).unwrap_or_default().as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::command::{Cli, Command};

    const STATUS: &str = r#"{
        "version": "0.1.0", "ready": true, "trust_domain": "weft.local",
        "roots": [{"fingerprint": "0123456789abcdef0123", "signs": true}],
        "source": {"folder": "/shop", "loaded": true, "generation": 3, "refused": true, "problems": [
            {"severity": "error", "file": "a.yaml", "line": 4, "object": "Service shop/web", "field": "spec.ports",
             "message": "a.yaml:4: Service shop/web: spec.ports: is empty"}]},
        "services": [{"namespace": "shop", "name": "web", "addresses": ["198.19.0.1"], "ports": [80], "ready": 1, "endpoints": 2}],
        "proxies": [{"namespace": "shop", "pod": "web-0", "workload": "web", "node": "shop/web-0",
            "user_agent": "weft-proxy 0.1.0", "dialect": "delta", "connected_since": 1000, "state": "NACK", "types": [
            {"type": "LDS", "resources": 3, "wildcard": false, "state": "NACK", "version": "0011223344556677", "error": "a.b: is odd"},
            {"type": "SDS", "resources": 1, "wildcard": false, "state": "SYNCED", "version": "8899aabbccddeeff", "error": null}]}]
    }"#;

    #[test]
    fn the_table_shows_state_versions_errors_addresses_and_problems() {
        let status: Status = serde_json::from_str(STATUS).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1042);
        assert_eq!(
            table(&status, false, now),
            "\
CONTROL PLANE ready, version 0.1.0
  trust domain  weft.local
  root          0123456789abcdef (signs)
  folder        /shop (edit 3, refused, the last good configuration is served)
  error         a.yaml:4: Service shop/web: spec.ports: is empty

PROXIES (1)
  PROXY       STATE  LDS          RDS  CDS  EDS  SDS         CONNECTED  PROGRAM
  shop/web-0  NACK   3! 00112233  -    -    -    1 8899aabb  42s        weft-proxy 0.1.0
  NACK shop/web-0 LDS: a.b: is odd

SERVICES (1)
  SERVICE   ADDRESSES   PORTS  ENDPOINTS
  shop/web  198.19.0.1  80     1/2
"
        );
        let wide = table(&status, true, now);
        assert!(wide.contains("PROGRAM           WORKLOAD  DIALECT\n"), "{wide}");
        assert!(wide.contains("weft-proxy 0.1.0  web       delta\n"), "{wide}");
    }

    #[test]
    fn whoever_is_named_by_a_flag_is_asked_whatever_runs_on_this_machine() {
        let cluster: [&[&str]; 4] =
            [&["--context", "kind"], &["--kubeconfig", "f"], &["--weft-namespace", "weft-system"], &["-l", "app=web"]];
        let asked = |flags: &[&str], environment: Option<&str>| {
            let cli = Cli::try_parse_from(["weft", "status"].iter().chain(flags)).unwrap();
            let Command::Status(args) = cli.command else { panic!() };
            whom(&args, environment.map(str::to_owned))
        };
        let named = |address: &str| Whom::Named(address.parse().unwrap());
        for flags in cluster {
            for environment in [None, Some("127.0.0.1:8")] {
                assert_eq!(asked(flags, environment).unwrap(), Whom::InCluster, "{flags:?}");
            }
        }
        assert_eq!(asked(&["--control-plane", "127.0.0.1:7"], Some("127.0.0.1:8")).unwrap(), named("127.0.0.1:7"));
        assert_eq!(asked(&[], Some("127.0.0.1:8")).unwrap(), named("127.0.0.1:8"));
        assert_eq!(asked(&[], None).unwrap(), Whom::Nearest);
        assert!(asked(&[], Some("web")).unwrap_err().to_string().contains("WEFT_CONTROL_PLANE"));
        assert!(
            Cli::try_parse_from(["weft", "status", "--control-plane", "127.0.0.1:7", "--context", "kind"]).is_err()
        );
    }

    #[test]
    fn ages_are_short() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (seconds, expected) in [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")] {
            assert_eq!(age(1_000_000 - seconds, now), expected);
        }
    }
}
