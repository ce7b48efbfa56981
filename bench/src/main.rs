//! `weft-bench`: what Weft costs, measured.

mod control;
mod process;
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
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Control(options) => control::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
