//! Whether a pod is to be redirected, from what is known on the node.
//!
//! An injected pod must not start without its redirection, and no other pod may be held up by Weft. In this order:
//!
//! 1. A pod of an excluded namespace, or a container that is not Kubernetes', is left alone.
//! 2. containerd and CRI-O pass the pod's annotations: they decide, and nobody needs to be asked.
//! 3. Otherwise the node's agent is asked, which watches the node's pods.
//! 4. If the agent does not answer, or does not know the pod, the kubelet's folder tells: it has mounted the pod's volumes before the
//!    network is made. A pod without a volume of the injector's is left alone; one that has such a volume, or whose folder is not there,
//!    is refused, and the kubelet tries again.

use std::path::Path;
use std::time::Duration;

use weft_cni::agent::{self, Answer, Question};
use weft_cni::injection::{self, VOLUME_PREFIX};
use weft_cni::redirect::Redirect;

use super::call::{Attachment, Configuration};
use super::reply::{Code, Failure};

/// What is to be done with a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Redirect(Box<Redirect>),
    Leave,
}

/// Decides; an error is one the kubelet tries again after.
pub(super) fn decide(configuration: &Configuration, attachment: &Attachment) -> Result<Decision, Failure> {
    let Some(pod) = &attachment.pod else {
        return Ok(Decision::Leave);
    };
    if configuration.settings.exclude_namespaces.contains(&pod.namespace) {
        return Ok(Decision::Leave);
    }
    if let Some(annotations) = configuration.annotations() {
        let redirect = injection::of_pod(annotations)
            .map_err(|error| Failure::new(Code::Annotation, format!("pod {}/{}: {error}", pod.namespace, pod.name)))?;
        return Ok(redirect.map_or(Decision::Leave, |redirect| Decision::Redirect(Box::new(redirect))));
    }
    let patience = Duration::from_secs(configuration.settings.agent_patience_seconds);
    let doubt = match agent::ask(&configuration.settings.agent_socket, pod, patience) {
        Ok(Answer::Redirect(redirect)) => return Ok(Decision::Redirect(redirect)),
        Ok(Answer::Leave(_)) => return Ok(Decision::Leave),
        Ok(Answer::Unknown(reason)) => reason,
        Err(error) => {
            let socket = configuration.settings.agent_socket.display();
            format!("the node's agent does not answer at {socket} ({error}): see the DaemonSet weft-cni")
        }
    };
    if has_own_volumes(&configuration.settings.kubelet_dir, pod) == Some(false) {
        return Ok(Decision::Leave);
    }
    let (namespace, name) = (&pod.namespace, &pod.name);
    let message =
        format!("pod {namespace}/{name} may be injected, and cannot start before its redirection is known: {doubt}");
    Err(Failure::new(Code::TryAgainLater, message))
}

/// Whether the kubelet has mounted a volume of the injector's; none if it cannot be seen.
fn has_own_volumes(kubelet_dir: &Path, pod: &Question) -> Option<bool> {
    // A UID is part of a path here; only what looks like one is looked for.
    let uid = pod.uid.as_deref().filter(|uid| uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))?;
    let mut found = false;
    // volumes/<plugin>/<volume>. Every pod of a kubelet has the folder, also without volumes.
    for plugin in std::fs::read_dir(kubelet_dir.join("pods").join(uid).join("volumes")).ok()? {
        for volume in std::fs::read_dir(plugin.ok()?.path()).ok()? {
            found |= volume.ok()?.file_name().to_string_lossy().starts_with(VOLUME_PREFIX);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_volumes_tell_whether_it_is_injected() {
        let kubelet = tempfile::tempdir().unwrap();
        let pod = |uid: &str| Question { namespace: "shop".into(), name: "web".into(), uid: Some(uid.into()) };
        let volume = |uid: &str, path: &str| {
            std::fs::create_dir_all(kubelet.path().join("pods").join(uid).join("volumes").join(path)).unwrap();
        };
        volume("1", "kubernetes.io~projected/kube-api-access-x");
        volume("1", "kubernetes.io~projected/weft-token");
        volume("2", "kubernetes.io~projected/kube-api-access-x");
        volume("3", "");
        let look = |uid: &str| has_own_volumes(kubelet.path(), &pod(uid));
        assert_eq!(look("1"), Some(true));
        assert_eq!(look("2"), Some(false));
        assert_eq!(look("3"), Some(false), "a pod without any volume");
        assert_eq!(look("4"), None, "a pod the kubelet does not have here");
        assert_eq!(look("../pods/2"), None);
    }
}
