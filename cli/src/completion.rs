//! What a shell completes: commands and flags, and the names of what there is.
//!
//! The shell's script (`weft completion bash`) asks this program at each Tab. Names come from `kubectl`, from the cluster that the words so far name.
//! Where that does not answer at once there are none: nobody waits for a completion.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::Shells;
use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::command::Part;

/// The variable by which the script asks, and says which shell it is of.
const VARIABLE: &str = "COMPLETE";

/// `weft completion`: the script.
pub(crate) fn script(shell: Shell) -> anyhow::Result<ExitCode> {
    let shells = Shells::builtins();
    let name = shell.to_string();
    let completer = shells.completer(&name).with_context(|| format!("there is no completion for {name}"))?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, "weft", "weft", "weft", &mut script).context("writing the script")?;
    std::io::stdout().write_all(&script).context("writing to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// Answers the script, if it asks, and ends the process then.
pub(crate) fn answer() {
    clap_complete::CompleteEnv::with_factory(<crate::command::Cli as clap::CommandFactory>::command)
        .var(VARIABLE)
        .complete();
}

/// Pods with a sidecar.
pub(crate) fn pods() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| named(begun, ask(&["get", "pods", "-A", "-o", "json"], meshed)))
}

/// Parts of what a proxy knows, and pods with a sidecar.
pub(crate) fn parts_and_pods() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| {
        let parts = <Part as clap::ValueEnum>::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value);
        let mut all: Vec<_> = parts.map(|part| part.get_name().to_owned()).collect();
        all.extend(ask(&["get", "pods", "-A", "-o", "json"], meshed));
        named(begun, all)
    })
}

/// Namespaces.
pub(crate) fn namespaces() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| {
        let names = |said: &str| lines(said).map(|line| line.trim_start_matches("namespace/").to_owned()).collect();
        named(begun, ask(&["get", "namespaces", "-o", "name"], names))
    })
}

/// Contexts of the kubeconfig.
pub(crate) fn contexts() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| {
        let names = |said: &str| lines(said).map(str::to_owned).collect();
        named(begun, ask(&["config", "get-contexts", "-o", "name"], names))
    })
}

/// What kubectl says, read; nothing where it says nothing in time.
fn ask(arguments: &[&str], read: impl FnOnce(&str) -> Vec<String>) -> Vec<String> {
    let mut all = vec!["--request-timeout=2s"];
    all.extend(arguments);
    let said = cluster_of(std::env::args()).say(&all);
    said.map(|said| read(&said)).unwrap_or_default()
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

fn meshed(pods: &str) -> Vec<String> {
    let pods: Value = serde_json::from_str(pods).unwrap_or_default();
    let name = |pod: &Value| {
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
        format!("pod/{}.{namespace}", cluster::name(pod))
    };
    cluster::items(&pods).filter(|pod| cluster::has_sidecar(pod)).map(name).collect()
}

fn named(begun: &OsStr, all: Vec<String>) -> Vec<CompletionCandidate> {
    let begun = begun.to_string_lossy();
    all.into_iter().filter(|name| name.starts_with(&*begun)).map(CompletionCandidate::new).collect()
}

/// The cluster that the words of an unfinished command name.
fn cluster_of(words: impl Iterator<Item = String>) -> Cluster {
    let mut cluster = Cluster::default();
    // Before that are the script's own words.
    let mut words = words.skip_while(|word| word != "--").skip(1);
    while let Some(word) = words.next() {
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        match &*flag {
            "--context" => cluster.context = value.or_else(|| words.next()),
            "--kubeconfig" => cluster.kubeconfig = value.or_else(|| words.next()).map(Into::into),
            _ => {}
        }
    }
    cluster
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_inject::names;

    use super::*;

    #[test]
    fn names_come_from_the_cluster_that_the_command_names() {
        let words = "weft --index 3 -- weft config --kubeconfig=/k --context kind pod/";
        let cluster = cluster_of(words.split(' ').map(str::to_owned));
        assert_eq!(cluster.context.as_deref(), Some("kind"));
        assert_eq!(cluster.kubeconfig.as_deref(), Some("/k".as_ref()));
    }

    #[test]
    fn pods_with_a_sidecar_are_named_as_commands_take_them() {
        let pod = |name: &str, annotations: Value| json!({ "metadata": { "name": name, "namespace": "shop", "annotations": annotations } });
        let pods = json!({ "items": [pod("web-0", json!({ names::INJECTED: "0.1.0" })), pod("plain", Value::Null)] });
        let names = meshed(&pods.to_string());
        assert_eq!(names, ["pod/web-0.shop"]);
        assert!(names[0].parse::<cluster::PodName>().is_ok());
        assert!(named("pod/x".as_ref(), names).is_empty());
    }
}
