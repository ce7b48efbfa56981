//! Every name that two of Weft's programs must agree on, built and parsed in one place.

mod resources;
mod workload;

pub use resources::*;
pub use workload::*;

/// ALPN name of HTTP/1.1 between two Weft sidecars.
pub const ALPN_HTTP1: &str = "weft-http/1.1";
/// ALPN name of HTTP/2 between two Weft sidecars.
pub const ALPN_H2: &str = "weft-h2";
/// ALPN name of opaque TCP between two Weft sidecars.
pub const ALPN_TCP: &str = "weft-tcp";

/// The namespace of our metadata in `filter_metadata` and in `node.metadata`.
pub const METADATA: &str = "weft.mesh";
/// Envoy's namespace of endpoint metadata that picks a transport socket.
pub const METADATA_TRANSPORT_SOCKET: &str = "envoy.transport_socket_match";

/// Keys inside the metadata namespaces.
pub mod key {
    /// Endpoint and `transport_socket_matches`: `"mtls"` for endpoints with a sidecar.
    pub const WEFT: &str = "weft";
    /// The value of [`WEFT`] for endpoints with a sidecar.
    pub const MTLS: &str = "mtls";
    /// Endpoint: the SPIFFE id its certificate must carry.
    pub const IDENTITY: &str = "identity";
    /// Endpoint: the pod's DNS name its certificate must carry.
    pub const POD: &str = "pod";
    /// Inbound listener: list of CIDRs that belong to the mesh.
    pub const RANGES: &str = "ranges";
    /// Inbound listener: `"passthrough"` or `"refuse"`.
    pub const UNKNOWN_DESTINATION: &str = "unknown_destination";
    /// Cluster: the load balancer, such as [`PEAK_EWMA`].
    pub const BALANCER: &str = "balancer";
    /// The value of [`BALANCER`] for P2C over peak-EWMA.
    pub const PEAK_EWMA: &str = "peak-ewma";
    /// Node: the workload's namespace.
    pub const NAMESPACE: &str = "namespace";
    /// Node: the workload's (owner's) name.
    pub const WORKLOAD: &str = "workload";
    /// Node: the workload's service account.
    pub const SERVICE_ACCOUNT: &str = "service_account";
    /// Node: path of the file that holds the join token.
    pub const TOKEN_FILE: &str = "token_file";
    /// Node: folder for key, certificate and last configuration.
    pub const STATE_DIR: &str = "state_dir";
    /// Node: the trust domain.
    pub const TRUST_DOMAIN: &str = "trust_domain";
    /// Node: packet mark of the proxy's own connections.
    pub const MARK: &str = "mark";
    /// Node: folder in which `weft agent` keeps key, certificate and bundle, for other programs than our own proxy.
    pub const AGENT_FOLDER: &str = "agent_folder";
    /// Node: path of the admin server's Unix socket.
    pub const ADMIN_SOCKET: &str = "admin_socket";
}

/// Where `weft agent` keeps key, certificate and bundle unless told otherwise.
pub const AGENT_FOLDER: &str = "/var/run/weft";
/// The file in that folder by which Envoy finds key and certificate.
pub const AGENT_IDENTITY: &str = "identity.json";
/// The file in that folder by which Envoy finds the bundle.
pub const AGENT_BUNDLE: &str = "bundle.json";
/// What gRPC applications' bootstrap files call the certificates that `weft agent` keeps.
pub const CERTIFICATE_PROVIDER: &str = "weft";
/// What gRPC servers ask for: the listener of the address on which they listen, in place of `%s`.
pub const GRPC_SERVER_TEMPLATE: &str = "grpc/server?xds.resource.listening_address=%s";
/// SDS name of the proxy's own key and certificate; never asked from the control plane.
pub const SECRET_IDENTITY: &str = "identity";
/// SDS name of the trust bundle.
pub const SECRET_BUNDLE: &str = "bundle";
/// Name of the transport socket toward endpoints with a sidecar.
pub const SOCKET_MTLS: &str = "weft-mtls";
/// Name of the transport socket toward endpoints without a sidecar.
pub const SOCKET_PLAINTEXT: &str = "plaintext";
/// What a sidecar calls itself in `node.user_agent_name`.
pub const USER_AGENT: &str = "weft-proxy";
/// The bootstrap's cluster that leads to the control plane.
pub const CLUSTER_CONTROL_PLANE: &str = "control-plane";
/// The DNS name in the control plane's serving certificate.
pub const CONTROL_PLANE_DNS: &str = "weft-control-plane";
/// The trust domain unless configured otherwise.
pub const DEFAULT_TRUST_DOMAIN: &str = "weft.local";
