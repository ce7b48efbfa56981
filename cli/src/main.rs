//! `weft`: the command line.
//!
//! | module | command |
//! |---|---|
//! | [`demo`] | `weft demo`: a whole mesh with a sample shop on this machine |
//! | [`status`] | `weft status`: the control plane, and each proxy |
//! | [`config`] | `weft config`: what one proxy knows |
//! | [`check`] | `weft check`: whether a cluster is ready for Weft, and Weft well in it |
//! | [`steer`] | `weft split`, `retry`, `timeout`, `fault`: traffic policy without writing YAML |
//! | [`explain`] | `weft explain`: what becomes of a request, and which object says so |
//! | [`logs`], [`version`] | `weft logs`, `weft version`: of proxies and control planes in a cluster |
//! | [`validate`] | `weft validate`: the control plane's validation, without a control plane |
//! | [`agent`] | `weft agent`: key, certificate and trust bundle in files, for an Envoy or a gRPC application |
//! | [`inject`] | `weft inject`, `weft uninject`: files with and without sidecars |
//! | [`install`] | `weft install`, `weft uninstall`: manifests for Kubernetes |
//! | [`completion`] | `weft completion`: what shells complete, names of pods too |
//! | [`command`] | the flags of all of them |
//! | [`ask`] | HTTP questions to a control plane or a proxy |
//! | [`cluster`] | a Kubernetes cluster, asked by kubectl |
//! | [`output`] | tables, JSON, YAML, colour |
//! | [`mod@reference`] | docs/reference/cli.md, from the flags |
//!
//! Invariant: standard output carries data only; messages and errors go to standard error.

mod agent;
mod ask;
mod check;
mod cluster;
mod command;
mod completion;
mod config;
mod demo;
mod explain;
mod inject;
mod install;
mod logs;
mod output;
mod reference;
mod status;
mod steer;
mod validate;
mod version;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use self::command::{Cli, Command, Page, exit};

fn main() -> ExitCode {
    completion::answer();
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft: {}", in_one_line(&error));
            ExitCode::from(exit::UNKNOWN)
        }
    }
}

/// Every command gets its runtime only here: `weft demo` must start before the process has a second thread.
fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(args),
        Command::Status(args) => wait_for(status::run(args)),
        Command::Config(args) => wait_for(config::run(args)),
        Command::Identity(args) => wait_for(config::identity(args)),
        Command::Logs(args) => logs::run(&args),
        Command::Check(args) => wait_for(check::run(args)),
        Command::Split(args) => wait_for(steer::split(args)),
        Command::Retry(args) => wait_for(steer::retry(args)),
        Command::Timeout(args) => wait_for(steer::timeout(args)),
        Command::Fault(args) => wait_for(steer::fault(args)),
        Command::Explain(args) => wait_for(explain::run(args)),
        Command::Validate(args) => validate::run(&args),
        Command::Completion { shell } => completion::script(shell),
        Command::Version(args) => wait_for(version::run(args)),
        Command::Agent(args) => agent::run(args),
        Command::Inject(args) => inject::inject(&args),
        Command::Uninject(args) => inject::uninject(&args),
        Command::Install(args) => install::run(&args),
        Command::Uninstall(args) => install::uninstall(&args),
        Command::Reference { page, into } => {
            if let Some(folder) = into {
                check::write_pages(&folder)?;
            }
            output::print(&match page {
                Page::Cli => reference::markdown(),
                Page::Install => install::reference::markdown(),
                Page::Annotations => install::reference::annotations(),
                Page::Checks => check::markdown(),
                Page::Crds => install::reference::all_crds()?,
            })?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn wait_for(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?.block_on(work)
}

/// An error and its causes, each said once: many of our errors say their cause themselves.
pub(crate) fn in_one_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// `weft … | head` is no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let cause = || std::io::Error::other("disk full");
        let said = anyhow::Error::new(cause()).context("cannot write a.yaml: disk full. Make room");
        assert_eq!(in_one_line(&said), "cannot write a.yaml: disk full. Make room");
        let unsaid = anyhow::Error::new(cause()).context("cannot write a.yaml");
        assert_eq!(in_one_line(&unsaid), "cannot write a.yaml: disk full");
    }
}
