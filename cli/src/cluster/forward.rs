//! A connection to a port of a pod, through the API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use super::{Cluster, NO_KUBECTL, PodName};

/// How long kubectl may take until it listens.
const LIMIT: Duration = Duration::from_secs(20);

/// A port of this machine that is a pod's; until dropped.
pub(crate) struct Forward {
    pub(crate) address: SocketAddr,
    _kubectl: Child,
    /// kubectl says a word about every connection, and ends when nobody can hear it.
    _words: Lines<BufReader<ChildStdout>>,
}

impl Cluster {
    /// Forwards to a pod's port, also one that it listens on only on its loopback.
    pub(crate) async fn forward(&self, pod: &PodName, port: u16) -> anyhow::Result<Forward> {
        let (target, ports) = (format!("pod/{}", pod.name), format!(":{port}"));
        let mut arguments = vec!["port-forward", &target, &ports, "--address", "127.0.0.1"];
        if let Some(namespace) = &pod.namespace {
            arguments.extend(["-n", namespace]);
        }
        let mut kubectl = self.kubectl(&arguments).spawn().context(NO_KUBECTL)?;
        let stdout = kubectl.stdout.take().context("kubectl has no standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(LIMIT, lines.next_line())
            .await
            .with_context(|| format!("kubectl port-forward {target} does not begin; is the pod running?"))?
            .context("reading from kubectl")?;
        match line.as_deref().and_then(local_port) {
            Some(port) => Ok(Forward { address: (Ipv4Addr::LOCALHOST, port).into(), _kubectl: kubectl, _words: lines }),
            None => {
                let mut error = String::new();
                if let Some(mut stderr) = kubectl.stderr.take() {
                    stderr.read_to_string(&mut error).await.context("reading from kubectl")?;
                }
                bail!("cannot reach port {port} of {target}: {}", error.trim())
            }
        }
    }
}

/// `Forwarding from 127.0.0.1:40213 -> 15014`.
fn local_port(line: &str) -> Option<u16> {
    line.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_port_is_in_kubectls_first_line() {
        assert_eq!(super::local_port("Forwarding from 127.0.0.1:40213 -> 15014"), Some(40213));
        assert_eq!(super::local_port("error: unable to forward"), None);
    }
}
