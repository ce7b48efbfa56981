//! Clusters: how a service port, a pod's port or the local application is reached.

use std::net::SocketAddr;
use std::time::Duration;

use weft_xds::envoy::extensions::upstreams::http::v3 as upstreams;
use weft_xds::google::protobuf::{Any, Struct};
use weft_xds::names::{self, ServicePort as At};
use weft_xds::{google, metadata};

use super::values::{ads, any, cluster, core, duration, limit, number, percent, truth};
use super::{envoy, grpc, http, outbound, tls, wire};
use crate::model::policy::{Algorithm, Limits, Outliers, Traffic};
use crate::model::{MeshPeer, Model, Protocol};
use crate::{ClientKind, View};

const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(super) fn service(model: &Model, at: At<'_>, view: &View) -> Option<Any> {
    let port = model.service(at.namespace, at.service)?.port(at.port)?;
    let name = names::service_cluster(at.namespace, at.service, at.port);
    let sni = names::mesh_sni(at.namespace, at.service, at.port);
    let peers = port.endpoints.iter().filter_map(|endpoint| endpoint.peer.as_ref());
    let sockets = socket_matches(port.protocol, &sni, peers, view);
    let cluster = upstream(name, sockets, port.protocol, &port.traffic);
    Some(match view.client {
        ClientKind::Weft => pack(&cluster),
        ClientKind::Envoy => pack(&envoy::at_once(cluster)),
        ClientKind::Grpc => pack(&grpc::cluster(cluster, &port.endpoints)),
    })
}

pub(super) fn pod(model: &Model, at: SocketAddr, view: &View) -> Option<Any> {
    let pod = model.pod_at(at.ip())?;
    let protocol = outbound::pod_protocol(model, at)?;
    // A pod that is called by its own address has no substitute: it is never left out.
    let traffic = model
        .headless_at(at)
        .map_or_else(Traffic::default, |(_, port)| Traffic { outliers: None, ..Traffic::clone(&port.traffic) });
    let sockets = socket_matches(protocol, &pod.pod_name.to_string(), pod.peer().iter(), view);
    let cluster = upstream(names::pod_cluster(at), sockets, protocol, &traffic);
    Some(if view.client == ClientKind::Envoy { pack(&envoy::at_once(cluster)) } else { pack(&cluster) })
}

/// Relays to the address that the caller meant.
pub(super) fn passthrough() -> Any {
    pack(&cluster::Cluster {
        name: names::PASSTHROUGH.to_owned(),
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::OriginalDst),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided.into(),
        connect_timeout: duration(Duration::from_secs(10)),
        circuit_breakers: Some(breakers(&Limits::default(), None)),
        ..Default::default()
    })
}

/// Delivers to the address that the caller meant, so that the application sees its own address. The same for every workload.
pub(super) fn inbound(port: u16) -> Any {
    pack(&cluster::Cluster {
        name: names::inbound_cluster(port),
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::OriginalDst),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided.into(),
        connect_timeout: duration(Duration::from_secs(1)),
        circuit_breakers: Some(breakers(&Limits::default(), None)),
        typed_extension_protocol_options: protocol_options(None, Some(Duration::from_secs(3600)), None),
        ..Default::default()
    })
}

fn pack(message: &cluster::Cluster) -> Any {
    wire::pack(message, &wire::CLUSTER)
}

fn upstream(
    name: String,
    transport_socket_matches: Vec<cluster::cluster::TransportSocketMatch>,
    protocol: Protocol,
    traffic: &Traffic,
) -> cluster::Cluster {
    let budget = (traffic.retry_budget_percent, traffic.retry_budget_min);
    cluster::Cluster {
        cluster_discovery_type: discovery(cluster::cluster::DiscoveryType::Eds),
        eds_cluster_config: Some(cluster::cluster::EdsClusterConfig {
            eds_config: Some(ads()),
            service_name: name.clone(),
        }),
        name,
        connect_timeout: duration(traffic.connect_timeout),
        lb_policy: match traffic.algorithm {
            Algorithm::PeakEwma | Algorithm::LeastRequest => cluster::cluster::LbPolicy::LeastRequest,
            Algorithm::RoundRobin => cluster::cluster::LbPolicy::RoundRobin,
        }
        .into(),
        // Envoy skips it and balances by least request, which is the nearest that it has.
        metadata: (traffic.algorithm == Algorithm::PeakEwma).then(|| {
            let balancer = [(names::key::BALANCER, names::key::PEAK_EWMA.into())];
            metadata::single(names::METADATA, metadata::object(balancer))
        }),
        common_lb_config: Some(cluster::cluster::CommonLbConfig {
            healthy_panic_threshold: percent(traffic.panic_threshold),
            ..Default::default()
        }),
        circuit_breakers: Some(breakers(&traffic.limits, Some(budget))),
        outlier_detection: traffic.outliers.as_ref().map(outliers),
        typed_extension_protocol_options: protocol_options(
            Some(protocol),
            traffic.idle_timeout,
            traffic.limits.requests_per_connection,
        ),
        transport_socket_matches,
        ..Default::default()
    }
}

/// Mutual TLS where an endpoint's metadata say so, else plaintext.
fn socket_matches<'p>(
    protocol: Protocol,
    sni: &str,
    peers: impl Iterator<Item = &'p MeshPeer>,
    view: &View,
) -> Vec<cluster::cluster::TransportSocketMatch> {
    let mut matches = match view.client {
        ClientKind::Envoy => envoy::socket_matches(protocol, sni, peers, view),
        ClientKind::Weft | ClientKind::Grpc => {
            let socket = tls::upstream(&tls::alpn(protocol), sni.to_owned(), view);
            vec![socket_match(names::SOCKET_MTLS, meshed(), socket)]
        }
    };
    matches.push(socket_match(names::SOCKET_PLAINTEXT, Struct::default(), tls::plaintext()));
    matches
}

pub(super) fn meshed() -> Struct {
    metadata::object([(names::key::WEFT, names::key::MTLS.into())])
}

pub(super) fn socket_match(
    name: &str,
    criteria: Struct,
    socket: core::TransportSocket,
) -> cluster::cluster::TransportSocketMatch {
    cluster::cluster::TransportSocketMatch {
        name: name.to_owned(),
        r#match: Some(criteria),
        transport_socket: Some(socket),
    }
}

fn discovery(kind: cluster::cluster::DiscoveryType) -> Option<cluster::cluster::ClusterDiscoveryType> {
    Some(cluster::cluster::ClusterDiscoveryType::Type(kind.into()))
}

fn breakers(limits: &Limits, budget: Option<(f64, u32)>) -> cluster::CircuitBreakers {
    use cluster::circuit_breakers::{Thresholds, thresholds::RetryBudget};
    cluster::CircuitBreakers {
        thresholds: vec![Thresholds {
            priority: core::RoutingPriority::Default.into(),
            max_connections: number(limits.connections),
            max_pending_requests: number(limits.pending),
            max_requests: number(limits.requests),
            retry_budget: budget.map(|(share, least)| RetryBudget {
                budget_percent: percent(share),
                min_retry_concurrency: number(least),
                ..Default::default()
            }),
            ..Default::default()
        }],
        per_host_thresholds: Vec::new(),
    }
}

fn outliers(said: &Outliers) -> cluster::OutlierDetection {
    // Envoy counts always and enforces by percentage of chance: on or off here.
    let on = |criterion: u32| number(if criterion > 0 { 100_u32 } else { 0 });
    let threshold = |criterion: u32, unused: u32| number(if criterion > 0 { criterion } else { unused });
    cluster::OutlierDetection {
        interval: duration(said.interval),
        base_ejection_time: duration(said.base_ejection),
        max_ejection_time: duration(said.max_ejection),
        max_ejection_time_jitter: duration(Duration::ZERO),
        max_ejection_percent: number(said.max_ejection_percent),
        consecutive_5xx: threshold(said.consecutive_errors, 5),
        enforcing_consecutive_5xx: on(said.consecutive_errors),
        consecutive_gateway_failure: threshold(said.consecutive_gateway_errors, 5),
        enforcing_consecutive_gateway_failure: on(said.consecutive_gateway_errors),
        failure_percentage_threshold: threshold(said.failure_percentage, 85),
        enforcing_failure_percentage: on(said.failure_percentage),
        failure_percentage_minimum_hosts: number(1_u32),
        failure_percentage_request_volume: number(said.minimum_requests),
        enforcing_success_rate: number(0_u32),
        split_external_local_origin_errors: false,
        always_eject_one_host: truth(false),
        ..Default::default()
    }
}

fn protocol_options(
    protocol: Option<Protocol>,
    idle_timeout: Option<Duration>,
    requests_per_connection: Option<u32>,
) -> std::collections::HashMap<String, google::protobuf::Any> {
    use upstreams::http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
    };
    let protocol = match protocol {
        Some(Protocol::Http2 | Protocol::Grpc) => UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http::http2())),
        }),
        // HTTP/1.1 stays HTTP/1.1, and HTTP/2 stays HTTP/2.
        _ => UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(core::Http1ProtocolOptions { enable_trailers: true, ..Default::default() }),
            http2_protocol_options: Some(http::http2()),
            ..Default::default()
        }),
    };
    let options = upstreams::HttpProtocolOptions {
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: limit(idle_timeout),
            max_requests_per_connection: requests_per_connection.and_then(number),
            ..Default::default()
        }),
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    };
    any(&options).map(|config| (PROTOCOL_OPTIONS.to_owned(), config)).into_iter().collect()
}
