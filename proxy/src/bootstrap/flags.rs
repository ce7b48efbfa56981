//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::admin::Probes;

/// What `--help` prints.
pub const USAGE: &str = "\
weft-proxy: Weft's data plane

Usage:
  weft-proxy -c FILE [--validate]     run with an Envoy bootstrap (YAML or JSON)
  weft-proxy drain [-c FILE]          tell the proxy that runs with FILE to say goodbye on every connection
  weft-proxy wait [-c FILE]           wait until the proxy that runs with FILE is ready

Options:
  -c, --config-path FILE    the bootstrap
      --config-yaml TEXT    the bootstrap itself, in place of a file
      --validate            check the bootstrap and exit; also `--mode validate`
      --concurrency N       worker threads (default 1)
      --drain-time SECONDS  longest drain after SIGTERM (default 30); also `--drain-time-s`
      --probes JSON         the application's probes, which are answered on port 15020 (written by injection)
  -l, --log-level LEVEL     as RUST_LOG: info, debug, weft_proxy::ads=debug, … (default info)
  -h, --help                this text
  -V, --version             the version

Exit status: 0 after a drain, when --validate finds nothing, or when the proxy that was asked drains or is ready; 1 when the bootstrap is
refused, the proxy cannot start, or the one that was asked does not drain, or is not ready in ten minutes; 2 when the command line is not
understood.
";

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run, or only validate.
    Run(Flags),
    /// Ask the proxy that runs with this bootstrap to drain.
    Drain(Option<PathBuf>),
    /// Wait until the proxy that runs with this bootstrap is ready.
    Wait(Option<PathBuf>),
    /// Print [`USAGE`].
    Help,
    /// Print the version.
    Version,
}

/// Where the bootstrap is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// In a file.
    File(PathBuf),
    /// In the command line, where an injector puts it: nothing has to be mounted or written first.
    Inline(String),
}

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// The bootstrap.
    pub config: Config,
    /// Check the bootstrap and exit.
    pub validate: bool,
    /// Worker threads, one or more.
    pub concurrency: usize,
    /// Longest drain after SIGTERM, in seconds.
    pub drain_seconds: u64,
    /// What to log.
    pub log_level: Option<String>,
    /// The application's probes.
    pub probes: Probes,
}

/// A command line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; see weft-proxy --help")]
pub struct UsageError(String);

impl Command {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// Names the argument that is not understood.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut arguments = arguments.into_iter().peekable();
        // What is only asked of a proxy that runs.
        let asks: Option<fn(Option<PathBuf>) -> Self> = match arguments.peek().and_then(|argument| argument.to_str()) {
            Some("drain") => Some(Self::Drain),
            Some("wait") => Some(Self::Wait),
            _ => None,
        };
        let runs = asks.is_none();
        if !runs {
            arguments.next();
        }
        let (mut config, mut inline, mut validate, mut log_level) = (None, None, false, None);
        let (mut concurrency, mut drain_seconds, mut probes) = (1, 30, Probes::default());
        while let Some(argument) = arguments.next() {
            let (name, attached) = split(&argument);
            let mut value = || {
                let value = attached.clone().or_else(|| arguments.next());
                value.ok_or_else(|| UsageError(format!("{name} needs a value")))
            };
            match name.as_str() {
                "-c" | "--config-path" => config = Some(PathBuf::from(value()?)),
                "--config-yaml" if runs => inline = Some(text(value()?)?),
                "-h" | "--help" => return Ok(Self::Help),
                "-V" | "--version" => return Ok(Self::Version),
                "--validate" if runs => validate = true,
                "--mode" if runs => match text(value()?)?.as_str() {
                    "validate" => validate = true,
                    "serve" => {}
                    other => return Err(UsageError(format!("--mode {other} is not known; give serve or validate"))),
                },
                "--concurrency" if runs => concurrency = number(&name, value()?, 1)?,
                "--drain-time" | "--drain-time-s" if runs => drain_seconds = number(&name, value()?, 0)?,
                "--probes" if runs => {
                    let json = text(value()?)?;
                    probes = Probes::parse(&json).map_err(|error| UsageError(format!("--probes {json}: {error}")))?;
                }
                "-l" | "--log-level" if runs => log_level = Some(text(value()?)?),
                _ => return Err(UsageError(format!("{} is not known", argument.display()))),
            }
        }
        if let Some(asks) = asks {
            return Ok(asks(config));
        }
        let config = match (config, inline) {
            (Some(file), None) => Config::File(file),
            (None, Some(text)) => Config::Inline(text),
            (None, None) => return Err(UsageError("-c FILE is missing".to_owned())),
            // Envoy merges the two.
            (Some(_), Some(_)) => return Err(UsageError("-c and --config-yaml exclude each other".to_owned())),
        };
        let concurrency = usize::try_from(concurrency).unwrap_or(usize::MAX);
        Ok(Self::Run(Flags { config, validate, concurrency, drain_seconds, log_level, probes }))
    }
}

/// `--name=value` in two.
fn split(argument: &OsString) -> (String, Option<OsString>) {
    match argument.to_str().and_then(|text| text.split_once('=')) {
        Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.into())),
        _ => (argument.to_string_lossy().into_owned(), None),
    }
}

fn text(value: OsString) -> Result<String, UsageError> {
    value.into_string().map_err(|value| UsageError(format!("{} is not UTF-8", value.display())))
}

fn number(name: &str, value: OsString, least: u64) -> Result<u64, UsageError> {
    let value = text(value)?;
    match value.parse() {
        Ok(number) if number >= least => Ok(number),
        _ => Err(UsageError(format!("{name} {value} is not a number of {least} or more"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, UsageError> {
        Command::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn reads_what_envoy_would_read() {
        let file = Config::File("b.yaml".into());
        let probes = Probes::default();
        let flags = Flags { config: file, validate: false, concurrency: 1, drain_seconds: 30, log_level: None, probes };
        assert_eq!(parse("-c b.yaml"), Ok(Command::Run(flags.clone())));
        assert_eq!(parse("--config-path=b.yaml --mode serve"), Ok(Command::Run(flags.clone())));
        let validate = Flags { validate: true, ..flags.clone() };
        assert_eq!(parse("--validate -c b.yaml"), Ok(Command::Run(validate.clone())));
        assert_eq!(parse("--mode validate -c b.yaml"), Ok(Command::Run(validate)));
        let all = Flags { concurrency: 4, drain_seconds: 5, log_level: Some("debug".into()), ..flags.clone() };
        assert_eq!(parse("-c b.yaml --concurrency 4 --drain-time-s 5 -l debug"), Ok(Command::Run(all)));
        let inline = Flags { config: Config::Inline("{}".into()), ..flags.clone() };
        assert_eq!(parse("--config-yaml {}"), Ok(Command::Run(inline)));
        assert_eq!(parse("drain"), Ok(Command::Drain(None)));
        assert_eq!(parse("wait"), Ok(Command::Wait(None)));
        assert_eq!(parse("drain -c b.yaml"), Ok(Command::Drain(Some("b.yaml".into()))));
    }

    #[test]
    fn says_what_it_does_not_understand() {
        for (line, problem) in [
            ("", "-c FILE is missing"),
            ("-c", "-c needs a value"),
            ("-c b --concurrency 0", "--concurrency 0 is not a number of 1 or more"),
            ("-c b --config-yaml {}", "-c and --config-yaml exclude each other"),
            ("-c b --fast", "--fast is not known"),
            ("drain --validate", "--validate is not known"),
            ("wait --probes {}", "--probes is not known"),
            ("-c b --probes []", "--probes []: invalid type"),
            ("-c b --mode init", "--mode init is not known"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{line}: {error}");
        }
    }
}
