//! The servers' answers, over an in-memory connection.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_xds::envoy::config::route::v3::RouteConfiguration;
use weft_xds::{FieldError, pack};

use super::routes::{Admin, Scope};
use super::*;
use crate::ads::{Dump, Kind, Raw, Record, Refusal};

const BOOTSTRAP: &str = r#"
static_resources:
  listeners:
  - name: web
    address: {socket_address: {address: 127.0.0.1, port_value: 10000}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            tls_certificates: [{certificate_chain: {inline_string: chain}, private_key: {inline_string: SECRET}}]
      filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: app}
"#;

const CLUSTER: &str = r#"
static_resources:
  clusters:
  - name: app
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 8080}}}}]}]
"#;

struct Fixture {
    admin: Arc<Admin>,
    readiness: Readiness,
    drain: Drain,
    local: Option<IpAddr>,
    /// What the pod's probe asks.
    _application: TcpListener,
}

fn fixture() -> Fixture {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let application = TcpListener::bind((local, 0)).unwrap();
    let port = application.local_addr().unwrap().port();
    let probes = format!(r#"{{"/probe/app/readiness": {{"port": {port}, "timeoutSeconds": 30, "tcpSocket": {{}}}}}}"#);
    let (trigger, drain) = drain::channel();
    let readiness = Readiness::new();
    let store = Arc::new(Store::new());
    let bootstrap = Bootstrap::parse(CLUSTER).unwrap();
    bootstrap.publish(&store);
    let admin = Admin {
        bootstrap: bootstrap.message,
        store,
        identity: LocalIdentity::new(),
        metrics: Arc::new(Metrics::new()),
        readiness: readiness.clone(),
        drain: trigger,
        configuration: None,
        probes: Probes::parse(&probes).unwrap(),
    };
    Fixture { admin: Arc::new(admin), readiness, drain, local: Some(local), _application: application }
}

impl Fixture {
    /// Status line and body of one request.
    async fn ask(&self, request: &str, scope: Scope) -> (String, String) {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let admin = self.admin.clone();
        tokio::spawn(server::serve(server, admin, scope, self.local));
        client
            .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    async fn status(&self, request: &str, scope: Scope) -> String {
        self.ask(request, scope).await.0["HTTP/1.1 ".len()..][..3].to_owned()
    }
}

#[tokio::test]
async fn is_ready_when_nothing_is_waited_for_and_not_while_it_drains() {
    let fixture = fixture();
    let guard = fixture.readiness.wait_for("certificate");
    let (status, body) = fixture.ask("GET /ready", Scope::Public).await;
    assert_eq!(
        (status.as_str(), body.as_str()),
        ("HTTP/1.1 503 Service Unavailable", "not ready, waiting for: certificate\n")
    );
    drop(guard);
    assert_eq!(fixture.status("GET /ready", Scope::Public).await, "200");
    assert_eq!(fixture.status("POST /drain", Scope::Private).await, "200");
    assert!(fixture.drain.is_draining());
    assert_eq!(fixture.ask("GET /ready", Scope::Private).await.1, "draining\n");
    assert_eq!(fixture.status("GET /live", Scope::Private).await, "200");
}

#[tokio::test]
async fn all_addresses_reach_readiness_and_metrics_only() {
    let fixture = fixture();
    assert!(fixture.ask("GET /stats/prometheus", Scope::Public).await.1.ends_with("# EOF\n"));
    for path in ["/config_dump", "/clusters", "/certs", "/logging", "/live", "/", "/help", "/ready/../config_dump"] {
        assert_eq!(fixture.status(&format!("GET {path}"), Scope::Public).await, "404", "{path}");
    }
    assert_eq!(fixture.status("POST /drain", Scope::Public).await, "404");
    assert_eq!(fixture.status("POST /ready", Scope::Public).await, "405");
    assert!(!fixture.drain.is_draining());
}

#[tokio::test]
async fn the_pods_own_probes_are_asked_for_whoever_comes_to_an_address() {
    let fixture = fixture();
    assert_eq!(fixture.ask("GET /probe/app/readiness", Scope::Public).await.1, "connected\n");
    for (request, status) in
        [("GET /probe/app/readiness", "200"), ("GET /probe/x/y", "404"), ("POST /probe/app/readiness", "405")]
    {
        assert_eq!(fixture.status(request, Scope::Public).await, status, "{request}");
    }
    // By the Unix socket there is no address to ask.
    let by_path = Fixture { local: None, ..fixture };
    assert_eq!(by_path.status("GET /probe/app/readiness", Scope::Public).await, "404");
}

#[tokio::test]
async fn reading_never_changes_anything() {
    let fixture = fixture();
    for (request, status) in [
        ("GET /drain", "405"),
        ("DELETE /logging", "405"),
        ("POST /certs", "405"),
        ("GET /nothing", "404"),
        ("HEAD /config_dump", "200"),
    ] {
        assert_eq!(fixture.status(request, Scope::Private).await, status, "{request}");
    }
    assert!(!fixture.drain.is_draining());
}

#[tokio::test(start_paused = true)]
async fn a_drain_can_be_waited_for() {
    let fixture = fixture();
    let busy = fixture.drain.busy();
    assert_eq!(fixture.ask("POST /drain?wait=3", Scope::Private).await.1, "draining; at work: 1\n");
    drop(busy);
    assert_eq!(fixture.ask("POST /drain?wait=3", Scope::Private).await.1, "draining; nothing is at work\n");
    assert_eq!(fixture.status("POST /drain?wait=soon", Scope::Private).await, "400");
}

#[tokio::test]
async fn a_log_filter_that_is_not_understood_changes_nothing() {
    let fixture = fixture();
    assert_eq!(fixture.status("POST /logging?level=a=b=c", Scope::Private).await, "400");
    assert_eq!(fixture.status("POST /logging", Scope::Private).await, "400");
}

#[tokio::test]
async fn clusters_show_their_endpoints() {
    let fixture = fixture();
    let text = fixture.ask("GET /clusters", Scope::Private).await.1;
    assert!(text.contains("app::127.0.0.1:8080::health_flags::healthy\n"), "{text}");
    assert!(text.contains("app::127.0.0.1:8080::rq_total::0\n"), "{text}");
    let json: Value = serde_json::from_str(&fixture.ask("GET /clusters?format=json", Scope::Private).await.1).unwrap();
    assert_eq!(json["clusters"][0]["endpoints"][0]["address"], "127.0.0.1:8080");
}

#[tokio::test]
async fn without_a_certificate_none_is_shown() {
    let certs: Value = serde_json::from_str(&fixture().ask("GET /certs", Scope::Private).await.1).unwrap();
    assert_eq!(certs["certificates"][0]["cert_chain"], serde_json::json!([]));
}

#[test]
fn the_dump_shows_versions_and_refusals_and_no_private_key() {
    let bootstrap = weft_xds::yaml::from_str(BOOTSTRAP).unwrap();
    let route = RouteConfiguration { name: "r".into(), ..Default::default() };
    let dump = Dump {
        connected: true,
        records: vec![
            Record {
                key: (Kind::Route, "r".into()),
                root: false,
                active: Some(Raw { version: "7".into(), message: Arc::new(pack(&route)) }),
                warming: None,
                refused: Some(Refusal {
                    version: "8".into(),
                    error: FieldError::new("virtual_hosts[0].name", "is bad"),
                }),
                absent: false,
            },
            Record {
                key: (Kind::Listener, "198.18.0.1:80".into()),
                root: true,
                active: None,
                warming: None,
                refused: None,
                absent: true,
            },
        ],
    };
    let json = dump::config_dump(&bootstrap, &dump).unwrap();
    let part = |name: &str| {
        let configs = json["configs"].as_array().unwrap();
        configs.iter().find(|config| config["@type"].as_str().unwrap().ends_with(name)).unwrap().clone()
    };
    let route = &part("RoutesConfigDump")["dynamic_route_configs"][0];
    assert_eq!(route["version_info"], "7");
    assert_eq!(route["route_config"]["@type"], "type.googleapis.com/envoy.config.route.v3.RouteConfiguration");
    assert_eq!(route["client_status"], "NACKED");
    assert_eq!(route["error_state"]["details"], "virtual_hosts[0].name: is bad");
    let listener = &part("ListenersConfigDump")["dynamic_listeners"][0];
    assert_eq!((&listener["name"], &listener["client_status"]), (&"198.18.0.1:80".into(), &"DOES_NOT_EXIST".into()));
    assert_eq!(part("ListenersConfigDump")["static_listeners"][0]["listener"]["name"], "web");
    let text = json.to_string();
    assert!(text.contains("[redacted]") && !text.contains("SECRET"));
}

#[test]
fn a_unix_socket_left_behind_is_replaced_and_a_living_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let any = "127.0.0.1:0".parse().unwrap();
    drop(server::Sockets::bind(any, Some(&path), false).unwrap());
    let living = server::Sockets::bind(any, Some(&path), false).unwrap();
    assert!(server::Sockets::bind(any, Some(&path), false).is_err());
    drop(living);
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert!(server::Sockets::bind(any, Some(&folder.path().join("file")), false).is_err(), "a file is not removed");
}
