//! The process: what runs on which thread, from start to the end of a drain.
//!
//! The main thread has a runtime for everything that is not the data path: the stream to the control plane, certificates,
//! outlier detection's clock, signals. Workers are threads with a runtime of their own; the admin servers have another.

use crate::accept::listening::{self, Listening};
use crate::accept::{self, Role, socket};
use crate::admin::drain::{self, DrainTrigger};
use crate::admin::{self, Readiness};
use crate::ads::{self, ControlPlaneChannel, Parts, Wants};
use crate::bootstrap::{Bootstrap, Flags, Mode, SidecarConfig};
use crate::dns::Resolver;
use crate::memory;
use crate::observe::Metrics;
use crate::snapshot::Store;
use crate::tls::signing::Renewal;
use crate::tls::state_dir::StateDir;
use crate::tls::{LocalIdentity, signing};
use crate::upstream::Discovery;
use crate::upstream::names;
use crate::upstream::pool::{Pools, TcpNetwork};
use crate::worker::{Settings, Shared, Worker};
use anyhow::Context;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::Instant;
use tracing::{info, warn};

/// How often outlier detection looks at its clusters.
const TICK: Duration = Duration::from_secs(1);

/// How long listeners wait for the endpoints of clusters that are given by name.
const WARM_LIMIT: Duration = Duration::from_secs(15);

/// How long nothing must have come before a draining process ends.
const QUIET: Duration = Duration::from_millis(250);

/// Runs the proxy until a signal ends it.
///
/// # Errors
/// When it cannot start: a port is taken, a folder cannot be made.
pub fn run(bootstrap: Bootstrap, flags: &Flags) -> anyhow::Result<()> {
    raise_open_files();
    let runtime = runtime()?;
    runtime.block_on(serve(bootstrap, flags))
}

/// Takes as many open files as there may be. A request in flight needs two connections; what starts programs often gives them 1,024 files,
/// and leaves it to them to ask for more.
fn raise_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => info!(limit, "open files"),
        Err(error) => warn!("cannot raise the limit of open files (RLIMIT_NOFILE): {error}"),
    }
}

async fn serve(bootstrap: Bootstrap, flags: &Flags) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    for path in &bootstrap.ignored {
        info!(field = %path, "set in the bootstrap, and without effect here");
    }
    let store = Arc::new(Store::new());
    bootstrap.publish(&store);
    let identity = LocalIdentity::new();
    let metrics = Arc::new(Metrics::observing(store.clone()));
    let readiness = Readiness::new();
    let (trigger, drain) = drain::channel();

    let control = match &bootstrap.mode {
        Mode::Sidecar(sidecar) => Some(follow(&bootstrap, sidecar, &store, &identity, &metrics, &readiness)?),
        Mode::Static(Some(subscriptions)) => {
            let channel = ControlPlaneChannel::new(subscriptions.control_plane.clone(), identity.clone());
            let parts = Parts {
                node: bootstrap.node.clone(),
                wants: Wants::All { kinds: subscriptions.kinds.clone(), source: subscriptions.source.clone() },
                store: store.clone(),
                identity: identity.clone(),
                metrics: metrics.clone(),
                ready: Some(readiness.wait_for("configuration")),
            };
            let (client, on_demand, handle) = ads::Client::new(parts, channel, None);
            tokio::spawn(client.run());
            Some((on_demand, handle))
        }
        Mode::Static(None) => None,
    };
    let (on_demand, handle) = control.unzip();

    let sidecar = match &bootstrap.mode {
        Mode::Sidecar(sidecar) => Some(&**sidecar),
        Mode::Static(_) => None,
    };
    let mut settings = Settings { drain_time: Duration::from_secs(flags.drain_seconds), ..Settings::default() };
    if let Some(sidecar) = sidecar {
        settings.workload.clone_from(&sidecar.workload);
        settings.namespace.clone_from(&sidecar.namespace);
        settings.inbound_listener = sidecar.inbound_listener();
    }
    let shared = Arc::new(Shared {
        store: store.clone(),
        on_demand: on_demand.filter(|_| sidecar.is_some()),
        identity: identity.clone(),
        metrics: metrics.clone(),
        settings,
    });
    admin::serve(admin::Parts {
        bootstrap: &bootstrap,
        store: store.clone(),
        identity: identity.clone(),
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        drain: trigger.clone(),
        configuration: handle,
        probes: flags.probes.clone(),
    })
    .context("cannot start the admin server")?;

    let mark = sidecar.and_then(|sidecar| sidecar.mark);
    tokio::spawn(names::resolve(store.clone(), Resolver::system(mark)));
    let listens = readiness.wait_for("listeners");
    if !warm(&store, &mut signals).await {
        info!("asked to end before it listens");
        return Ok(());
    }
    let network = TcpNetwork { mark };
    for worker in 0..flags.concurrency {
        let sockets = listen(&bootstrap, &shared.settings)?;
        let (shared, drain, network) = (shared.clone(), drain.clone(), network.clone());
        std::thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(move || work(shared, drain, network, sockets))
            .context("cannot start a worker thread")?;
    }
    drop(listens);
    tokio::spawn(keep_time(store, metrics, identity));
    memory::give_back();
    info!(version = env!("CARGO_PKG_VERSION"), workers = flags.concurrency, "started");
    signals.received().await;
    end(trigger, Duration::from_secs(flags.drain_seconds)).await;
    Ok(())
}

/// A sidecar's tasks toward its control plane.
fn follow(
    bootstrap: &Bootstrap,
    sidecar: &SidecarConfig,
    store: &Arc<Store>,
    identity: &Arc<LocalIdentity>,
    metrics: &Arc<Metrics>,
    readiness: &Readiness,
) -> anyhow::Result<(ads::OnDemand, ads::Handle)> {
    let state = StateDir::open(&sidecar.state_dir).context("cannot use the state folder")?;
    // What an earlier process left is in force before the first connection.
    signing::restore(identity, Some(&state));
    let channel = ControlPlaneChannel::new(sidecar.control_plane.clone(), identity.clone());
    let renewal =
        Renewal::new(channel.channel(), identity.clone()).with_token_file(&sidecar.token_file).with_state_dir(state);
    tokio::spawn(renewal.run());
    let has_certificate = readiness.wait_for("certificate");
    let waits = identity.clone();
    tokio::spawn(async move {
        waits.ready().await;
        drop(has_certificate);
    });
    let parts = Parts {
        node: bootstrap.node.clone(),
        wants: Wants::Sidecar { inbound_listener: sidecar.inbound_listener() },
        store: store.clone(),
        identity: identity.clone(),
        metrics: metrics.clone(),
        ready: Some(readiness.wait_for("configuration")),
    };
    let (client, on_demand, handle) = ads::Client::new(parts, channel, Some(&sidecar.state_dir));
    tokio::spawn(client.run());
    Ok((on_demand, handle))
}

/// Waits until the clusters that were there from the start have endpoints: as in Envoy, a listener that accepted before that would
/// answer with errors. False where a signal came first.
async fn warm(store: &Store, signals: &mut Signals) -> bool {
    let snapshot = store.load_full();
    let by_name = snapshot.clusters.values().filter(|cluster| matches!(cluster.config().discovery, Discovery::Dns(_)));
    let all = futures_util::future::join_all(by_name.map(|cluster| cluster.warmed()));
    tokio::select! {
        () = signals.received() => return false,
        warmed = tokio::time::timeout(WARM_LIMIT, all) => if warmed.is_err() {
            warn!(limit = ?WARM_LIMIT, "no answer from DNS for some cluster's names; listening without its endpoints");
        },
    }
    true
}

/// One worker's listening sockets from the start; each worker has its own set on the same addresses.
struct Sockets {
    redirected: Vec<(std::net::TcpListener, Role)>,
    listeners: Vec<Listening>,
}

fn listen(bootstrap: &Bootstrap, settings: &Settings) -> anyhow::Result<Sockets> {
    let mut redirected = Vec::new();
    if matches!(bootstrap.mode, Mode::Sidecar(_)) {
        let (out, inbound) = (settings.outbound_port, settings.inbound_port);
        for (address, role) in [
            // On loopback only: on any other address the outbound port would be an open relay.
            (SocketAddr::new(Ipv4Addr::LOCALHOST.into(), out), Role::Outbound),
            (SocketAddr::new(Ipv6Addr::LOCALHOST.into(), out), Role::Outbound),
            (SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), inbound), Role::Inbound),
        ] {
            let socket = socket::listen(address, None).with_context(|| format!("cannot listen on {address}"))?;
            redirected.push((socket, role));
        }
    }
    let listeners: Result<_, _> = bootstrap.listeners.iter().map(Listening::bind).collect();
    Ok(Sockets { redirected, listeners: listeners? })
}

/// A worker thread's life.
fn work(shared: Arc<Shared>, drain: drain::Drain, network: TcpNetwork, sockets: Sockets) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a worker cannot start"),
    };
    let set = LocalSet::new();
    let worker = Worker::new(shared, drain, Rc::new(network));
    set.spawn_local(worker.sweep.clone().run());
    set.spawn_local(Pools::run(Rc::downgrade(&worker)));
    let _entered = runtime.enter();
    set.spawn_local(listening::follow(worker.clone(), sockets.listeners));
    for (listener, role) in sockets.redirected {
        match TcpListener::from_std(listener) {
            Ok(listener) => drop(set.spawn_local(accept::run(worker.clone(), listener, role))),
            Err(error) => return tracing::error!(%error, "a worker cannot listen"),
        }
    }
    runtime.block_on(set.run_until(std::future::pending::<()>()));
}

/// What happens by the clock, for all workers at once.
async fn keep_time(store: Arc<Store>, metrics: Arc<Metrics>, identity: Arc<LocalIdentity>) {
    loop {
        tokio::time::sleep(TICK).await;
        let now = Instant::now();
        for cluster in store.load().clusters.values() {
            cluster.tick(now);
        }
        if let Some(expiry) = identity.expiry().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            metrics.set_certificate_expiry(i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX));
        }
    }
}

/// The signals that ask the process to end. They are listened for before anything else happens: until then, the kernel ends the process
/// at once, or ignores them where it is the first of its container.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        Ok(Self { terminate, interrupt })
    }

    /// Resolves when one comes, at once if it came before.
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Drains, until nothing is at work or the drain time is over.
async fn end(trigger: DrainTrigger, drain_time: Duration) {
    trigger.start();
    info!(busy = trigger.busy(), limit = ?drain_time, "draining");
    if tokio::time::timeout(drain_time, quiet(&trigger)).await.is_err() {
        warn!(busy = trigger.busy(), "drain time is over; connections are cut");
    }
}

/// Resolves when nothing is at work, and nothing came for a while: whoever calls may not know yet that this endpoint goes.
async fn quiet(trigger: &DrainTrigger) {
    loop {
        trigger.idle().await;
        tokio::time::sleep(QUIET).await;
        if trigger.busy() == 0 {
            return;
        }
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Cluster;

    #[tokio::test(start_paused = true)]
    async fn a_signal_ends_the_wait_for_names() {
        let store = Store::new();
        let cluster = "name: app\ntype: STRICT_DNS\nload_assignment: {cluster_name: app, endpoints: [{lb_endpoints: [{endpoint: {address: \
                       {socket_address: {address: app.example, port_value: 80}}}}]}]}";
        let cluster = Cluster::compile(&weft_xds::yaml::from_str(cluster).unwrap(), "").unwrap();
        store.update(|snapshot| drop(snapshot.clusters.insert("app".into(), Arc::new(cluster))));
        let mut signals = Signals::listen().unwrap();
        let started = Instant::now();
        assert!(warm(&store, &mut signals).await, "listens in the end, though nobody resolves the name");
        assert_eq!(started.elapsed(), WARM_LIMIT);
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(!warm(&store, &mut signals).await);
        assert_eq!(started.elapsed(), WARM_LIMIT);
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_allows() {
        let (_, most) = rlimit::Resource::NOFILE.get().unwrap();
        rlimit::Resource::NOFILE.set(most - 1, most).unwrap();
        raise_open_files();
        assert_eq!(rlimit::Resource::NOFILE.get().unwrap(), (most, most));
    }
}
