//! What the injector, the plugin and the node's agent agree on: names on a pod, and what they mean.
//!
//! The injector writes what shall be redirected as the annotation [`REDIRECT`]; the CNI plugin and the node's agent read it ([`of_pod`]). A
//! pod without it is none of their business.

use std::collections::BTreeMap;

use crate::redirect::{Error, Redirect, check};

/// The annotation with which the injector asks for the redirection: a [`Redirect`] in JSON.
pub const REDIRECT: &str = "weft.mesh/redirect";
/// What all volumes the injector adds are named with. Where nothing else is known about a pod, the plugin takes one with such a volume
/// for an injected one.
pub const VOLUME_PREFIX: &str = "weft-";
/// User and group of the sidecar: the redirection spares its connections by it.
pub const PROXY_UID: u32 = 1337;
/// The init container that runs `weft-cni validate`.
pub const VALIDATOR: &str = "weft-validate";
/// The exit code of a validator whose connections were not redirected: by it the node's agent knows what to repair.
pub const NOT_REDIRECTED: u8 = 86;

/// Why a pod's annotation does not describe a redirection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnnotationError {
    /// It cannot be read: somebody else wrote it, or another version.
    #[error("annotation {REDIRECT}: {source}: only the injector writes it; delete the pod to have it injected again")]
    Unreadable {
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It can be read, but makes no sense.
    #[error("annotation {REDIRECT}: {source}: only the injector writes it; delete the pod to have it injected again")]
    Invalid {
        /// What is wrong with it.
        source: Error,
    },
}

/// The redirection the injector asks for; none for a pod that needs none.
///
/// # Errors
/// If the annotation was not written by an injector that this version understands.
pub fn of_pod(annotations: &BTreeMap<String, String>) -> Result<Option<Redirect>, AnnotationError> {
    annotations.get(REDIRECT).map(|text| read(text)).transpose()
}

/// Reads the annotation's value, which is also the value of the programs' option `--redirect`.
///
/// # Errors
/// As [`of_pod`].
pub fn read(text: &str) -> Result<Redirect, AnnotationError> {
    let redirect = serde_json::from_str(text).map_err(|source| AnnotationError::Unreadable { source })?;
    check(&redirect).map_err(|source| AnnotationError::Invalid { source })?;
    Ok(redirect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotation: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(REDIRECT.to_owned(), annotation.to_owned())])
    }

    #[test]
    fn a_pods_redirection_is_what_the_injector_wrote() {
        let redirect = Redirect { exclude_uid: Some(1337), exclude_outbound_ports: vec![3306], ..Redirect::default() };
        let text = serde_json::to_string(&redirect).unwrap();
        assert_eq!(of_pod(&pod(&text)).unwrap(), Some(redirect));
        assert_eq!(of_pod(&BTreeMap::from([("app".into(), "web".into())])).unwrap(), None);
    }

    #[test]
    fn a_redirection_the_injector_never_writes_is_refused() {
        let error = of_pod(&pod("{}")).unwrap_err().to_string();
        assert!(error.contains("exclude_mark, exclude_uid: none"), "{error}");
        let error = of_pod(&pod("yes")).unwrap_err().to_string();
        assert!(error.contains("delete the pod to have it injected again"), "{error}");
    }
}
