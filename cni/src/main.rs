//! `weft-cni`: the CNI plugin, when a runtime calls it (CNI_COMMAND is set); otherwise the programs of a pod's init containers.

mod init;
mod options;
mod plugin;
mod validate;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use options::RedirectOptions;

#[derive(Debug, Parser)]
#[command(name = "weft-cni", version, about = "Redirects a pod's connections into its sidecar")]
#[command(
    after_help = "As a CNI plugin it is called by the container runtime, with CNI_COMMAND and its other variables set."
)]
enum Command {
    /// Redirects the pod it runs in; needs the capability NET_ADMIN
    Init(RedirectOptions),
    /// Proves that the pod it runs in is redirected; needs no privileges, and may not run as the sidecar's user
    Validate {
        #[command(flatten)]
        redirect: RedirectOptions,
        /// How long to wait for a redirection that is not there yet, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
    },
}

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        let mut output = String::new();
        let done = plugin::run(&plugin::Environment::of_process(), std::io::stdin(), &mut output);
        // A runtime that does not listen learns of the failure by the exit code.
        let _ = std::io::stdout().write_all(output.as_bytes());
        return if done { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let result = match Command::parse() {
        Command::Init(options) => {
            options.redirect().and_then(|redirect| init::run(&redirect)).map(|()| ExitCode::SUCCESS)
        }
        Command::Validate { redirect, timeout } => {
            redirect.redirect().map(|redirect| validate::run(&redirect, Duration::from_secs(timeout)))
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("weft-cni: {error:#}");
        ExitCode::FAILURE
    })
}
