//! A mesh whose traffic changes in every respect that dashboards show.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use weft_e2e::Mesh;
use weft_e2e::yaml::{object, policy, service};
use weft_local_mesh::probe::probe;
use weft_local_mesh::{Error, Load, MeshPod, Programs, Prometheus, Sample, Spec};
use weft_sandbox::Pod;
use weft_sandbox::testing::{self, Failure};
use weft_telemetry::dashboards::{Panel, Unit};

/// How often Prometheus scrapes.
const SCRAPE: Duration = Duration::from_secs(1);

/// What takes the place of Grafana's `$__rate_interval`: many scrapes, on a machine that is busy too.
pub(crate) const WINDOW: &str = "15s";

/// Calls per second, at first.
const RATE: f64 = 12.0;

const TARGETS: [&str; 3] = ["http://reviews/reviews", "ws://notifications/ws", "tcp://queue:4222"];

pub(crate) struct Scene {
    mesh: Mesh,
    prometheus: Prometheus,
    pods: RefCell<Vec<Arc<MeshPod>>>,
    /// Of the client, of one who is refused, and of who comes later.
    loads: RefCell<Vec<Arc<Load>>>,
    /// Who has no sidecar.
    outsider: Pod,
    programs: Programs,
    /// Whether only slow calls shall be made.
    only_slow: Cell<bool>,
}

/// Who calls; the first of these from the beginning, the last one later.
const CLIENT: &str = "client";
const STRANGER: &str = "stranger";
const LATE: &str = "late";

impl Scene {
    pub(crate) async fn start(program: &Path) -> Result<Self, Failure> {
        let mesh = Mesh::start(testing::sandbox().await?).await?;
        let reviews = ["reviews-v1", "reviews-v2"]
            .map(|name| service(name, &format!("app: reviews, version: {}", &name[8..]), 80, 8080, "http"));
        let others = [
            service("reviews", "app: reviews", 80, 8080, "http"),
            service("notifications", "app: notifications", 80, 8080, "kubernetes.io/ws"),
            service("queue", "app: queue", 4222, 4222, "tcp"),
        ];
        mesh.serve(&[&reviews[..], &others].concat()).await?;
        mesh.apply("traffic.yaml", &traffic()).await?;
        mesh.apply("access.yaml", &policy("AccessPolicy", "reviews", &access())).await?;
        mesh.apply("routes.yaml", &split(1, 1)).await?;
        let mut pods = Vec::new();
        for (name, role, version) in [
            ("reviews-v1-0", "reviews", "v1"),
            ("reviews-v1-1", "reviews", "v1"),
            ("reviews-v2-0", "reviews", "v2"),
            ("notifications-0", "notifications", "v1"),
            ("queue-0", "queue", "v1"),
        ] {
            pods.push(Arc::new(mesh.add(Spec::server(name, role, version)).await?));
        }
        for name in [CLIENT, STRANGER] {
            pods.push(Arc::new(mesh.add(Spec::client(name)).await?));
        }
        let outsider = mesh.add_outsider("outsider").await?;
        let prometheus = Prometheus::start(&mesh, program, SCRAPE).await?;
        let (pods, loads, programs) = (RefCell::new(pods), RefCell::default(), Programs::find()?);
        let scene = Self { mesh, prometheus, pods, loads, outsider, programs, only_slow: Cell::new(false) };
        scene.scrape()?;
        scene.load(CLIENT, &TARGETS, RATE).await?;
        scene.load(STRANGER, &TARGETS[..1], 2.0).await?;
        Ok(scene)
    }

    /// Changes how the requests to reviews are spread over its versions.
    pub(crate) async fn split(&self, v1: u32, v2: u32) -> Result<(), Error> {
        self.mesh.apply("routes.yaml", &split(v1, v2)).await
    }

    /// One more member, several times the traffic, others who are refused more often.
    pub(crate) async fn more(&self) -> Result<(), Error> {
        self.split(1, 3).await?;
        let late = self.mesh.add(Spec::client(LATE)).await?;
        self.pods.borrow_mut().push(Arc::new(late));
        self.scrape()?;
        self.load(LATE, &TARGETS, 5.0 * RATE).await?;
        let loads = self.loads.borrow().clone();
        loads[0].set_rate(5.0 * RATE).await?;
        loads[1].set_rate(20.0).await?;
        // A destination that is new to one whose destinations are counted already.
        self.pod(CLIENT).probe("http://reviews-v1/reviews", &[]).await?;
        Ok(())
    }

    /// Calls fail at either side, one replica in particular.
    pub(crate) async fn fail(&self) -> Result<(), Error> {
        self.mesh
            .apply("fault.yaml", &policy("FaultPolicy", "reviews", "abort: { httpStatus: 503, percentage: 50 }"))
            .await?;
        self.pod("reviews-v1-1").app()?.fail("mode=error&status=500").await
    }

    /// What is called takes seconds, and nothing else is called.
    pub(crate) async fn slow(&self) -> Result<(), Error> {
        self.only_slow.set(true);
        self.mesh.withdraw("fault.yaml").await?;
        for pod in ["reviews-v1-0", "reviews-v1-1", "reviews-v2-0"] {
            self.pod(pod).app()?.fail("mode=delay&delay_ms=4000").await?;
        }
        let loads = self.loads.borrow().clone();
        for load in loads {
            load.set_rate(0.0).await?;
        }
        for caller in [CLIENT, LATE] {
            self.load(caller, &TARGETS[..1], 4.0).await?;
        }
        Ok(())
    }

    /// Whether Prometheus has seen the client's requests, and the control plane.
    pub(crate) async fn is_seen(&self) -> Result<Option<()>, Error> {
        let reviews = "weft_requests_total{direction=\"outbound\",workload=\"client\",route=~\".*reviews.*\"}";
        let (requests, control_plane) =
            tokio::try_join!(self.query(reviews), self.query("weft_control_plane_convergence_seconds_count"))?;
        Ok((!requests.is_empty() && !control_plane.is_empty()).then_some(()))
    }

    /// Whether neither the mesh nor its configuration has changed for as long as queries look back.
    pub(crate) async fn is_quiet(&self) -> Result<Option<()>, Error> {
        let pushes = self.query(&format!("sum(increase(weft_control_plane_pushes_total[{WINDOW}]))")).await?;
        Ok(pushes.iter().any(|sample| sample.value == 0.0).then_some(()))
    }

    /// A few calls in the clear, which are refused: soon, and so not among those that shall be slow.
    pub(crate) async fn call_from_outside(&self) -> Result<(), Error> {
        if self.only_slow.get() {
            return Ok(());
        }
        let target = format!("http://{}:8080/reviews", self.pod("reviews-v2-0").pod().v4());
        probe(&self.outsider, &self.programs.shop, &target, &["--repeat", "5"]).await.map(drop)
    }

    /// A connection on which the client says something: the loads only ask.
    pub(crate) async fn say_something(&self) -> Result<(), Error> {
        let queue = SocketAddr::new(self.mesh.service_addresses("queue").await?[0], 4222);
        let said = self.pod(CLIENT).pod().run(move || say(queue)).await?;
        said.map_err(|error| Error::unexpected(format!("a connection to {queue}"), error.to_string()))
    }

    pub(crate) async fn query(&self, expression: &str) -> Result<Vec<Sample>, Error> {
        self.prometheus.query(expression).await
    }

    pub(crate) async fn rules(&self) -> Result<Value, Error> {
        self.prometheus.rules().await
    }

    async fn load(&self, caller: &str, targets: &[&str], per_second: f64) -> Result<(), Error> {
        let mut by_address = Vec::new();
        for target in targets {
            let service = target.split(['/', ':']).nth(3).unwrap_or_default();
            by_address.extend(self.mesh.by_address(service, &[target]).await?);
        }
        let load = self.pod(caller).load(&by_address, per_second).await?;
        self.loads.borrow_mut().push(Arc::new(load));
        Ok(())
    }

    fn scrape(&self) -> Result<(), Error> {
        self.prometheus.scrape(self.pods.borrow().iter().map(Arc::as_ref))
    }

    fn pod(&self, name: &str) -> Arc<MeshPod> {
        self.pods.borrow().iter().find(|pod| pod.name() == name).unwrap().clone()
    }
}

fn say(to: SocketAddr) -> std::io::Result<()> {
    let mut connection = TcpStream::connect(to)?;
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    connection.write_all(b"PING\r\n")?;
    connection.shutdown(Shutdown::Write)?;
    std::io::copy(&mut connection, &mut std::io::sink()).map(drop)
}

/// Panels that move as soon as there is more traffic.
pub(crate) fn shows_more(panel: &Panel) -> bool {
    !matches!(panel.unit, Unit::Latency | Unit::Share) && !tells_of_failures(panel)
}

/// Panels that move as soon as some of it fails.
pub(crate) fn shows_failures(panel: &Panel) -> bool {
    panel.unit == Unit::Share || tells_of_failures(panel)
}

fn tells_of_failures(panel: &Panel) -> bool {
    ["flag", "Retries", "eject", "Ejections"].iter().any(|word| panel.title.contains(word))
}

fn split(v1: u32, v2: u32) -> String {
    let backends =
        format!("{{ name: reviews-v1, port: 80, weight: {v1} }}, {{ name: reviews-v2, port: 80, weight: {v2} }}");
    let parent = r#"{ group: "", kind: Service, name: reviews, port: 80 }"#;
    let spec = format!("{{ parentRefs: [{parent}], rules: [{{ backendRefs: [{backends}] }}] }}");
    object("gateway.networking.k8s.io/v1 HTTPRoute", "reviews", &spec)
}

/// Failures are hidden for a while, and who fails is left out for a while.
fn traffic() -> String {
    let spec = "loadBalancing: { algorithm: RoundRobin }\n\
                retries: { attempts: 1, conditions: [5xx], budget: { percent: 20, minConcurrency: 1 } }\n\
                outlierDetection: { consecutiveErrors: 5, interval: 1s, baseEjectionTime: 3s, maxEjectionPercent: 50 }";
    ["reviews", "reviews-v1", "reviews-v2"].map(|service| policy("TrafficPolicy", service, spec) + "\n").concat()
}

fn access() -> String {
    let allowed = format!("mesh/{CLIENT}, mesh/{LATE}");
    format!("action: Allow\nrules: [{{ from: [{{ serviceAccounts: [{allowed}] }}] }}]")
}
