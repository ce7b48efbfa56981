//! What makes a bootstrap a sidecar's: `node.metadata["weft.mesh"]`.

use std::path::PathBuf;

use weft_xds::envoy::config::core::v3::Node;
use weft_xds::google::protobuf::Struct;
use weft_xds::names::{self, key};
use weft_xds::{FieldError, metadata};

use crate::ads::{ControlPlane, Dialect, Streams};
use crate::snapshot::compile::fields::join;

/// A sidecar's own settings.
#[derive(Clone, Debug)]
pub struct SidecarConfig {
    /// The workload's namespace.
    pub namespace: String,
    /// The workload (owner), not the pod.
    pub workload: String,
    /// The pod.
    pub pod: String,
    /// The service account, if the file names it; the certificate says it in any case.
    pub service_account: Option<String>,
    /// File with the join token.
    pub token_file: PathBuf,
    /// Folder for key, certificate and last configuration.
    pub state_dir: PathBuf,
    /// The trust domain.
    pub trust_domain: String,
    /// Unix socket on which the admin server also listens.
    pub admin_socket: Option<PathBuf>,
    /// Mark of this proxy's own packets, where the redirect spares them by it; otherwise it does by the proxy's user.
    pub mark: Option<u32>,
    /// The control plane.
    pub control_plane: ControlPlane,
}

impl SidecarConfig {
    /// Name of the listener that describes the workload's own ports.
    pub fn inbound_listener(&self) -> String {
        names::inbound_listener(&self.namespace, &self.workload)
    }
}

const PATH: &str = r#"node.metadata["weft.mesh"]"#;

/// The settings, and `node.id` and `node.cluster` made from them where the file leaves them out.
pub(super) fn find(node: &mut Node, control_plane: Option<&ControlPlane>) -> Result<Option<SidecarConfig>, FieldError> {
    let Some(mesh) = node.metadata.as_ref().and_then(|all| metadata::nested(all, names::METADATA)).cloned() else {
        return Ok(None);
    };
    let (namespace, workload) = (required(&mesh, key::NAMESPACE)?, required(&mesh, key::WORKLOAD)?);
    let pod = required(&mesh, "pod")?;
    let token_file = PathBuf::from(required(&mesh, key::TOKEN_FILE)?);
    let Some(control_plane) = control_plane else {
        return Err(FieldError::missing("dynamic_resources.ads_config", "a sidecar needs a control plane"));
    };
    if control_plane.streams != Streams::Aggregated {
        return Err(FieldError::missing("dynamic_resources.ads_config", "a sidecar has one stream for everything"));
    }
    if control_plane.dialect != Dialect::Delta {
        // Only there can a single destination be asked for, and known not to exist.
        return Err(FieldError::new("dynamic_resources.ads_config.api_type", "a sidecar needs DELTA_GRPC"));
    }
    for (own, expected, field) in [
        (&mut node.id, names::node_id(&namespace, &pod), "node.id"),
        (&mut node.cluster, names::node_cluster(&namespace, &workload), "node.cluster"),
    ] {
        if own.is_empty() {
            own.clone_from(&expected);
        } else if *own != expected {
            let why = format!("is not `{expected}`, which {PATH} says");
            return Err(FieldError::invalid(field, &*own, why, "leave it out, or make both the same"));
        }
    }
    let mark = mark(&mesh)?;
    Ok(Some(SidecarConfig {
        namespace,
        workload,
        pod,
        service_account: optional(&mesh, key::SERVICE_ACCOUNT),
        state_dir: PathBuf::from(required(&mesh, key::STATE_DIR)?),
        trust_domain: optional(&mesh, key::TRUST_DOMAIN).unwrap_or_else(|| names::DEFAULT_TRUST_DOMAIN.to_owned()),
        admin_socket: optional(&mesh, key::ADMIN_SOCKET).map(PathBuf::from),
        mark,
        control_plane: ControlPlane { token_file: Some(token_file.clone()), mark, ..control_plane.clone() },
        token_file,
    }))
}

fn mark(mesh: &Struct) -> Result<Option<u32>, FieldError> {
    let Some(number) = metadata::number(mesh, key::MARK) else { return Ok(None) };
    let mark = number as u32;
    if mark == 0 || f64::from(mark) != number {
        let why = "is not a packet mark";
        return Err(FieldError::invalid(
            join(PATH, key::MARK),
            number,
            why,
            "give a whole number from 1 to 4294967295",
        ));
    }
    Ok(Some(mark))
}

fn required(mesh: &Struct, field: &str) -> Result<String, FieldError> {
    optional(mesh, field).ok_or_else(|| FieldError::missing(join(PATH, field), "a sidecar needs it"))
}

fn optional(mesh: &Struct, field: &str) -> Option<String> {
    metadata::str(mesh, field).filter(|text| !text.is_empty()).map(str::to_owned)
}
