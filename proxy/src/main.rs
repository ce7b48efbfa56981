//! `weft-proxy`: see `weft-proxy --help`.

use std::process::ExitCode;

use anyhow::Context as _;
use weft_proxy::bootstrap::{Bootstrap, Command, Config, Flags, USAGE};
use weft_proxy::{admin, run};

fn main() -> ExitCode {
    let command = match Command::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("weft-proxy: {error}");
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Help => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Command::Version => {
            println!("weft-proxy {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Command::Drain(config) => admin::drain_running(config.as_deref()),
        Command::Wait(config) => admin::wait_until_ready(config.as_deref()),
        Command::Run(flags) => start(&flags),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-proxy: {}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, each said once: many of our errors say their cause themselves.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn start(flags: &Flags) -> anyhow::Result<()> {
    let bootstrap = match &flags.config {
        Config::File(file) => Bootstrap::read(file)?,
        Config::Inline(text) => Bootstrap::parse(text).context("--config-yaml")?,
    };
    if flags.validate {
        return Ok(());
    }
    admin::log_to_stderr(flags.log_level.as_deref())?;
    run::run(bootstrap, flags)
}
