//! Service, EndpointSlice, ServiceAccount. Only what Weft reads: Kubernetes checks the rest.

use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Check;

pub(crate) fn service(c: &mut Check, service: &Service) {
    c.metadata(&service.metadata, true);
    let Some(spec) = &service.spec else {
        c.field("spec", |c| c.error("", "is missing", "a Service needs at least spec.ports"));
        return;
    };
    c.field("spec", |c| {
        let ports = spec.ports.as_deref().unwrap_or_default();
        if ports.is_empty() && spec.type_.as_deref() != Some("ExternalName") && !is_headless(spec.cluster_ip.as_deref())
        {
            c.field("ports", |c| c.error("", "is missing", "declare the ports that callers use"));
        }
        c.each("ports", ports, |c, port| {
            c.field("port", |c| c.port(port.port.into()));
            if ports.len() > 1 && port.name.is_none() {
                c.field("name", |c| c.error("", "is missing", "a Service with several ports has to name each"));
            }
            if let Some(IntOrString::Int(target)) = port.target_port {
                c.field("targetPort", |c| c.port(target.into()));
            }
            if let Some(protocol @ ("UDP" | "SCTP")) = port.protocol.as_deref() {
                c.field("protocol", |c| {
                    c.warning(protocol, "does not pass through the mesh", "only TCP does; this port is left alone");
                });
            }
        });
        c.unique("ports", ports, "the port", |p| {
            ((p.port, p.protocol.clone().unwrap_or_else(|| "TCP".to_owned())), p.port.to_string())
        });
        if let Some(ip) = &spec.cluster_ip
            && !ip.is_empty()
            && ip != "None"
        {
            c.field("clusterIP", |c| c.address(ip));
        }
        c.each("clusterIPs", spec.cluster_ips.as_deref().unwrap_or_default(), |c, ip| {
            if ip != "None" {
                c.address(ip);
            }
        });
    });
}

fn is_headless(cluster_ip: Option<&str>) -> bool {
    cluster_ip == Some("None")
}

pub(crate) fn endpoint_slice(c: &mut Check, slice: &EndpointSlice) {
    c.metadata(&slice.metadata, false);
    let labels = slice.metadata.labels.as_ref();
    if !labels.is_some_and(|l| l.contains_key("kubernetes.io/service-name")) {
        c.field("metadata", |c| {
            c.field("labels", |c| {
                c.warning(
                    "",
                    "the label kubernetes.io/service-name is missing, so no Service has these endpoints",
                    "name the Service in it",
                );
            });
        });
    }
    if !["IPv4", "IPv6"].contains(&slice.address_type.as_str()) {
        c.field("addressType", |c| c.error(&slice.address_type, "is not supported", "use IPv4 or IPv6"));
        return;
    }
    c.each("endpoints", &slice.endpoints, |c, endpoint| {
        c.each("addresses", &endpoint.addresses, |c, address| {
            let family = |ip: std::net::IpAddr| if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            if let Some(ip) = c.address(address)
                && family(ip) != slice.address_type
            {
                c.error(address, format!("is not {}", slice.address_type), "use one EndpointSlice per family");
            }
        });
    });
    c.each("ports", slice.ports.as_deref().unwrap_or_default(), |c, port| match port.port {
        Some(number) => c.field("port", |c| c.port(number.into())),
        None => c.field("port", |c| c.error("", "is missing", "write the number on which the endpoints listen")),
    });
}

pub(crate) fn service_account(c: &mut Check, account: &ServiceAccount) {
    c.metadata(&account.metadata, false);
}
