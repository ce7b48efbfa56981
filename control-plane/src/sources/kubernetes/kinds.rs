//! What is watched, and how an object of the API server becomes one that the model is built from.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject};
use weft_api::{Located, Object, Origin, Problem};

use super::pods;

/// What problems name where a folder's problems name a file.
pub(super) const SOURCE: &str = "kubernetes";

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
    Pod,
    HttpRoute,
    GrpcRoute,
    Workload,
    TrafficPolicy,
    MeshTls,
    AccessPolicy,
    FaultPolicy,
    ReferenceGrant,
}

impl Kind {
    /// All kinds.
    pub(super) const ALL: [Self; 11] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Pod,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::Workload,
        Self::TrafficPolicy,
        Self::MeshTls,
        Self::AccessPolicy,
        Self::FaultPolicy,
        Self::ReferenceGrant,
    ];

    /// The kind as users write it.
    pub(super) fn name(self) -> &'static str {
        self.parts().2
    }

    /// Group, version, kind, plural.
    const fn parts(self) -> (&'static str, &'static str, &'static str, &'static str) {
        const GATEWAY: &str = weft_api::gateway::GROUP;
        const GROUP: &str = weft_api::mesh::GROUP;
        const VERSION: &str = weft_api::mesh::VERSION;
        match self {
            Self::Service => ("", "v1", "Service", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::HttpRoute => (GATEWAY, "v1", "HTTPRoute", "httproutes"),
            Self::GrpcRoute => (GATEWAY, "v1", "GRPCRoute", "grpcroutes"),
            Self::Workload => (GROUP, VERSION, "Workload", "workloads"),
            Self::TrafficPolicy => (GROUP, VERSION, "TrafficPolicy", "trafficpolicies"),
            Self::MeshTls => (GROUP, VERSION, "MeshTLS", "meshtlses"),
            Self::AccessPolicy => (GROUP, VERSION, "AccessPolicy", "accesspolicies"),
            Self::FaultPolicy => (GROUP, VERSION, "FaultPolicy", "faultpolicies"),
            // Served by every release of the Gateway API; v1 only by the newest.
            Self::ReferenceGrant => (GATEWAY, "v1beta1", "ReferenceGrant", "referencegrants"),
        }
    }

    pub(super) fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = self.parts();
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }
}

/// An object as it was read: what the model is built from, if it can be, and what is wrong with it.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) located: Option<Arc<Located>>,
    pub(super) problems: Vec<Problem>,
}

/// Reads an object of any kind but Pod. It is checked as one in a file is.
pub(super) fn read(kind: Kind, mut object: DynamicObject) -> Read {
    // Nobody reads these, and they are most of an object's size.
    object.metadata.managed_fields = None;
    if let Some(data) = object.data.as_object_mut() {
        data.remove("status");
    }
    let resource = kind.resource();
    // Elements of a list do not name their kind.
    let mut value = match serde_json::to_value(&object) {
        Ok(value) => value,
        Err(error) => unreachable!("maps with text keys are JSON: {error}"),
    };
    value["apiVersion"] = resource.api_version.into();
    value["kind"] = resource.kind.into();
    // JSON is YAML; whoever writes YAML for an API server may read the same words about it.
    let manifest = weft_api::parse(SOURCE, &value.to_string());
    let located = manifest.objects.into_iter().next().map(|Located { object, .. }| {
        // Without the tree of positions, which an object of an API server does not have.
        let origin = Origin::elsewhere(SOURCE, &object);
        Arc::new(Located { object, origin })
    });
    let problems = manifest.problems.into_iter().map(|problem| Problem { line: 0, ..problem }).collect();
    Read { located, problems }
}

/// Reads a pod; `None` for one that has come to its end.
pub(super) fn read_pod(pod: &Pod) -> Option<Read> {
    let workload = pods::workload(pod)?;
    let object = Object::Workload(workload);
    let origin = Origin::named(SOURCE, "Pod", object.namespace(), object.name());
    Some(Read { located: Some(Arc::new(Located { object, origin })), problems: Vec::new() })
}
