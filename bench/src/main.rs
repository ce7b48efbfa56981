//! `weft-bench`: what Weft costs, measured.

mod control;
mod process;
mod proxies;
mod subscriber;
mod summary;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Weft.
#[derive(Parser)]
#[command(name = "weft-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The control plane: many services, many connected sidecars, one edit at a time.
    Control(control::Options),
    /// The data plane: pairs of proxies with mutual TLS between them, beside their peers.
    Proxies(proxies::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Control(options) => control::run(&options),
        Command::Proxies(options) => proxies::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
