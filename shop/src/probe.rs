//! One call, its answer as one line of JSON on stdout, its verdict as the exit code.

use std::process::ExitCode;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::json;

use crate::client::{Caller, Extras, Target};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to call: http://, h2c://, grpc://, tcp:// or ws://, with a method before it if it is not GET
    target: Target,
    /// A header to send, "name: value"; may be repeated
    #[arg(short = 'H', long = "header", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// A body to send
    #[arg(long, default_value = "")]
    body: String,
    /// Seconds to wait for the whole answer
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
    /// Calls to make one after the other on one connection; a line for each
    #[arg(long, default_value_t = 1)]
    repeat: u32,
}

/// Exits 0 if every call was answered with success, 1 otherwise.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let timeout = Duration::try_from_secs_f64(args.timeout)?;
    let extras = Extras { headers: args.headers, body: args.body.into() };
    let mut caller = Caller::new(args.target, extras, timeout);
    let mut all_ok = true;
    for _ in 0..args.repeat {
        let outcome = caller.call().await;
        all_ok &= outcome.failure.is_none();
        println!(
            "{}",
            json!({
                "ok": outcome.failure.is_none(),
                "target": caller.target().to_string(),
                "protocol": outcome.protocol,
                "status": outcome.status,
                "headers": outcome.headers,
                "body": String::from_utf8_lossy(&outcome.body),
                "error": outcome.failure,
                "ms": outcome.elapsed.as_secs_f64() * 1000.0,
            })
        );
    }
    Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Parses "name: value".
pub(crate) fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("{text:?} is not \"name: value\""))?;
    Ok((
        name.trim().parse().map_err(|_| format!("{name:?} is no header name"))?,
        value.trim().parse().map_err(|_| format!("{value:?} is no header value"))?,
    ))
}
