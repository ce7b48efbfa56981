//! Load at a steady rate, whatever the answers: an open loop.
//!
//! A pacer gives out one permit per call due; each of the connections takes a permit, makes the call, records
//! how it went. If all are busy, calls that become due are counted as skipped rather than sent later in a
//! burst, so a stall shows as a gap and not as a peak.

mod control;
mod stats;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::stats::Book;
use crate::admin;
use crate::client::{Caller, Extras, Target};

/// How often the pacer gives out permits.
const TICK: Duration = Duration::from_millis(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to call: http://, h2c://, grpc://, tcp:// or ws://, with a method before it if it is not GET.
    /// Several take turns
    #[arg(long = "target", required = true)]
    targets: Vec<Target>,
    /// Calls per second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Connections per target, and so the calls that may be in flight
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds to run [default: until SIGTERM]
    #[arg(long)]
    duration: Option<f64>,
    /// A header to send, "name: value"; may be repeated
    #[arg(short = 'H', long = "header", value_parser = crate::probe::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Seconds after which a call has failed
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
    /// Serve live control there: a loopback address with port, or unix:PATH
    #[arg(long)]
    control: Option<admin::Address>,
    /// Print only the summary, not a line each second
    #[arg(long)]
    quiet: bool,
}

/// What the tasks share.
struct Shared {
    book: Mutex<Book>,
    rate: Mutex<f64>,
    permits: Semaphore,
    stop: CancellationToken,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rate(&self) -> f64 {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_rate(&self, rate: f64) {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner) = rate;
    }
}

/// Exits 0 if no call failed, 1 otherwise.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let timeout = Duration::try_from_secs_f64(args.timeout)?;
    let shared = Arc::new(Shared {
        book: Mutex::new(Book::new(Instant::now())),
        rate: Mutex::new(args.rate.max(0.0)),
        permits: Semaphore::new(0),
        stop: CancellationToken::new(),
    });
    if let Some(address) = &args.control {
        let bound = admin::serve(address, control::routes(shared.clone())).await?;
        println!("{}", serde_json::json!({ "control": bound }));
    }
    let extras = Extras { headers: args.headers, ..Extras::default() };
    let connections = args.connections.max(1);
    let workers: Vec<_> = (0..connections)
        .map(|number| {
            let mut callers: Vec<_> =
                args.targets.iter().map(|target| Caller::new(target.clone(), extras.clone(), timeout)).collect();
            // Each starts at another target, so that all get their share from the first second on.
            let first = number % callers.len();
            callers.rotate_left(first);
            tokio::spawn(work(shared.clone(), callers))
        })
        .collect();
    let pacer = tokio::spawn(pace(shared.clone(), connections));
    let printer = tokio::spawn(print_seconds(shared.clone(), args.quiet));

    let end = async {
        match args.duration {
            Some(seconds) => tokio::time::sleep(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)).await,
            None => std::future::pending().await,
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        () = end => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = shared.stop.cancelled() => {}
    }
    shared.stop.cancel();
    pacer.await?;
    for worker in workers {
        worker.await?;
    }
    printer.await?;
    let mut summary = shared.book().total.report(Instant::now());
    summary["summary"] = true.into();
    println!("{summary}");
    Ok(if summary["failed"] == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn work(shared: Arc<Shared>, mut callers: Vec<Caller>) {
    for turn in (0..callers.len()).cycle() {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            // Never closed, so never an error.
            permit = shared.permits.acquire() => permit.into_iter().for_each(|permit| permit.forget()),
        }
        let caller = &mut callers[turn];
        let started = Instant::now();
        let outcome = caller.call().await;
        let target = caller.target().to_string();
        shared.book().record(&target, &outcome, started, Instant::now());
    }
}

async fn pace(shared: Arc<Shared>, connections: usize) {
    let mut tick = tokio::time::interval(TICK);
    let mut last = Instant::now();
    let mut due = 0.0_f64;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now = Instant::now();
        due += shared.rate() * now.duration_since(last).as_secs_f64();
        last = now;
        let whole = due.floor();
        due -= whole;
        // Permits nobody took are calls no connection was free for; those of two ticks may wait their turn.
        let most = connections.max(2 * whole as usize);
        let room = most.saturating_sub(shared.permits.available_permits());
        let given = (whole as usize).min(room);
        shared.permits.add_permits(given);
        let skipped = whole as u64 - given as u64;
        if skipped > 0 {
            shared.book().skip(skipped);
        }
    }
}

async fn print_seconds(shared: Arc<Shared>, quiet: bool) {
    let mut tick =
        tokio::time::interval_at(tokio::time::Instant::now() + Duration::from_secs(1), Duration::from_secs(1));
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let line = shared.book().end_second(Instant::now());
        if !quiet {
            println!("{line}");
        }
    }
}
