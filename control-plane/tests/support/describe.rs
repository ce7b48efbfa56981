//! Rendered resources in a few lines: what decides about traffic, not every field.

use std::fmt::Write;

use weft_xds::envoy::config::{
    cluster::v3::Cluster,
    core::v3 as core,
    endpoint::v3::ClusterLoadAssignment,
    listener::v3 as listener,
    rbac::v3::{Rbac, rbac},
    route::v3 as route,
};
use weft_xds::envoy::extensions::filters::http::{fault::v3::HttpFault, rbac::v3 as http_rbac};
use weft_xds::envoy::extensions::filters::network::{
    http_connection_manager::v3 as hcm, rbac::v3 as network_rbac, tcp_proxy::v3::TcpProxy,
};
use weft_xds::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use weft_xds::envoy::r#type::matcher::v3 as matcher;
use weft_xds::google::protobuf::{Any, Duration};
use weft_xds::{any, metadata, type_url, unpack};

pub fn describe(any: &Any) -> String {
    match any.type_url.as_str() {
        type_url::LISTENER => listener(&unpack(any, "").unwrap()),
        type_url::ROUTE => routes(&unpack(any, "").unwrap()),
        type_url::CLUSTER => cluster(&unpack(any, "").unwrap()),
        type_url::ENDPOINT => endpoints(&unpack(any, "").unwrap()),
        other => panic!("{other}"),
    }
}

fn listener(l: &listener::Listener) -> String {
    let mut out = format!("listener {}\n", l.name);
    if let Some(mesh) = metadata::of(l.metadata.as_ref(), "weft.mesh") {
        let ranges = metadata::strings(mesh, "ranges").unwrap().join(" ");
        writeln!(out, "  mesh {ranges}, unknown {}", metadata::str(mesh, "unknown_destination").unwrap()).unwrap();
    }
    assert!(l.default_filter_chain.is_none());
    for chain in &l.filter_chains {
        let m = chain.filter_chain_match.clone().unwrap_or_default();
        let mut line = format!("  {}:", chain.name);
        if let Some(port) = m.destination_port {
            write!(line, " port {}", port.value).unwrap();
        }
        for part in [m.transport_protocol, m.application_protocols.join("|")].iter().filter(|p| !p.is_empty()) {
            write!(line, " {part}").unwrap();
        }
        let tls = chain.transport_socket.as_ref().map_or("", |_| " mtls");
        let filters: Vec<_> = chain.filters.iter().map(network_filter).collect();
        writeln!(out, "{line} =>{tls} {}", filters.join(", ")).unwrap();
    }
    out
}

fn network_filter(filter: &listener::Filter) -> String {
    let Some(listener::filter::ConfigType::TypedConfig(config)) = &filter.config_type else { panic!() };
    if any::is::<TcpProxy>(config) {
        use weft_xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
        let proxy: TcpProxy = unpack(config, "").unwrap();
        let Some(ClusterSpecifier::Cluster(cluster)) = proxy.cluster_specifier else { panic!() };
        return format!("tcp {cluster}");
    }
    if any::is::<network_rbac::Rbac>(config) {
        return access(&unpack::<network_rbac::Rbac>(config, "").unwrap().rules.unwrap());
    }
    let manager: hcm::HttpConnectionManager = unpack(config, "").unwrap();
    let filters: Vec<_> = manager.http_filters.iter().map(http_filter).collect();
    use hcm::http_connection_manager::RouteSpecifier;
    let to = match manager.route_specifier {
        Some(RouteSpecifier::Rds(rds)) => format!("rds {}", rds.route_config_name),
        Some(RouteSpecifier::RouteConfig(table)) => {
            // The second is the same for CONNECT.
            let [all, connect] = table.virtual_hosts[0].routes.as_slice() else { panic!() };
            assert_eq!(all.action, connect.action);
            route(all).split_once("=> ").unwrap().1.to_owned()
        }
        other => panic!("{other:?}"),
    };
    format!("http({}) {to}", filters.join(", "))
}

fn http_filter(filter: &hcm::HttpFilter) -> String {
    let Some(hcm::http_filter::ConfigType::TypedConfig(config)) = &filter.config_type else { panic!() };
    if any::is::<http_rbac::Rbac>(config) {
        access(&unpack::<http_rbac::Rbac>(config, "").unwrap().rules.unwrap())
    } else if any::is::<HttpFault>(config) {
        let fault: HttpFault = unpack(config, "").unwrap();
        let share = |p: Option<weft_xds::envoy::r#type::v3::FractionalPercent>| p.unwrap().numerator;
        let mut out = "fault".to_owned();
        if let Some(delay) = fault.delay {
            write!(out, " delay {:?} of {}", delay.fault_delay_secifier.unwrap(), share(delay.percentage)).unwrap();
        }
        if let Some(abort) = fault.abort {
            write!(out, " abort {:?} of {}", abort.error_type.unwrap(), share(abort.percentage)).unwrap();
        }
        out
    } else {
        filter.name.trim_start_matches("envoy.filters.http.").to_owned()
    }
}

fn access(rules: &Rbac) -> String {
    let mut names: Vec<_> = rules.policies.keys().map(String::as_str).collect();
    names.sort_unstable();
    let action = if rules.action == rbac::Action::Deny as i32 { "deny" } else { "allow" };
    format!("{action} {}", names.join(" "))
}

fn routes(r: &route::RouteConfiguration) -> String {
    let mut out = format!("routes {}\n", r.name);
    assert_eq!(r.virtual_hosts.len(), 1);
    assert_eq!(r.virtual_hosts[0].domains, ["*"]);
    for r in &r.virtual_hosts[0].routes {
        writeln!(out, "  {}", route(r)).unwrap();
    }
    out
}

fn route(r: &route::Route) -> String {
    let mut out = format!("{}: {} => ", r.name, request_match(r.r#match.as_ref().unwrap()));
    match r.action.as_ref().unwrap() {
        route::route::Action::Route(action) => out += &forward(action),
        route::route::Action::Redirect(to) => {
            write!(
                out,
                "redirect {:?} {:?} port {} {:?} code {}",
                to.scheme_rewrite_specifier,
                to.host_redirect,
                to.port_redirect,
                to.path_rewrite_specifier,
                to.response_code
            )
            .unwrap();
        }
        route::route::Action::DirectResponse(answer) => write!(out, "{}", answer.status).unwrap(),
        other => panic!("{other:?}"),
    }
    out += &headers("request", &r.request_headers_to_add, &r.request_headers_to_remove);
    out + &headers("response", &r.response_headers_to_add, &r.response_headers_to_remove)
}

fn request_match(m: &route::RouteMatch) -> String {
    use route::route_match::PathSpecifier;
    let mut out = match m.path_specifier.as_ref().unwrap() {
        PathSpecifier::Path(path) => format!("= {path}"),
        PathSpecifier::Prefix(path) => format!("^ {path}"),
        PathSpecifier::PathSeparatedPrefix(path) => format!("/ {path}"),
        PathSpecifier::SafeRegex(regex) => format!("~ {}", regex.regex),
        PathSpecifier::ConnectMatcher(_) => "CONNECT".to_owned(),
        other => panic!("{other:?}"),
    };
    for h in &m.headers {
        let Some(route::header_matcher::HeaderMatchSpecifier::StringMatch(value)) = &h.header_match_specifier else {
            panic!()
        };
        write!(out, " {}{}", h.name, string(value)).unwrap();
    }
    for q in &m.query_parameters {
        let Some(route::query_parameter_matcher::QueryParameterMatchSpecifier::StringMatch(value)) =
            &q.query_parameter_match_specifier
        else {
            panic!()
        };
        write!(out, " ?{}{}", q.name, string(value)).unwrap();
    }
    out
}

fn string(m: &matcher::StringMatcher) -> String {
    use matcher::string_matcher::MatchPattern;
    match m.match_pattern.as_ref().unwrap() {
        MatchPattern::Exact(text) => format!("={text}"),
        MatchPattern::Prefix(text) => format!("={text}*"),
        MatchPattern::SafeRegex(regex) => format!("~{}", regex.regex),
        other => panic!("{other:?}"),
    }
}

fn forward(action: &route::RouteAction) -> String {
    use route::route_action::ClusterSpecifier;
    let mut out = match action.cluster_specifier.as_ref().unwrap() {
        ClusterSpecifier::Cluster(name) => name.clone(),
        ClusterSpecifier::WeightedClusters(many) => many
            .clusters
            .iter()
            .map(|c| {
                let own = headers("request", &c.request_headers_to_add, &c.request_headers_to_remove);
                format!("{} {}{own}", c.weight.unwrap().value, c.name)
            })
            .collect::<Vec<_>>()
            .join(" | "),
        other => panic!("{other:?}"),
    };
    write!(out, ", timeout {}", seconds(action.timeout.as_ref().unwrap())).unwrap();
    if !action.prefix_rewrite.is_empty() {
        write!(out, ", prefix -> {}", action.prefix_rewrite).unwrap();
    }
    if let Some(rewrite) = &action.regex_rewrite {
        write!(out, ", {} -> {}", rewrite.pattern.as_ref().unwrap().regex, rewrite.substitution).unwrap();
    }
    if let Some(route::route_action::HostRewriteSpecifier::HostRewriteLiteral(host)) = &action.host_rewrite_specifier {
        write!(out, ", host -> {host}").unwrap();
    }
    if let Some(retry) = &action.retry_policy {
        let back_off = retry.retry_back_off.as_ref().unwrap();
        write!(
            out,
            ", {} retries on {}{} each {} after {}-{}",
            retry.num_retries.unwrap().value,
            retry.retry_on,
            retry.retriable_status_codes.iter().map(|c| format!(" {c}")).collect::<String>(),
            seconds(retry.per_try_timeout.as_ref().unwrap()),
            seconds(back_off.base_interval.as_ref().unwrap()),
            seconds(back_off.max_interval.as_ref().unwrap()),
        )
        .unwrap();
    }
    out
}

fn headers(what: &str, add: &[core::HeaderValueOption], remove: &[String]) -> String {
    let mut out = String::new();
    for option in add {
        let header = option.header.as_ref().unwrap();
        let sign = if option.append_action == core::header_value_option::HeaderAppendAction::AppendIfExistsOrAdd as i32
        {
            "+"
        } else {
            ""
        };
        write!(out, " {sign}{}={}", header.key, header.value).unwrap();
    }
    for name in remove {
        write!(out, " -{name}").unwrap();
    }
    if out.is_empty() { out } else { format!(", {what} headers{out}") }
}

fn seconds(d: &Duration) -> String {
    format!("{}s", d.seconds as f64 + f64::from(d.nanos) / 1e9)
}

fn cluster(c: &Cluster) -> String {
    let mut out = format!("cluster {}\n", c.name);
    let balancer = metadata::of(c.metadata.as_ref(), "weft.mesh").and_then(|m| metadata::str(m, "balancer"));
    writeln!(
        out,
        "  balance {:?} {}, connect {}",
        c.lb_policy(),
        balancer.unwrap_or("-"),
        seconds(c.connect_timeout.as_ref().unwrap())
    )
    .unwrap();
    let limits = &c.circuit_breakers.as_ref().unwrap().thresholds[0];
    let count = |n: &Option<weft_xds::google::protobuf::UInt32Value>| n.as_ref().unwrap().value;
    write!(
        out,
        "  limits {} connections, {} pending, {} requests",
        count(&limits.max_connections),
        count(&limits.max_pending_requests),
        count(&limits.max_requests)
    )
    .unwrap();
    if let Some(budget) = &limits.retry_budget {
        write!(out, ", retries {}% or {}", budget.budget_percent.unwrap().value, count(&budget.min_retry_concurrency))
            .unwrap();
    }
    out.push('\n');
    if let Some(o) = &c.outlier_detection {
        writeln!(
            out,
            "  outliers {}x5xx({}%) {}xgateway({}%) {}%({}%) every {}, out {} to {}, at most {}%",
            count(&o.consecutive_5xx),
            count(&o.enforcing_consecutive_5xx),
            count(&o.consecutive_gateway_failure),
            count(&o.enforcing_consecutive_gateway_failure),
            count(&o.failure_percentage_threshold),
            count(&o.enforcing_failure_percentage),
            seconds(o.interval.as_ref().unwrap()),
            seconds(o.base_ejection_time.as_ref().unwrap()),
            seconds(o.max_ejection_time.as_ref().unwrap()),
            count(&o.max_ejection_percent),
        )
        .unwrap();
    }
    for m in &c.transport_socket_matches {
        let socket = m.transport_socket.as_ref().unwrap();
        let Some(core::transport_socket::ConfigType::TypedConfig(config)) = &socket.config_type else { panic!() };
        let tls = if any::is::<UpstreamTlsContext>(config) {
            let context: UpstreamTlsContext = unpack(config, "").unwrap();
            format!(" {} to {}", context.common_tls_context.unwrap().alpn_protocols.join("|"), context.sni)
        } else {
            String::new()
        };
        writeln!(out, "  socket {}{tls}", m.name).unwrap();
    }
    out
}

fn endpoints(c: &ClusterLoadAssignment) -> String {
    let mut out = format!("endpoints {}\n", c.cluster_name);
    for (group, e) in c.endpoints.iter().flat_map(|l| l.lb_endpoints.iter().map(move |e| (l, e))) {
        use weft_xds::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
        let Some(HostIdentifier::Endpoint(at)) = &e.host_identifier else { panic!() };
        let Some(core::address::Address::SocketAddress(at)) = at.address.clone().unwrap().address else { panic!() };
        let Some(core::socket_address::PortSpecifier::PortValue(port)) = at.port_specifier else { panic!() };
        let peer =
            metadata::of(e.metadata.as_ref(), "envoy.transport_socket_match").map_or("plaintext".to_owned(), |m| {
                format!(
                    "{} {} {}",
                    metadata::str(m, "weft").unwrap(),
                    metadata::str(m, "identity").unwrap(),
                    metadata::str(m, "pod").unwrap()
                )
            });
        let zone = group.locality.as_ref().map(|place| format!(", priority {} in {}", group.priority, place.zone));
        writeln!(out, "  {}:{port} {:?} {peer}{}", at.address, e.health_status(), zone.unwrap_or_default()).unwrap();
    }
    out
}
