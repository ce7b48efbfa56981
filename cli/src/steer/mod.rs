//! `weft split`, `retry`, `timeout`, `fault`: traffic policy without writing YAML.
//!
//! | module | job |
//! |---|---|
//! | [`args`] | the flags |
//! | [`target`] | where objects are: a folder, or a cluster; the only part that knows which |
//! | [`folder`], [`cluster`] | the two: reading objects, and changing one at once or not at all |
//! | [`world`] | the objects, and what is found among them |
//! | [`plan`] | what a command means: the object before and after. Pure functions, the same for both targets |
//! | [`diff`] | what differs between two texts |
//! | [`follow`] | `--watch`: what the proxies report of the calls to the Service |
//!
//! Invariant: without `--apply` nothing is changed, and with it the change is made whole or not at all, whenever the command is killed.

pub(crate) mod args;
mod cluster;
mod diff;
mod folder;
mod follow;
mod plan;
pub(crate) mod target;
pub(crate) mod world;

use std::process::ExitCode;

use args::{FaultArgs, Format, RetryArgs, SplitArgs, Steering, TimeoutArgs};
use plan::Plan;
use target::Target;
use world::{FAULT_POLICY, GRPC_ROUTE, HTTP_ROUTE, Kind, SERVICE, TRAFFIC_POLICY, World};

use crate::command::exit;
use crate::output::{self, Colour};

/// What was asked for cannot be done, and what to do instead: one line for whoever asked.
#[derive(Debug)]
pub(crate) struct Wrong(String);

impl Wrong {
    /// An error that is told in one line, without causes.
    pub(crate) fn because(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

pub(crate) async fn split(args: SplitArgs) -> anyhow::Result<ExitCode> {
    let kinds = [SERVICE, HTTP_ROUTE, GRPC_ROUTE];
    run(&args.steering, &kinds, args.service.namespace.as_deref(), |world| plan::split(world, &args)).await
}

pub(crate) async fn retry(args: RetryArgs) -> anyhow::Result<ExitCode> {
    let kinds = [SERVICE, HTTP_ROUTE, GRPC_ROUTE, TRAFFIC_POLICY];
    run(&args.steering, &kinds, args.service.namespace.as_deref(), |world| plan::retry(world, &args)).await
}

pub(crate) async fn timeout(args: TimeoutArgs) -> anyhow::Result<ExitCode> {
    let kinds = [SERVICE, HTTP_ROUTE, GRPC_ROUTE, TRAFFIC_POLICY];
    run(&args.steering, &kinds, args.service.namespace.as_deref(), |world| plan::timeout(world, &args)).await
}

pub(crate) async fn fault(args: FaultArgs) -> anyhow::Result<ExitCode> {
    let kinds = [SERVICE, HTTP_ROUTE, GRPC_ROUTE, FAULT_POLICY];
    run(&args.steering, &kinds, args.service.namespace.as_deref(), |world| plan::fault(world, &args)).await
}

/// Reads, plans, shows, applies and follows: the same for every command.
async fn run(
    args: &Steering,
    kinds: &[Kind],
    namespace: Option<&str>,
    plan: impl FnOnce(&World) -> anyhow::Result<Plan>,
) -> anyhow::Result<ExitCode> {
    match steer(args, kinds, namespace, plan).await {
        Err(error) if error.is::<Wrong>() => {
            eprintln!("weft: {error}");
            Ok(ExitCode::from(exit::BAD_NEWS))
        }
        other => other,
    }
}

async fn steer(
    args: &Steering,
    kinds: &[Kind],
    namespace: Option<&str>,
    plan: impl FnOnce(&World) -> anyhow::Result<Plan>,
) -> anyhow::Result<ExitCode> {
    let target = Target::find(args).await?;
    let world = target.read(kinds, namespace.or(args.namespace.as_deref())).await?;
    let plan = plan(&world)?;
    let change = target.prepare(&plan, args.force)?;
    show(args, &plan)?;
    eprint!("{}", diff::unified(&change.place(), &change.before(), &change.after(), eprints_colour()));
    for note in plan.notes.iter().chain(change.notes()) {
        eprintln!("note: {note}");
    }
    if plan.is_nothing() {
        eprintln!("nothing to change: {} says so already", plan.name());
    } else if args.apply {
        change.make().await?;
        eprintln!("{}", change.done());
    } else {
        eprintln!("nothing has been changed; add --apply");
    }
    if args.watch {
        let proxies = target.proxies().await?;
        follow::until_told(&proxies, &plan.service).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The object as it shall be, on standard output.
fn show(args: &Steering, plan: &Plan) -> anyhow::Result<()> {
    let Some(object) = plan.after.as_ref().map(plan::printable) else { return Ok(()) };
    match args.output {
        Format::Yaml => output::print(&serde_yaml_ng::to_string(&object)?),
        Format::Json => output::print(&(serde_json::to_string_pretty(&object)? + "\n")),
    }
}

fn eprints_colour() -> impl Fn(&str, Colour) -> String {
    use std::io::IsTerminal as _;
    let plain = !std::io::stderr().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    move |text, colour| if plain { text.to_owned() } else { format!("\x1b[{}m{text}\x1b[0m", colour as u8) }
}
