//! Names and numbers that injection, the control plane and the CNI plugin agree on.

/// User and group of the sidecar: the redirect spares its connections by it.
pub use weft_cni::injection::PROXY_UID;
/// Annotation of an injected pod: its redirect, as [`weft_cni::redirect::Redirect`] in JSON. The CNI plugin installs it.
pub use weft_cni::injection::REDIRECT;
/// The init container that proves the CNI plugin's redirect.
pub use weft_cni::injection::VALIDATOR as VALIDATE_CONTAINER;
/// The sidecar's own ports that the redirect knows.
pub use weft_cni::redirect::{INBOUND_PORT, OUTBOUND_PORT, PROBE_PORT};

/// On a namespace or a pod (label, or annotation of a pod): `enabled` or `disabled`.
pub const INJECT: &str = "weft.mesh/inject";
/// Annotation of an injected pod: Weft's version. Who has it is part of the mesh.
pub const INJECTED: &str = "weft.mesh/injected";
/// Label of an injected pod: its workload (owner), as [`crate::owner::workload`] found it.
pub const WORKLOAD: &str = "weft.mesh/workload";

/// The sidecar's container.
pub const PROXY_CONTAINER: &str = "weft-proxy";
/// The init container that installs the redirect, where no CNI plugin does.
pub const INIT_CONTAINER: &str = "weft-init";
/// Containers that only Weft adds.
pub const OWN_CONTAINERS: [&str; 3] = [PROXY_CONTAINER, INIT_CONTAINER, VALIDATE_CONTAINER];

/// User and group of the validator: not the sidecar's, or its connections would be spared too.
pub const VALIDATE_UID: u32 = 1338;
/// Ports that are the sidecar's own: an application can have none of them.
pub const OWN_PORTS: [u16; 4] = [15000, OUTBOUND_PORT, INBOUND_PORT, PROBE_PORT];

/// Audience of the token by which a pod proves to the control plane who it is.
pub const TOKEN_AUDIENCE: &str = "weft";
/// The ConfigMap in every namespace with the mesh's roots.
pub const TRUST_CONFIG_MAP: &str = "weft-trust";
/// Its key: PEM certificates.
pub const TRUST_KEY: &str = "roots.pem";
/// The namespace of the control plane, unless the installation says otherwise.
pub const SYSTEM_NAMESPACE: &str = "weft-system";
/// The control plane's Service, Deployment and service account.
pub const CONTROL_PLANE: &str = "weft-control-plane";
/// The port of the control plane's Service for proxies (ADS, certificates).
pub const CONTROL_PLANE_PORT: u16 = 15012;
/// The webhook configurations' name.
pub const WEBHOOKS: &str = "weft";

/// Namespaces whose pods are never touched, beside the control plane's.
pub const SYSTEM_NAMESPACES: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];
