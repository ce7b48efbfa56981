//! A worker whose network is memory.

use crate::accept::connection;
use crate::admin::drain::{Drain, DrainTrigger, channel};
use crate::observe::Direction;
use crate::request::Downstream;
use crate::snapshot::Store;
use crate::snapshot::compile::compile_listener;
use crate::stream::BoxIo;
use crate::upstream::Cluster;
use crate::upstream::pool::{LocalFuture, Network};
use crate::worker::{Settings, Worker};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::LocalSet;

/// What the kernel would buffer per direction.
pub(super) const SOCKET_BUFFER: usize = 64 * 1024;

type Server = Rc<dyn Fn(DuplexStream) -> LocalFuture<'static, ()>>;

/// What stands between the proxy and its connection to a server.
type Fault = Rc<dyn Fn(DuplexStream) -> BoxIo>;

/// The servers of a test, by address. An address without one refuses connections.
#[derive(Clone, Default)]
pub(super) struct Servers {
    servers: Rc<RefCell<HashMap<SocketAddr, Server>>>,
    fault: Rc<RefCell<Option<Fault>>>,
}

impl Servers {
    /// Serves `address` by calling `serve` with each connection.
    pub(super) fn add<F: Future<Output = ()> + 'static>(
        &self,
        address: &str,
        serve: impl Fn(DuplexStream) -> F + 'static,
    ) {
        let server: Server = Rc::new(move |io| Box::pin(serve(io)));
        self.servers.borrow_mut().insert(address.parse().unwrap(), server);
    }

    /// Puts `fault` between the proxy and every connection it makes from now on.
    pub(super) fn disturb(&self, fault: impl Fn(DuplexStream) -> BoxIo + 'static) {
        *self.fault.borrow_mut() = Some(Rc::new(fault));
    }
}

impl Network for Servers {
    fn connect(&self, address: SocketAddr) -> LocalFuture<'_, io::Result<BoxIo>> {
        Box::pin(async move {
            let Some(server) = self.servers.borrow().get(&address).cloned() else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let (near, far) = duplex(SOCKET_BUFFER);
            tokio::task::spawn_local(server(far));
            let fault = self.fault.borrow().clone();
            Ok(match fault {
                Some(fault) => fault(near),
                None => Box::new(near) as BoxIo,
            })
        })
    }
}

/// A proxy with one listener.
pub(super) struct Sim {
    pub(super) worker: Rc<Worker>,
    pub(super) servers: Servers,
    pub(super) drain: DrainTrigger,
}

impl Sim {
    /// A connection of a client to the listener.
    pub(super) fn connect(&self) -> DuplexStream {
        self.connect_as(Direction::Outbound)
    }

    /// As [`Sim::connect`], as if the listener were of that direction.
    pub(super) fn connect_as(&self, direction: Direction) -> DuplexStream {
        let (client, server) = duplex(SOCKET_BUFFER);
        let source = "198.18.0.9:40000".parse().unwrap();
        let destination = "198.19.0.1:80".parse().unwrap();
        let downstream = Downstream::plain(direction, source, destination);
        let listener = self.worker.store().listener("test").unwrap();
        tokio::task::spawn_local(connection::serve(self.worker.clone(), listener, Box::new(server), downstream));
        client
    }

    /// Sends all of `request`, and receives until `enough` says so or the proxy closes.
    pub(super) async fn talk(&self, request: &str, enough: impl Fn(&str) -> bool) -> String {
        let mut client = self.connect();
        client.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut client, enough).await
    }

    /// One request; the connection is kept open until the answer `ends_with` this.
    pub(super) async fn ask(&self, request: &str, ends_with: &str) -> String {
        self.talk(request, |answer| answer.ends_with(ends_with)).await
    }

    /// What the metrics say, one line per series that contains `name`.
    pub(super) fn metrics(&self, name: &str) -> Vec<String> {
        let text = self.worker.shared.metrics.encode();
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }
}

/// Receives until `enough` says so or the other side closes.
pub(super) async fn read_until(io: &mut DuplexStream, enough: impl Fn(&str) -> bool) -> String {
    let mut received = Vec::new();
    while !enough(std::str::from_utf8(&received).unwrap_or_default()) {
        let mut chunk = [0; 4096];
        match io.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(n) => received.extend_from_slice(&chunk[..n]),
        }
    }
    String::from_utf8_lossy(&received).into_owned()
}

/// Runs a test with a proxy whose listener has this HTTP configuration (the inside of `route_config`'s only virtual host, and
/// further fields of the connection manager), and one static cluster `app`.
pub(super) async fn with_proxy<F: Future<Output = ()>>(config: Config<'_>, test: impl FnOnce(Sim) -> F) {
    let store = Arc::new(Store::new());
    let listener = format!(
        "name: test\naddress: {{socket_address: {{address: 198.19.0.1, port_value: 80}}}}\nbind_to_port: false\nfilter_chains:\n- filters:\n  \
         - name: http\n    typed_config:\n      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n      \
         stat_prefix: test\n      {}\n      http_filters: [{{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]\n      \
         route_config:\n        virtual_hosts:\n        - name: all\n          domains: ['*']\n          routes: {}\n",
        config.manager, config.routes,
    );
    let listener = match config.filter_chains {
        Some(chains) => format!("name: test\naddress: {ADDRESS}\nbind_to_port: false\nfilter_chains: {chains}\n"),
        None => listener,
    };
    let listener = compile_listener(&weft_xds::yaml::from_str(&listener).unwrap()).unwrap().listener;
    let endpoints: Vec<String> = config
        .endpoints
        .iter()
        .map(|address| {
            let (host, port) = address.rsplit_once(':').unwrap();
            format!("{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: {port}}}}}}}}}")
        })
        .collect();
    let cluster = format!(
        "name: app\ntype: STATIC\n{}\nload_assignment: {{cluster_name: app, endpoints: [{{lb_endpoints: [{}]}}]}}\n",
        config.cluster,
        endpoints.join(", "),
    );
    let cluster = Cluster::compile(&weft_xds::yaml::from_str(&cluster).unwrap(), "").unwrap();
    store.update(|snapshot| {
        snapshot.insert_listener(Arc::new(listener));
        snapshot.clusters.insert("app".into(), Arc::new(cluster));
    });
    let settings = Settings { workload: "client".to_owned(), namespace: "test".to_owned(), ..Settings::default() };
    let servers = Servers::default();
    let (trigger, drain): (DrainTrigger, Drain) = channel();
    let worker = Worker::alone(store, settings, drain, Rc::new(servers.clone()));
    let set = LocalSet::new();
    set.spawn_local(worker.sweep.clone().run());
    set.run_until(test(Sim { worker, servers, drain: trigger })).await;
}

/// Where the listener is.
const ADDRESS: &str = "{socket_address: {address: 198.19.0.1, port_value: 80}}";

/// What a test configures.
pub(super) struct Config<'a> {
    /// Fields of the connection manager, one line.
    pub(super) manager: &'a str,
    /// The listener's chains, in flow style, instead of one that speaks HTTP.
    pub(super) filter_chains: Option<&'a str>,
    /// The routes, in flow style.
    pub(super) routes: &'a str,
    /// Fields of the cluster, one line.
    pub(super) cluster: &'a str,
    /// Addresses of its endpoints.
    pub(super) endpoints: &'a [&'a str],
}

impl Default for Config<'_> {
    fn default() -> Self {
        Self {
            manager: "",
            filter_chains: None,
            routes: "[{match: {prefix: /}, route: {cluster: app}}]",
            cluster: "",
            endpoints: &[APP],
        }
    }
}

/// Routes that never time out by themselves.
pub(super) const PATIENT: &str = "[{match: {prefix: /}, route: {cluster: app, timeout: 0s}}]";

/// The usual endpoint.
pub(super) const APP: &str = "198.18.0.2:8080";

/// Puts a server with one answer behind the proxy; gives what the server saw.
pub(super) fn serve(sim: &Sim, answer: &'static str) -> Rc<RefCell<String>> {
    let seen = Rc::new(RefCell::new(String::new()));
    let record = seen.clone();
    sim.servers.add(APP, move |io| canned(io, record.clone(), answer));
    seen
}

/// A server that answers each request with `answer` and hands what it received to `seen`.
pub(super) async fn canned(mut io: DuplexStream, seen: Rc<RefCell<String>>, answer: &'static str) {
    loop {
        let request = read_until(&mut io, complete).await;
        if request.is_empty() {
            return;
        }
        seen.borrow_mut().push_str(&request);
        if io.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Whether `text` holds a whole request: enough of HTTP for tests.
fn complete(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        let last_chunk = body.starts_with("0\r\n") || body.contains("\r\n0\r\n");
        return last_chunk && body.ends_with("\r\n\r\n");
    }
    match head.split("content-length: ").nth(1) {
        Some(rest) => body.len() >= rest.split("\r\n").next().unwrap().parse().unwrap(),
        None => true,
    }
}
