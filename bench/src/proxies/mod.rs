//! What a request costs that goes through two proxies with mutual TLS between them: Weft's beside Envoy's and HAProxy's.
//!
//! All pairs run all the time, and each round asks every one of them, so that what else happens on the machine meets all alike: ratios of
//! one round are worth more than figures.

mod answer;
mod certificates;
mod load;
mod machine;
mod pair;
mod plot;
mod report;
mod verdict;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::process::Pid;
use crate::summary::Summary;
use machine::Machine;
use pair::{Inside, Pair, Peer, Program};
use report::{Measurement, Report, Round, Settings};

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Rounds; each measures every pair.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Connections to a pair's entry.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests per second where the rate is fixed.
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// Seconds of each measurement at that rate.
    #[arg(long, default_value_t = 4.0)]
    rate_seconds: f64,
    /// Seconds of each measurement of as much as goes.
    #[arg(long, default_value_t = 2.0)]
    saturated_seconds: f64,
    /// The proxy to measure.
    #[arg(long, default_value = "weft-proxy")]
    weft: PathBuf,
    /// Envoy, to compare with.
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// HAProxy, to compare with.
    #[arg(long)]
    haproxy: Option<PathBuf>,
    /// The application's program.
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// A further pair that runs already, as NAME=PORT:PID[,PID...]: its entry on 127.0.0.1, and the processes whose cost is counted. Send its
    /// requests on to --application.
    #[arg(long, value_name = "NAME=PORT:PID,PID")]
    peer: Vec<Peer>,
    /// Port of the application on 127.0.0.1 (default: one that is free).
    #[arg(long)]
    application: Option<u16>,
    /// Measure nothing: show what this file has, which was kept by --keep.
    #[arg(long)]
    from: Option<PathBuf>,
    /// Keep every round in `proxies.json`, and a plot in `proxies.svg`, in this folder.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Put the table between its marks in this page.
    #[arg(long)]
    page: Option<PathBuf>,
}

/// Measures, and shows what came of it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let report = match &options.from {
        Some(file) => Report::read(file)?,
        None => measure(options)?,
    };
    if let Some(folder) = &options.keep {
        fs::create_dir_all(folder)?;
        report.write(&folder.join("proxies.json"))?;
        fs::write(folder.join("proxies.svg"), plot::svg(&report))?;
    }
    let text = report.markdown();
    if let Some(page) = &options.page {
        report::replace(page, &text)?;
    }
    println!("{text}");
    Ok(())
}

fn measure(options: &Options) -> Result<Report> {
    if options.rounds == 0 || options.connections == 0 || options.rate <= 0.0 {
        bail!("--rounds and --connections must be at least 1, and --rate above 0");
    }
    let machine = Machine::this();
    let home = tempfile::tempdir()?;
    certificates::write(&home.path().join("tls"))?;
    let application = match options.application {
        Some(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        None => pair::free_address()?,
    };
    let _nginx = pair::application(&options.nginx, home.path(), application)?;
    let programs = programs(options)?;
    let mut pairs = vec![Pair::direct(application)];
    for inside in Inside::ALL {
        for program in &programs {
            pairs.push(Pair::start(program, inside, home.path(), application)?);
        }
    }
    for peer in &options.peer {
        let mut pair = Pair::of(peer);
        pair.wait()?;
        pairs.push(pair);
    }
    let mut measurements: Vec<_> =
        pairs.iter().map(|pair| Measurement { pair: pair.name.clone(), rounds: Vec::new() }).collect();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for turn in 0..pairs.len() {
            // Each round begins with another pair: none always follows the same one.
            let at = (round + turn) % pairs.len();
            let measured = measure_pair(&pairs[at], options);
            measurements[at].rounds.push(measured.with_context(|| format!("measuring {}", pairs[at].name))?);
        }
    }
    let mut versions: Vec<_> = programs.into_iter().map(|program| program.version).collect();
    versions.push(pair::version_of(&options.nginx, "-v")?);
    let settings = Settings {
        rate: options.rate,
        connections: options.connections,
        rate_seconds: options.rate_seconds,
        saturated_seconds: options.saturated_seconds,
    };
    Ok(Report { machine, versions, settings, measurements })
}

/// Weft's, and those of others that were named.
fn programs(options: &Options) -> Result<Vec<Program>> {
    let mut programs = vec![Program::weft(&options.weft)?];
    if let Some(path) = &options.haproxy {
        programs.push(Program::haproxy(path)?);
    }
    if let Some(path) = &options.envoy {
        programs.push(Program::envoy(path)?);
    }
    Ok(programs)
}

fn measure_pair(pair: &Pair, options: &Options) -> Result<Round> {
    // Connections between the proxies, buffers and caches are as they are in the middle of work.
    load::saturating(pair.entry, options.connections, Duration::from_millis(300))?;

    let before = cpu(&pair.pids)?;
    let duration = Duration::from_secs_f64(options.rate_seconds);
    let latencies = load::at_rate(pair.entry, options.connections, options.rate, duration)?;
    let cpu_at_rate = cpu(&pair.pids)? - before;
    let requests = latencies.len() as f64;
    let latencies: Vec<f64> = latencies.iter().map(|latency| latency.as_secs_f64() * 1000.0).collect();
    let latency = Summary::of(&latencies).context("no request was sent: longer --rate-seconds")?;

    let own = Pid(std::process::id());
    let (before, own_before) = (cpu(&pair.pids)?, own.cpu()?);
    let duration = Duration::from_secs_f64(options.saturated_seconds);
    let answered = load::saturating(pair.entry, options.connections, duration)? as f64;
    let cpu_saturated = cpu(&pair.pids)? - before;
    let own = own.cpu()? - own_before;

    let sum = |of: fn(Pid) -> Result<u64>| pair.pids.iter().map(|pid| of(*pid)).sum::<Result<u64>>();
    let micros = |time: Duration, requests: f64| time.as_secs_f64() * 1e6 / requests;
    Ok(Round {
        p50_ms: latency.p50,
        p90_ms: latency.p90,
        p99_ms: latency.p99,
        rate_cpu_us: micros(cpu_at_rate, requests),
        saturated_cpu_us: micros(cpu_saturated, answered),
        saturated_per_second: answered / options.saturated_seconds,
        load_cpu_us: micros(own, answered),
        resident_mib: sum(Pid::resident)? as f64 / 1_048_576.0,
        anonymous_mib: sum(Pid::anonymous)? as f64 / 1_048_576.0,
    })
}

fn cpu(pids: &[Pid]) -> Result<Duration> {
    pids.iter().map(|pid| pid.cpu_of_threads()).sum()
}
