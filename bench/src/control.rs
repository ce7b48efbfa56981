//! How long an edit takes to reach the last sidecar that it concerns, and what a connected sidecar costs.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Args;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::sync::mpsc;
use weft_control_plane::ResourceType;
use weft_control_plane::identity::JoinKey;
use weft_control_plane::identity::token::Claim;
use weft_xds::names;

use crate::process::Measured;
use crate::subscriber::{Arrival, Target, Wanted, subscribe};
use crate::summary::Summary;

/// The namespace of everything.
const NAMESPACE: &str = "bench";
/// How long anything may take that should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Addresses used of each /24: neither the first nor the last.
const PER_24: usize = 250;
/// Connections that are made at the same time.
const DIALLING: usize = 16;

/// What to measure.
#[derive(Args, Debug, Serialize)]
pub(crate) struct Options {
    /// Services in the mesh.
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Endpoints of each service.
    #[arg(long, default_value_t = 10)]
    endpoints: usize,
    /// Connected sidecars.
    #[arg(long, default_value_t = 2000)]
    subscribers: usize,
    /// Services that each sidecar uses, beside the one that all use.
    #[arg(long, default_value_t = 20)]
    each: usize,
    /// Edits to measure of each kind.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// The program to measure.
    #[arg(long, default_value = "weft-control-plane")]
    control_plane: PathBuf,
    /// Write the result as JSON into this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Report<'a> {
    options: &'a Options,
    /// Until everything was read and served, in seconds.
    start_seconds: f64,
    /// Resident memory without any subscriber, in bytes.
    idle_bytes: u64,
    /// Resident memory per subscriber, in bytes.
    bytes_per_subscriber: f64,
    /// An edit of a service that few use.
    narrow: Edits,
    /// An edit of a service that all use.
    wide: Edits,
}

/// What edits of one kind came to.
#[derive(Debug, Serialize)]
struct Edits {
    /// Sidecars that each edit concerned, on average.
    concerned: f64,
    /// From the write of the file until the last concerned sidecar had the change, in milliseconds.
    last_ms: Summary,
    /// The same for each concerned sidecar.
    each_ms: Summary,
    /// Processor time of the control plane per edit, in milliseconds.
    cpu_ms: f64,
}

/// Measures, and prints a table.
pub(crate) fn run(options: &Options) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(measure(options))
}

async fn measure(options: &Options) -> Result<()> {
    if options.services == 0 || options.subscribers == 0 || options.rounds == 0 || options.endpoints == 0 {
        bail!("--services, --endpoints, --subscribers and --rounds must be at least 1");
    }
    let home = tempfile::tempdir()?;
    let mesh = Mesh { options, folder: home.path().join("mesh"), state: home.path().join("state") };
    std::fs::create_dir(&mesh.folder)?;
    for service in 0..=options.services {
        mesh.write(service, 0)?;
    }
    mesh.write_workloads()?;

    let started = Instant::now();
    let (xds, admin) = (free_address()?, free_address()?);
    let mut control_plane = Measured::start(
        Command::new(&options.control_plane)
            .arg("serve")
            .arg("--folder")
            .arg(&mesh.folder)
            .arg("--state")
            .arg(&mesh.state)
            .args(["--listen", &xds.to_string(), "--admin", &admin.to_string()])
            .env("WEFT_LOG", "error"),
    )?;
    while tokio::net::TcpStream::connect(xds).await.is_err() {
        control_plane.alive()?;
        if started.elapsed() > PATIENCE {
            bail!("the control plane does not listen on {xds}");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let start_seconds = started.elapsed().as_secs_f64();
    let idle_bytes = control_plane.resident()?;

    let roots = Command::new(&options.control_plane).arg("ca").arg("--state").arg(&mesh.state).output()?;
    let target = Target::new(xds, &String::from_utf8(roots.stdout)?)?;
    let (sender, mut arrivals) = mpsc::unbounded_channel();
    let key = JoinKey::open(&mesh.state)?;
    stream::iter(0..options.subscribers)
        .map(|index| {
            let (target, sender, key) = (&target, sender.clone(), &key);
            let wanted = mesh.wanted(index);
            async move {
                let claim = Claim { namespace: NAMESPACE.into(), pod: pod(index) };
                let token = key.issue(&claim, Duration::from_secs(24 * 3600), SystemTime::now())?;
                subscribe(target, index, &token, wanted, sender).await
            }
        })
        .buffer_unordered(DIALLING)
        .try_collect::<Vec<_>>()
        .await?;
    let bytes_per_subscriber = control_plane.resident()?.saturating_sub(idle_bytes) as f64 / options.subscribers as f64;
    eprintln!("{} subscribers are connected; editing", options.subscribers);

    // Turn by turn, so that what else happens on the machine meets both kinds.
    let mut narrow = Tally::default();
    let mut wide = Tally::default();
    for round in 1..=options.rounds {
        let narrow_service = round * 7 % options.services;
        narrow.edit(&mesh, narrow_service, round, &control_plane, &mut arrivals).await?;
        wide.edit(&mesh, options.services, round, &control_plane, &mut arrivals).await?;
    }
    control_plane.alive()?;
    let report = Report {
        options,
        start_seconds,
        idle_bytes,
        bytes_per_subscriber,
        narrow: narrow.result()?,
        wide: wide.result()?,
    };
    print(&report);
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Measurements of one kind of edit.
#[derive(Default)]
struct Tally {
    concerned: usize,
    last_ms: Vec<f64>,
    each_ms: Vec<f64>,
    cpu: Duration,
}

impl Tally {
    async fn edit(
        &mut self,
        mesh: &Mesh<'_>,
        service: usize,
        edition: usize,
        control_plane: &Measured,
        arrivals: &mut mpsc::UnboundedReceiver<Arrival>,
    ) -> Result<()> {
        // What an edit costs beside its pushes (acknowledgements, status) must not be counted for the next.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut missing: HashSet<usize> = mesh.users(service).collect();
        self.concerned += missing.len();
        let expected = names::service_cluster(NAMESPACE, &name(service), 80);
        let cpu = control_plane.cpu()?;
        let written = mesh.write(service, edition)?;
        let mut last = written;
        while !missing.is_empty() {
            let arrival = tokio::time::timeout(PATIENCE, arrivals.recv()).await;
            let Ok(Some(Arrival { subscriber, resource, at })) = arrival else {
                bail!("{} subscribers were never told of edition {edition} of {expected}", missing.len());
            };
            if resource == expected && missing.remove(&subscriber) {
                last = last.max(at);
                self.each_ms.push(milliseconds(at - written));
            }
        }
        self.last_ms.push(milliseconds(last - written));
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.cpu += control_plane.cpu()?.saturating_sub(cpu);
        Ok(())
    }

    fn result(&self) -> Result<Edits> {
        let edits = self.last_ms.len() as f64;
        Ok(Edits {
            concerned: self.concerned as f64 / edits,
            last_ms: Summary::of(&self.last_ms).context("no edit was measured")?,
            each_ms: Summary::of(&self.each_ms).context("no edit concerned anybody; more --subscribers or --each")?,
            cpu_ms: milliseconds(self.cpu) / edits,
        })
    }
}

/// The configuration under measurement. Service number `services` is the one that all use.
struct Mesh<'a> {
    options: &'a Options,
    folder: PathBuf,
    state: PathBuf,
}

impl Mesh<'_> {
    /// Writes a service's file as editors do, by renaming; the moment is that of the rename.
    fn write(&self, service: usize, edition: usize) -> Result<Instant> {
        let name = name(service);
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n  clusterIP: {}\n  \
             ports: [{{name: http, port: 80, targetPort: 8080}}]\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  \
             name: {name}-1\n  namespace: {NAMESPACE}\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: 8080}}]\nendpoints:\n",
            address([198, 19], service),
        );
        for endpoint in 0..self.options.endpoints {
            // The last one is another in each edition: an edit that changes nothing would reach nobody.
            let ip = if endpoint + 1 == self.options.endpoints {
                address([198, 18], 192 * PER_24 + edition % (64 * PER_24))
            } else {
                format!("198.18.{}.{endpoint}", 64 + service % 128)
            };
            writeln!(text, "- {{addresses: [{ip}], conditions: {{ready: true}}}}")?;
        }
        let hidden = self.folder.join(format!(".{name}.new"));
        std::fs::write(&hidden, text)?;
        let now = Instant::now();
        std::fs::rename(hidden, self.folder.join(format!("{name}.yaml")))?;
        Ok(now)
    }

    fn write_workloads(&self) -> Result<()> {
        let mut text = String::new();
        for index in 0..self.options.subscribers {
            write!(
                text,
                "apiVersion: weft.mesh/v1alpha1\nkind: Workload\nmetadata: {{name: {}, namespace: {NAMESPACE}}}\nspec: {{addresses: \
                 [{}], serviceAccount: client, workload: client-{}}}\n---\n",
                pod(index),
                address([198, 18], index),
                index / 2,
            )?;
        }
        Ok(std::fs::write(self.folder.join("clients.yaml"), text)?)
    }

    /// The services that a subscriber uses.
    fn uses(&self, subscriber: usize) -> impl Iterator<Item = usize> {
        let (services, each) = (self.options.services, self.options.each.min(self.options.services));
        (0..each).map(move |n| (subscriber * each + n) % services).chain([services])
    }

    fn users(&self, service: usize) -> impl Iterator<Item = usize> {
        (0..self.options.subscribers).filter(move |subscriber| self.uses(*subscriber).any(|used| used == service))
    }

    /// What a sidecar that calls these services subscribes to.
    fn wanted(&self, subscriber: usize) -> Wanted {
        let services: Vec<_> = self.uses(subscriber).collect();
        let each = |named: &dyn Fn(&str, usize) -> String| -> Vec<String> {
            services.iter().map(|service| named(&name(*service), *service)).collect()
        };
        let listener = |_: &str, service: usize| {
            let text = format!("{}:80", address([198, 19], service));
            text.parse::<SocketAddr>().map_or(text, names::outbound_listener)
        };
        let cluster = |name: &str, _| names::service_cluster(NAMESPACE, name, 80);
        let route = |name: &str, _| names::outbound_route(NAMESPACE, name, 80);
        vec![
            (ResourceType::Listener, each(&listener)),
            (ResourceType::Route, each(&route)),
            (ResourceType::Cluster, each(&cluster)),
            (ResourceType::Endpoint, each(&cluster)),
        ]
    }
}

fn name(service: usize) -> String {
    format!("service-{service}")
}

fn pod(index: usize) -> String {
    format!("client-{index}")
}

fn address(network: [u8; 2], index: usize) -> String {
    format!("{}.{}.{}.{}", network[0], network[1], index / PER_24, index % PER_24 + 2)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn print(report: &Report<'_>) {
    let Options { services, endpoints, subscribers, each, rounds, .. } = report.options;
    println!(
        "{services} services with {endpoints} endpoints; {subscribers} sidecars that use {each} of them and one more; \
         {rounds} edits of each kind"
    );
    println!("start: {:.2} s, {:.1} MiB", report.start_seconds, report.idle_bytes as f64 / 1_048_576.0);
    println!("memory per sidecar: {:.1} KiB", report.bytes_per_subscriber / 1024.0);
    println!(
        "{:24} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "edit → sidecars, ms", "sidecars", "last p50", "last p99", "each p50", "CPU"
    );
    for (what, edits) in [("of what few use", &report.narrow), ("of what all use", &report.wide)] {
        println!(
            "{what:24} {:>9.0} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
            edits.concerned, edits.last_ms.p50, edits.last_ms.p99, edits.each_ms.p50, edits.cpu_ms
        );
    }
}
