//! `weft demo`: a shop of microservices behind real sidecars and a real control plane, on this machine.
//!
//! | module | job |
//! |---|---|
//! | [`shop`] | what runs, in a mesh of [`weft_local_mesh`] |
//! | [`folder`] | the shop's YAML, and edits of it |
//! | [`observe`], [`traffic`] | what is seen from the outside, computed from sidecars' statistics |
//! | [`table`] | the live table |
//! | [`story`], [`report`] | `--once`: seven steps, each measured, each with a counter-proof |
//! | [`relay`] | a port of this machine that leads to the control plane's status |

mod folder;
pub(crate) mod observe;
mod relay;
mod report;
mod shop;
mod story;
mod table;
mod traffic;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use weft_local_mesh::{Prometheus, Settings};
use weft_sandbox::{Mode, Published};

use self::relay::Relay;
use self::report::{Report, StepReport};
use self::shop::Shop;
use self::story::{Pace, Story};
use self::table::Head;

/// Requests per second of the table's load.
const RATE: f64 = 60.0;

/// How often Prometheus scrapes: so often that a dashboard follows an edit.
const SCRAPE: Duration = Duration::from_secs(2);

/// Flags of `weft demo`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Run the story once instead of showing the table: seven steps in about two minutes, each measured. Exit code 0
    /// only if all were observed
    #[arg(long)]
    once: bool,
    /// For a machine too slow for 100 requests per second: a sixth of the story's load, and more time for everything;
    /// rates and latencies are told and nothing is asked of them, all else is
    #[arg(long, requires = "once")]
    slow: bool,
    /// Format of the story's result
    #[arg(short, long, value_enum, default_value_t = Output::Text, requires = "once")]
    output: Output,
    /// Only these steps of the story
    #[arg(long = "step", value_name = "NAME", requires = "once", value_parser = story::names())]
    steps: Vec<String>,
    /// Port of this machine's loopback on which the shop's page is served
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Start a Prometheus (the Debian package `prometheus`) that scrapes everything, on port 9090 of this machine's
    /// loopback; manifests/grafana holds dashboards for it
    #[arg(long, conflicts_with = "once")]
    prometheus: bool,
    /// Keep the logs of all processes in this folder [default: removed at the end]
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

impl Output {
    /// Shows a step as soon as it has been told: on standard output, unless that is for JSON.
    fn show(self, step: &StepReport) {
        match self {
            Self::Text => print!("{step}"),
            Self::Json => eprint!("{step}"),
        }
    }
}

/// Runs the demo. Call it before the process has a second thread: without root it moves into namespaces of its own.
///
/// # Errors
/// What this machine lacks, or which process did not start, and what to do about it.
pub(crate) fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let prometheus = args.prometheus.then(Prometheus::find).transpose()?;
    weft_sandbox::enter(Mode::Auto)?;
    if let Some(logs) = &args.logs {
        std::fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let end = End::listen()?;
        if args.once { once(args, end).await } else { watch(args, prometheus, end).await }
    })
}

async fn once(args: DemoArgs, mut end: End) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let logs = args.logs.map(std::path::absolute).transpose()?;
    let pace = if args.slow { Pace::Slow } else { Pace::Full };
    eprintln!("starting the shop …");
    let shop = tokio::select! {
        shop = Shop::start(logs, story::settings(pace)) => shop?,
        () = end.asked_for() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let up = began.elapsed();
    eprintln!("{} sidecars are up after {:.1} s", shop.pods().len(), up.as_secs_f64());
    let steps = tokio::select! {
        steps = story::tell(Story { shop: &shop, pace }, &args.steps, |step| args.output.show(step)) => Some(steps),
        () = end.asked_for() => None,
    };
    shop.stop().await;
    let Some(steps) = steps else { return Ok(ExitCode::from(INTERRUPTED)) };
    let report = Report::new(steps, up, began.elapsed());
    match args.output {
        Output::Text => println!("{}", report.summary()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The exit code of a program that Ctrl-C ended, by the shells' convention.
const INTERRUPTED: u8 = 130;

async fn watch(args: DemoArgs, prometheus: Option<PathBuf>, mut end: End) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let logs = args.logs.map(std::path::absolute).transpose()?;
    eprintln!("starting the shop …");
    let shop = tokio::select! {
        shop = Shop::start(logs, Settings::default()) => shop?,
        () = end.asked_for() => return Ok(ExitCode::SUCCESS),
    };
    let web = SocketAddr::new(shop.replica("web")?.pod().v4(), 8080);
    let sandbox = shop.mesh.sandbox();
    let page = relay::free_or_any(args.port, |on| sandbox.publish(on, web))?;
    let status = Relay::start(sandbox, shop.control_plane().pod(), 15014)?;
    let metrics = match prometheus {
        Some(program) => Some(metrics(&shop, &program).await?),
        None => None,
    };
    shop.everything.set_rate(RATE).await?;
    let mut head = Head {
        lines: vec![
            ("Shop", format!("http://{}/   (open it in a browser)", page.address())),
            ("Control plane", format!("http://{}/status   (or: weft status)", status.address())),
            ("Folder to edit", shop.control_plane().folder().path().display().to_string()),
            ("Try", "in routes.yaml there, make both weights 50, save, and watch reviews-v2 below".to_owned()),
            ("Logs", sandbox.log_directory().display().to_string()),
            ("Up after", format!("{:.1} s, {} sidecars", began.elapsed().as_secs_f64(), shop.pods().len())),
        ],
    };
    if let Some((_, port)) = &metrics {
        let at = format!("http://{}/   (dashboards for Grafana: manifests/grafana)", port.address());
        head.lines.insert(2, ("Prometheus", at));
    }
    let shown = table::show(&shop, &head, &mut end).await;
    drop((page, status, metrics));
    shop.stop().await;
    eprintln!("the demo has ended, nothing is left behind");
    shown.map(|()| ExitCode::SUCCESS)
}

/// A Prometheus that scrapes the shop, and the port of this machine that leads to it.
async fn metrics(shop: &Shop, program: &Path) -> anyhow::Result<(Prometheus, Published)> {
    let prometheus = Prometheus::start(&shop.mesh, program, SCRAPE).await?;
    let pods = shop.pods();
    prometheus.scrape(pods.iter().map(Arc::as_ref))?;
    let port = relay::free_or_any(9090, |on| shop.mesh.sandbox().publish(on, prometheus.address()))?;
    Ok((prometheus, port))
}

/// The signals that ask to end, heard from when this is made: one that comes while nobody waits for it is not lost.
struct End {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl End {
    fn listen() -> anyhow::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self { interrupt: interrupt?, terminate: terminate?, hangup: hangup? })
    }

    /// Waits for one of them.
    async fn asked_for(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
