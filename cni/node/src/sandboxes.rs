//! Where on the node a pod's network namespace is: at any process whose cgroup is the pod's.
//!
//! The kubelet names a pod's cgroup after its UID, whatever the runtime: `…/pod<uid>/…` (cgroupfs) or `…-pod<uid with '_'>.slice/…` (systemd).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use weft_cni::netns::{self, NetworkNamespace};

/// Pods' UIDs, and a process of each.
#[derive(Debug, Default)]
pub struct Sandboxes {
    proc: PathBuf,
    processes: HashMap<String, u32>,
}

impl Sandboxes {
    /// Looks through all processes below `proc`, the node's `/proc`.
    pub fn find(proc: &Path) -> Self {
        let mut processes = HashMap::new();
        // What ends while we look is not there any more.
        for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(uid) = pod_of(proc, pid) {
                processes.entry(uid).or_insert(pid);
            }
        }
        Self { proc: proc.into(), processes }
    }

    /// The pod's network namespace; none if no process of it runs.
    ///
    /// # Errors
    /// If it cannot be opened, or is the node's own.
    pub fn open(&self, uid: &str) -> Result<Option<NetworkNamespace>, netns::Error> {
        let Some(&pid) = self.processes.get(uid) else {
            return Ok(None);
        };
        let namespace = match NetworkNamespace::open(&self.proc.join(pid.to_string()).join("ns/net")) {
            Err(netns::Error::Missing { .. }) => return Ok(None),
            other => other?,
        };
        // The process may have ended, and its number be another's; now that the namespace is held, that would be seen.
        Ok(pod_of(&self.proc, pid).filter(|now| now == uid).map(|_| namespace))
    }
}

/// The UID of the pod a process is of.
fn pod_of(proc: &Path, pid: u32) -> Option<String> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok()?;
    text.lines().find_map(uid_in)
}

/// The UID in a line of `/proc/<pid>/cgroup`.
fn uid_in(line: &str) -> Option<String> {
    line.split('/').find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let uid = part[part.rfind("pod")? + 3..].replace('_', "-");
        let is_uid = uid.len() == 36 && uid.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        is_uid.then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_processes_are_known_by_their_cgroup() {
        const UID: &str = "0b1f3a52-7c55-4b6e-9d3c-0a1b2c3d4e5f";
        for line in [
            "0::/kubepods/burstable/pod0b1f3a52-7c55-4b6e-9d3c-0a1b2c3d4e5f/4f2a",
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0b1f3a52_7c55_4b6e_9d3c_0a1b2c3d4e5f.slice/cri-containerd-4f2a.scope",
            "0::/../../kubepods-pod0b1f3a52_7c55_4b6e_9d3c_0a1b2c3d4e5f.slice/crio-4f2a.scope",
            "7:cpu,cpuacct:/mk8s/n1/kubepods/pod0b1f3a52-7c55-4b6e-9d3c-0a1b2c3d4e5f/4f2a",
        ] {
            assert_eq!(uid_in(line).as_deref(), Some(UID), "{line}");
        }
        for line in
            ["0::/", "0::/kubepods/besteffort", "0::/system.slice/podman.service", "0::/podinfo", "1:name=systemd:/"]
        {
            assert_eq!(uid_in(line), None, "{line}");
        }
    }
}
