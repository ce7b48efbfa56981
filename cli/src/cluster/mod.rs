//! A Kubernetes cluster, asked by `kubectl`: with the user's own configuration, credentials and rights, whatever they are.
//!
//! | module | job |
//! |---|---|
//! | [`forward`] | a connection to a port of a pod, through the API server |
//!
//! Invariant: nothing is changed, but by a command's own --apply ([`crate::steer`]). What else creates objects does so as a dry run.

pub(crate) mod forward;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;
use std::str::FromStr;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::completion;

/// Which cluster.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Cluster {
    /// The kubeconfig file; without it as kubectl finds it
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context; without it the current one
    #[arg(long, value_name = "NAME", global = true, add = completion::contexts())]
    pub(crate) context: Option<String>,
    /// Namespace of the control plane; without it weft-system
    #[arg(long, value_name = "NAME", global = true, add = completion::namespaces())]
    weft_namespace: Option<String>,
}

/// What kubectl said to a question.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) is_success: bool,
    pub(crate) out: String,
    pub(crate) error: String,
}

/// What to do where there is no kubectl.
const NO_KUBECTL: &str = "cannot start kubectl; install it, or put it into the PATH";

impl Cluster {
    /// Whether somebody said which cluster, or where in it.
    pub(crate) fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some() || self.weft_namespace.is_some()
    }

    /// Namespace of the control plane.
    pub(crate) fn weft_namespace(&self) -> &str {
        self.weft_namespace.as_deref().unwrap_or(weft_inject::names::SYSTEM_NAMESPACE)
    }

    /// kubectl with these arguments and this program's own input and output, not started yet.
    fn command(&self, arguments: &[impl AsRef<OsStr>]) -> std::process::Command {
        let mut command = std::process::Command::new("kubectl");
        if let Some(file) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(file);
        }
        if let Some(context) = &self.context {
            command.arg("--context").arg(context);
        }
        command.args(arguments);
        command
    }

    /// kubectl with these arguments, which nobody but us hears, not started yet.
    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::from(self.command(arguments));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs kubectl with this program's own input and output.
    pub(crate) fn run(&self, arguments: &[String]) -> anyhow::Result<std::process::ExitStatus> {
        self.command(arguments).status().context(NO_KUBECTL)
    }

    /// Whatever kubectl says.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> anyhow::Result<Said> {
        self.tell(arguments, None).await
    }

    /// Whatever kubectl says to what it reads from its standard input.
    pub(crate) async fn tell(&self, arguments: &[&str], input: Option<&str>) -> anyhow::Result<Said> {
        let mut command = self.kubectl(arguments);
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().context(NO_KUBECTL)?;
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(text.as_bytes()).await.context("writing to kubectl")?;
        }
        let output = child.wait_with_output().await.context("waiting for kubectl")?;
        Ok(Said {
            is_success: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// What kubectl prints, at once or not at all.
    pub(crate) fn say(&self, arguments: &[&str]) -> Option<String> {
        let mut command = self.command(arguments);
        let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Objects as JSON.
    pub(crate) async fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut all = vec!["get"];
        all.extend(arguments);
        all.extend(["-o", "json"]);
        let said = self.ask(&all).await?;
        if !said.is_success {
            bail!("kubectl {}: {}", all.join(" "), said.error);
        }
        serde_json::from_str(&said.out).with_context(|| format!("kubectl {} printed no JSON", all.join(" ")))
    }

    /// An object as JSON, if there is one.
    pub(crate) async fn find(&self, arguments: &[&str]) -> anyhow::Result<Option<Value>> {
        let mut all = vec!["get", "--ignore-not-found"];
        all.extend(arguments);
        all.extend(["-o", "json"]);
        let said = self.ask(&all).await?;
        if !said.is_success {
            bail!("{}", said.error);
        }
        if said.out.trim().is_empty() {
            return Ok(None);
        }
        serde_json::from_str(&said.out).map(Some).with_context(|| format!("kubectl {} printed no JSON", all.join(" ")))
    }

    /// The names of the control plane's pods that are ready.
    pub(crate) async fn control_planes(&self) -> anyhow::Result<Vec<String>> {
        let selector = format!("app.kubernetes.io/name={}", weft_inject::names::CONTROL_PLANE);
        let pods = self.get(&["pods", "-n", self.weft_namespace(), "-l", &selector]).await?;
        Ok(items(&pods).filter(|pod| is_ready(pod)).map(|pod| name(pod).to_owned()).collect())
    }
}

/// A list's objects.
pub(crate) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// An object's name.
pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether a pod or a node is ready.
pub(crate) fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Whether a pod was given a sidecar.
pub(crate) fn has_sidecar(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(weft_inject::names::INJECTED).is_some()
}

/// A pod as people name it: `pod/web-0.shop`, `web-0.shop`, or `pod/web-0` of the current namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) name: String,
    pub(crate) namespace: Option<String>,
}

impl FromStr for PodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("pod/").or_else(|| text.strip_prefix("pods/")).unwrap_or(text);
        // A pod's name may have dots, a namespace's has none.
        let (name, namespace) = match name.rsplit_once('.') {
            Some((name, namespace)) => (name, Some(namespace.to_owned())),
            None => (name, None),
        };
        let is_name = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        };
        if !is_name(name) || namespace.as_deref().is_some_and(|namespace| !is_name(namespace)) {
            return Err("is no pod; write pod/NAME.NAMESPACE, or pod/NAME for the current namespace".to_owned());
        }
        Ok(Self { name: name.to_owned(), namespace })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_named_with_their_namespace_behind_a_dot() {
        let pod = |name: &str, namespace: Option<&str>| {
            Ok(PodName { name: name.to_owned(), namespace: namespace.map(str::to_owned) })
        };
        assert_eq!("pod/web-0.shop".parse(), pod("web-0", Some("shop")));
        assert_eq!("a.b.shop".parse(), pod("a.b", Some("shop")));
        assert_eq!("pod/web-0".parse(), pod("web-0", None));
        for wrong in ["", "pod/", "Web", "web.", "a/b"] {
            assert!(wrong.parse::<PodName>().is_err(), "{wrong}");
        }
    }
}
