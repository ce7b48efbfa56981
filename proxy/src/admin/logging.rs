//! The log, and changing what it shows while the process runs.

use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::observe::access;

/// What is logged where nobody says otherwise.
const DEFAULT: &str = "info";

/// The process has one log, as it has one standard error.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    handle: reload::Handle<EnvFilter, Registry>,
    current: Mutex<String>,
}

/// Why the log is not as it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is not understood.
    #[error("`{filter}` is not a log filter ({problem}); write info, debug, or weft_proxy::ads=debug,info")]
    Filter {
        /// The filter.
        filter: String,
        /// Why.
        problem: String,
    },
    /// Somebody else logs in this process.
    #[error("the log cannot be set up: {0}")]
    Taken(String),
}

/// Starts to log to standard error: by `level`, else by `RUST_LOG`, else `info`. The access log is off unless named.
///
/// # Errors
/// When the filter is not understood, or the process already logs elsewhere.
pub fn log_to_stderr(level: Option<&str>) -> Result<(), LogError> {
    let text =
        level.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok()).unwrap_or_else(|| DEFAULT.to_owned());
    let (layer, handle) = reload::Layer::new(filter(&text)?);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let subscriber = tracing_subscriber::registry().with(layer).with(lines);
    subscriber.try_init().map_err(|error| LogError::Taken(error.to_string()))?;
    LOG.set(Log { handle, current: Mutex::new(text) }).map_err(|_| LogError::Taken("it was set up before".to_owned()))
}

/// What is logged now; `None` if this process does not log.
pub(super) fn current() -> Option<String> {
    let log = LOG.get()?;
    Some(log.current.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Changes what is logged.
pub(super) fn change(text: &str) -> Result<(), LogError> {
    let new = filter(text)?;
    let log = LOG.get().ok_or_else(|| LogError::Taken("this process does not log".to_owned()))?;
    log.handle.reload(new).map_err(|error| LogError::Taken(error.to_string()))?;
    text.clone_into(&mut log.current.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, LogError> {
    let names_access = text.split(',').any(|directive| directive.trim_start().starts_with(access::TARGET));
    let whole = if names_access { text.to_owned() } else { format!("{text},{}=off", access::TARGET) };
    EnvFilter::try_new(whole).map_err(|error| LogError::Filter { filter: text.to_owned(), problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_access_log_is_off_unless_it_is_named() {
        assert!(filter("debug").unwrap().to_string().contains("access=off"));
        assert!(!filter("info,access=info").unwrap().to_string().contains("access=off"));
    }

    #[test]
    fn a_filter_that_is_not_understood_is_named() {
        let error = filter("weft_proxy=loud").unwrap_err().to_string();
        assert!(error.starts_with("`weft_proxy=loud` is not a log filter"), "{error}");
    }
}
