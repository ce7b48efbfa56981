//! The process: what runs on which thread, from start to the end of a drain.
//!
//! The main thread has a runtime for everything that is not the data path: the stream to the control plane, certificates,
//! outlier detection's clock, signals. Workers are threads with a runtime of their own; the admin servers have another.

use crate::accept::{self, Role, socket};
use crate::admin::drain::{self, DrainTrigger};
use crate::admin::{self, Readiness};
use crate::ads::{self, ControlPlaneChannel, Parts, Wants};
use crate::bootstrap::{Bootstrap, Flags, Mode, SidecarConfig};
use crate::observe::Metrics;
use crate::snapshot::Store;
use crate::tls::signing::Renewal;
use crate::tls::state_dir::StateDir;
use crate::tls::{LocalIdentity, signing};
use crate::upstream::pool::{Pools, TcpNetwork};
use crate::worker::{Settings, Shared, Worker};
use anyhow::Context;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::Instant;
use tracing::{info, warn};

/// How often outlier detection looks at its clusters.
const TICK: Duration = Duration::from_secs(1);

/// How long nothing must have come before a draining process ends.
const QUIET: Duration = Duration::from_millis(250);

/// Runs the proxy until a signal ends it.
///
/// # Errors
/// When it cannot start: a port is taken, a folder cannot be made.
pub fn run(bootstrap: Bootstrap, flags: &Flags) -> anyhow::Result<()> {
    let runtime = runtime()?;
    runtime.block_on(serve(bootstrap, flags))
}

async fn serve(bootstrap: Bootstrap, flags: &Flags) -> anyhow::Result<()> {
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
                wants: Wants::All(subscriptions.kinds.clone()),
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
    let settings = sidecar.map_or_else(Settings::default, |sidecar| Settings {
        workload: sidecar.workload.clone(),
        namespace: sidecar.namespace.clone(),
        inbound_listener: sidecar.inbound_listener(),
        ..Settings::default()
    });
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

    let network = TcpNetwork { mark: sidecar.and_then(|sidecar| sidecar.mark) };
    for worker in 0..flags.concurrency {
        let sockets = listen(&bootstrap, &shared.settings)?;
        let (shared, drain, network) = (shared.clone(), drain.clone(), network.clone());
        std::thread::Builder::new()
            .name(format!("worker-{worker}"))
            .spawn(move || work(shared, drain, network, sockets))
            .context("cannot start a worker thread")?;
    }
    tokio::spawn(keep_time(store, metrics, identity));
    info!(version = env!("CARGO_PKG_VERSION"), workers = flags.concurrency, "started");
    end(trigger, Duration::from_secs(flags.drain_seconds)).await
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

/// One worker's listening sockets; each worker has its own set on the same addresses.
fn listen(bootstrap: &Bootstrap, settings: &Settings) -> anyhow::Result<Vec<(std::net::TcpListener, Role)>> {
    let mut wanted = Vec::new();
    if matches!(bootstrap.mode, Mode::Sidecar(_)) {
        let (out, inbound) = (settings.outbound_port, settings.inbound_port);
        // On loopback only: on any other address the outbound port would be an open relay.
        wanted.push((SocketAddr::new(Ipv4Addr::LOCALHOST.into(), out), None, Role::Outbound));
        wanted.push((SocketAddr::new(Ipv6Addr::LOCALHOST.into(), out), None, Role::Outbound));
        wanted.push((SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), inbound), None, Role::Inbound));
    }
    for listener in &bootstrap.listeners {
        for address in listener.bind.iter().chain(&listener.also_bind) {
            wanted.push((*address, listener.backlog, Role::Static(listener.name.clone())));
        }
    }
    wanted
        .into_iter()
        .map(|(address, backlog, role)| {
            let listener = socket::listen(address, backlog).with_context(|| format!("cannot listen on {address}"))?;
            Ok((listener, role))
        })
        .collect()
}

/// A worker thread's life.
fn work(shared: Arc<Shared>, drain: drain::Drain, network: TcpNetwork, sockets: Vec<(std::net::TcpListener, Role)>) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a worker cannot start"),
    };
    let set = LocalSet::new();
    let worker = Worker::new(shared, drain, Rc::new(network));
    set.spawn_local(worker.sweep.clone().run());
    set.spawn_local(Pools::run(Rc::downgrade(&worker)));
    let _entered = runtime.enter();
    for (listener, role) in sockets {
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

/// Waits for a signal, then until nothing is at work or the drain time is over.
async fn end(trigger: DrainTrigger, drain_time: Duration) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    trigger.start();
    info!(busy = trigger.busy(), limit = ?drain_time, "draining");
    if tokio::time::timeout(drain_time, quiet(&trigger)).await.is_err() {
        warn!(busy = trigger.busy(), "drain time is over; connections are cut");
    }
    Ok(())
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
