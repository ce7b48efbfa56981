//! What is watched, and how an object of the API server becomes one that the model is built from.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject};
use sha2::{Digest, Sha256};
use weft_api::{Located, Object, Origin, Problem};

use super::pods;
use crate::sources::Reported;
use crate::sources::build::pods::ZONE;

/// What problems name where a folder's problems name a file.
pub(super) const SOURCE: &str = "kubernetes";

/// A kind that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Service,
    EndpointSlice,
    Pod,
    Node,
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
    pub(super) const ALL: [Self; 12] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Pod,
        Self::Node,
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
    pub(crate) fn name(self) -> &'static str {
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
            Self::Node => ("", "v1", "Node", "nodes"),
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

    /// Whether the control plane says in their status what became of objects of this kind.
    pub(crate) fn has_conditions(self) -> bool {
        match self {
            Self::Service | Self::EndpointSlice | Self::Pod | Self::Node | Self::ReferenceGrant => false,
            Self::HttpRoute
            | Self::GrpcRoute
            | Self::Workload
            | Self::TrafficPolicy
            | Self::MeshTls
            | Self::AccessPolicy
            | Self::FaultPolicy => true,
        }
    }

    pub(crate) fn resource(self) -> ApiResource {
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
    /// Of all that the model is built from: most changes of an object are to its status, or to what counts its changes.
    digest: [u8; 32],
    /// Of kinds whose status says what became of them.
    pub(super) written: Option<Arc<Reported>>,
    /// Of a pod that does not say its zone itself: the node whose zone it is in.
    node: Option<String>,
    /// Of a node, or of a pod with a `node`: the zone, as far as it is known.
    zone: Option<String>,
}

impl Read {
    /// Whether a model of the one is a model of the other.
    pub(super) fn means_the_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.zone == other.zone && self.located.is_some() == other.located.is_some()
    }

    /// Puts a pod into the zone of its node. Whether that changes anything.
    pub(super) fn settle(&mut self, zone_of: impl FnOnce(&str) -> Option<String>) -> bool {
        let Some(node) = &self.node else { return false };
        let zone = zone_of(node);
        if self.zone == zone {
            return false;
        }
        if let Some(Located { object: Object::Workload(workload), .. }) = self.located.as_mut().map(Arc::make_mut) {
            let labels = workload.metadata.labels.get_or_insert_default();
            match &zone {
                Some(zone) => labels.insert(ZONE.to_owned(), zone.clone()),
                None => labels.remove(ZONE),
            };
        }
        self.zone = zone;
        true
    }

    /// Of a node, its zone.
    pub(super) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }
}

/// Reads an object of any kind but Pod. It is checked as one in a file is.
pub(super) fn read(kind: Kind, mut object: DynamicObject) -> Read {
    let written = kind.has_conditions().then(|| Arc::new(Reported::of(kind, &mut object)));
    // Nobody reads these, and they are most of an object's size, or change without a change of the object's meaning.
    object.metadata.managed_fields = None;
    object.metadata.resource_version = None;
    object.metadata.generation = None;
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
    let text = value.to_string();
    let manifest = weft_api::parse(SOURCE, &text);
    let located = manifest.objects.into_iter().next().map(|Located { object, .. }| {
        // Without the tree of positions, which an object of an API server does not have.
        let origin = Origin::elsewhere(SOURCE, &object);
        Arc::new(Located { object, origin })
    });
    let problems = manifest.problems.into_iter().map(|problem| Problem { line: 0, ..problem }).collect();
    Read { located, problems, digest: Sha256::digest(text).into(), written, node: None, zone: None }
}

/// Reads a node, of which only its zone matters.
pub(super) fn read_node(node: &ObjectMeta) -> Read {
    let zone = node.labels.as_ref().and_then(|labels| labels.get(ZONE)).cloned();
    Read { located: None, problems: Vec::new(), digest: [0; 32], written: None, node: None, zone }
}

/// Reads a pod; `None` for one that has come to its end.
pub(super) fn read_pod(pod: &Pod) -> Option<Read> {
    let workload = pods::workload(pod)?;
    let digest = Sha256::digest(format!("{:?} {:?}", workload.metadata, workload.spec)).into();
    let object = Object::Workload(workload);
    let origin = Origin::named(SOURCE, "Pod", object.namespace(), object.name());
    let located = Some(Arc::new(Located { object, origin }));
    let says_zone = pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(ZONE));
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| !says_zone);
    Some(Read { located, problems: Vec::new(), digest, written: None, node, zone: None })
}
