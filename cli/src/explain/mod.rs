//! `weft explain`: what becomes of one request, and which object says so.
//!
//! | module | job |
//! |---|---|
//! | [`request`] | the request: method, URL, headers, as the rules see it |
//! | [`held`] | the configuration: what the proxy holds, and what the control plane would give it |
//! | [`decide`] | the decisions, by the proxy's own matchers (`weft-rules`) |
//! | [`origin`] | the object and field behind each decision |
//! | [`show`] | the answer, for people and for programs |

mod decide;
mod held;
mod origin;
mod request;
mod show;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::Args;

use self::held::Held;
use self::origin::Objects;
use self::request::{Asked, Header, Url};
use crate::ask::Address;
use crate::cluster::PodName;
use crate::command::{Format, exit};
use crate::output;
use crate::steer::Wrong;
use crate::steer::args::Steering;

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The request's method
    method: String,
    /// What is called: `http://SERVICE.NAMESPACE[:PORT]/PATH`, or a Service's address
    url: Url,
    /// A header of the request, as curl takes it; repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<Header>,
    /// Who calls: a pod, or a workload of which any pod will do, as NAME.NAMESPACE
    #[arg(long, value_name = "WORKLOAD", add = crate::completion::pods())]
    from: Option<PodName>,
    /// The caller's proxy by its admin address, host:port or unix:PATH, where no cluster can be asked for it
    #[arg(long, value_name = "ADDRESS", env = "WEFT_PROXY", hide_env_values = true)]
    proxy: Option<Address>,
    /// Namespace of the caller, if neither --from nor its proxy says
    #[arg(short, long, add = crate::completion::namespaces())]
    namespace: Option<String>,
    /// The folder of files that the control plane reads, for the names of objects
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["context", "kubeconfig"])]
    folder: Option<std::path::PathBuf>,
    /// The control plane's admin address, host:port or unix:PATH [default: $WEFT_CONTROL_PLANE, then 127.0.0.1:15014, then those in the cluster]
    #[arg(long, value_name = "ADDRESS")]
    control_plane: Option<Address>,
    #[command(flatten)]
    cluster: crate::cluster::Cluster,
    /// Format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Exit code 1 if the request would be refused, or goes nowhere.
pub(crate) async fn run(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    match explain(args).await {
        Err(error) if error.is::<Wrong>() => {
            eprintln!("weft: {error}");
            Ok(ExitCode::from(exit::BAD_NEWS))
        }
        other => other,
    }
}

async fn explain(args: ExplainArgs) -> anyhow::Result<ExitCode> {
    let mut held = Held::find(&args).await?;
    let objects = Objects::read(&args, &held).await?;
    let namespace = held.namespace.clone().or(args.namespace.clone()).unwrap_or_else(|| "default".to_owned());
    let asked = Asked::new(&args.method, &args.url, &args.headers);
    let to = held.destination(&args.url, &namespace)?;
    held.fetch(&to, &namespace).await?;
    let mut answer = decide::decide(&held, &to, &asked)?;
    held.access(&mut answer, &asked).await?;
    objects.trace(&mut answer, &to);
    output::document(args.output, &answer, || show::text(&answer))?;
    Ok(if answer.is_served() { ExitCode::SUCCESS } else { ExitCode::from(exit::BAD_NEWS) })
}

/// The flags as the commands that steer have them, to find the same objects.
fn steering(args: &ExplainArgs) -> Steering {
    Steering {
        namespace: args.namespace.clone(),
        folder: args.folder.clone(),
        control_plane: args.control_plane.clone(),
        apply: false,
        force: false,
        watch: false,
        output: crate::steer::args::Format::Yaml,
        cluster: args.cluster.clone(),
    }
}
