//! What a gRPC application is told that has no sidecar: as its client (`xds:///host:port`), and as its server.
//!
//! gRPC takes a part of Envoy's messages only, and refuses some of the rest (its proposals A27, A28, A29, A36, A41 say which): each resource is made of
//! that part.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use weft_xds::envoy::config::listener::v3::ApiListener;
use weft_xds::envoy::extensions::filters::http::router::v3::Router;
use weft_xds::google::protobuf::Any;
use weft_xds::names::{self, ServicePort as At};

use super::values::{
    address, ads, any, cluster, core, endpoint, hcm, listener, matcher, regex, route, sockets, string, truth,
};
use super::{access, http, wire};
use crate::View;
use crate::model::{Endpoint, Model};

/// The conditions of retries that gRPC knows.
const RETRIED: [&str; 5] = ["cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];

/// Calls to `host:port`: a service's name, as long as one likes.
pub(super) fn client(model: &Model, host: &str, port: u16, view: &View) -> Option<Any> {
    let at = find(model, host, port, view.namespace.as_deref())?;
    let service = model.service(at.namespace, at.service)?.port(at.port)?;
    let mut filters: Vec<_> = service.fault.iter().map(|fault| http::fault_filter(fault)).collect();
    filters.push(router());
    let manager = hcm::HttpConnectionManager {
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(hcm::Rds {
            config_source: Some(ads()),
            route_config_name: names::outbound_route(at.namespace, at.service, at.port),
        })),
        http_filters: filters,
        ..Default::default()
    };
    let message = listener::Listener {
        name: names::host(host, port),
        api_listener: Some(ApiListener { api_listener: any(&manager) }),
        ..Default::default()
    };
    Some(wire::pack(&message, &wire::LISTENER))
}

/// `service`, `service.namespace`, `service.namespace.svc`, `service.namespace.svc.cluster.local`.
fn find<'h>(model: &Model, host: &'h str, port: u16, own: Option<&'h str>) -> Option<At<'h>> {
    let labels: Vec<_> = host.split('.').collect();
    let (service, namespace) = match labels[..] {
        [service] => (service, own?),
        [service, namespace] | [service, namespace, "svc"] | [service, namespace, "svc", "cluster", "local"] => {
            (service, namespace)
        }
        _ => return None,
    };
    model.service(namespace, service)?.port(port)?;
    Some(At { namespace, service, port })
}

/// What a server on this address of the client's own workload accepts.
pub(super) fn server(model: &Model, at: &str, view: &View) -> Option<Any> {
    use hcm::http_connection_manager::RouteSpecifier;
    let (namespace, name) = (view.namespace.as_deref()?, view.workload.as_deref()?);
    let workload = model.workload(namespace, name)?;
    let address_of: SocketAddr = at.parse().ok()?;
    // Callers are told of mutual TLS where the pod is a member of the mesh, so it is what is accepted there.
    let meshed = workload.pods.iter().any(|pod| model.pod(namespace, pod).is_some_and(|pod| pod.meshed));
    let accepted = route::Route {
        r#match: Some(prefix("")),
        action: Some(route::route::Action::NonForwardingAction(route::NonForwardingAction {})),
        ..Default::default()
    };
    let table = route::RouteConfiguration {
        name: names::inbound_cluster(address_of.port()),
        virtual_hosts: vec![route::VirtualHost {
            name: "*".to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![accepted],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut filters = access::named_filters(&workload.access);
    filters.push(router());
    let manager = hcm::HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(table)),
        http_filters: filters,
        ..Default::default()
    };
    let filter = http::filter("envoy.filters.network.http_connection_manager", weft_xds::pack(&manager));
    let message = listener::Listener {
        name: names::grpc_server(at),
        address: address(address_of),
        traffic_direction: core::TrafficDirection::Inbound.into(),
        filter_chains: vec![listener::FilterChain {
            transport_socket: meshed.then(downstream),
            ..http::chain("grpc", vec![filter])
        }],
        ..Default::default()
    };
    Some(wire::pack(&message, &wire::LISTENER))
}

fn router() -> hcm::HttpFilter {
    http::http_filter("envoy.filters.http.router", weft_xds::pack(&Router::default()))
}

/// A route table of what gRPC takes. Calls have no `CONNECT`; what gRPC does not know of an action (changes to headers and paths) it leaves out.
pub(super) fn routes(mut table: route::RouteConfiguration) -> Any {
    use route::route_match::PathSpecifier;
    for host in &mut table.virtual_hosts {
        host.routes.retain(|route| {
            let path = route.r#match.as_ref().and_then(|matches| matches.path_specifier.as_ref());
            !matches!(path, Some(PathSpecifier::ConnectMatcher(_)))
        });
        for route in &mut host.routes {
            if let Some(matches) = &mut route.r#match
                && let Some(PathSpecifier::PathSeparatedPrefix(prefix)) = &matches.path_specifier
            {
                let text = format!("{}(/.*)?", super::routes::escape(prefix));
                matches.path_specifier = Some(PathSpecifier::SafeRegex(regex(&text)));
            }
            if let Some(route::route::Action::Route(action)) = &mut route.action {
                forward(action);
            }
        }
    }
    weft_xds::pack(&table)
}

fn forward(action: &mut route::RouteAction) {
    let limit = action.timeout.take().filter(|limit| (limit.seconds, limit.nanos) != (0, 0));
    action.max_stream_duration = limit
        .map(|limit| route::route_action::MaxStreamDuration { max_stream_duration: Some(limit), ..Default::default() });
    let Some(policy) = &mut action.retry_policy else { return };
    let known: Vec<_> = policy.retry_on.split(',').filter(|on| RETRIED.contains(on)).collect();
    let retries = policy.num_retries.as_ref().is_some_and(|number| number.value > 0);
    if known.is_empty() || !retries {
        // What never left the client gRPC sends again by itself.
        action.retry_policy = None;
        return;
    }
    *policy = route::RetryPolicy {
        retry_on: known.join(","),
        num_retries: policy.num_retries,
        retry_back_off: policy.retry_back_off,
        ..Default::default()
    };
}

fn prefix(text: &str) -> route::RouteMatch {
    let path = route::route_match::PathSpecifier::Prefix(text.to_owned());
    route::RouteMatch { path_specifier: Some(path), ..Default::default() }
}

/// A cluster of what gRPC takes. It balances in turn, and has mutual TLS with all endpoints or with none.
pub(super) fn cluster(of: cluster::Cluster, endpoints: &[Endpoint]) -> cluster::Cluster {
    let identities: BTreeSet<String> =
        endpoints.iter().filter_map(|endpoint| endpoint.peer.as_ref()).map(|peer| peer.identity.to_string()).collect();
    cluster::Cluster {
        lb_policy: cluster::cluster::LbPolicy::RoundRobin.into(),
        transport_socket: (!identities.is_empty()).then(|| upstream(identities)),
        transport_socket_matches: Vec::new(),
        metadata: None,
        common_lb_config: None,
        typed_extension_protocol_options: Default::default(),
        ..of
    }
}

/// Endpoints of what gRPC takes: each group has a locality, and beside endpoints with mutual TLS there are none without.
pub(super) fn endpoints(mut of: Vec<endpoint::LocalityLbEndpoints>) -> Vec<endpoint::LocalityLbEndpoints> {
    let any_meshed = of.iter().flat_map(|group| &group.lb_endpoints).any(|endpoint| endpoint.metadata.is_some());
    for group in &mut of {
        group.locality.get_or_insert_default();
        group.lb_endpoints.retain(|endpoint| endpoint.metadata.is_some() || !any_meshed);
    }
    of.retain(|group| !group.lb_endpoints.is_empty());
    of
}

fn provider() -> Option<sockets::CertificateProviderPluginInstance> {
    Some(sockets::CertificateProviderPluginInstance {
        instance_name: names::CERTIFICATE_PROVIDER.to_owned(),
        ..Default::default()
    })
}

fn context(accepted: Vec<matcher::StringMatcher>) -> sockets::CommonTlsContext {
    #[allow(deprecated)] // The one that gRPC reads (A29).
    let validation = sockets::CertificateValidationContext {
        ca_certificate_provider_instance: provider(),
        match_subject_alt_names: accepted,
        ..Default::default()
    };
    sockets::CommonTlsContext {
        tls_certificate_provider_instance: provider(),
        validation_context_type: Some(sockets::common_tls_context::ValidationContextType::ValidationContext(
            validation,
        )),
        ..Default::default()
    }
}

fn upstream(identities: BTreeSet<String>) -> core::TransportSocket {
    let exact = |identity| string(matcher::string_matcher::MatchPattern::Exact(identity));
    let accepted = identities.into_iter().map(exact).collect();
    let message = sockets::UpstreamTlsContext { common_tls_context: Some(context(accepted)), ..Default::default() };
    super::tls::socket("envoy.transport_sockets.tls", &message)
}

fn downstream() -> core::TransportSocket {
    let message = sockets::DownstreamTlsContext {
        common_tls_context: Some(context(Vec::new())),
        require_client_certificate: truth(true),
        ..Default::default()
    };
    super::tls::socket("envoy.transport_sockets.tls", &message)
}
