//! What became of the objects that users wrote, for whoever tells them in the objects' status.

use std::sync::Arc;

use kube::api::DynamicObject;
use serde_json::Value;
use weft_api::Problem;

use super::kubernetes::Kind;

/// Every object whose status says what became of it, and every problem of the model in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports {
    pub(crate) objects: Vec<Arc<Reported>>,
    pub(crate) problems: Arc<[Problem]>,
}

/// An object as its author wrote it, as far as its status needs that.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reported {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Counts the changes of what its author wrote.
    pub(crate) generation: i64,
    /// Changes with every change.
    pub(crate) version: String,
    /// `spec.parentRefs` of a route, `spec.targetRefs` of a policy.
    pub(crate) references: Vec<Value>,
    /// Its status now.
    pub(crate) status: Value,
}

impl Reported {
    /// Takes the status out of the object, which nobody else reads.
    pub(super) fn of(kind: Kind, object: &mut DynamicObject) -> Self {
        let references = match kind {
            Kind::HttpRoute | Kind::GrpcRoute => "parentRefs",
            _ => "targetRefs",
        };
        let references = object.data["spec"][references].as_array().cloned().unwrap_or_default();
        let metadata = &object.metadata;
        Self {
            kind,
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            references,
            status: object.data.as_object_mut().and_then(|data| data.remove("status")).unwrap_or_default(),
        }
    }

    /// As problems name it.
    pub(crate) fn title(&self) -> String {
        format!("{} {}/{}", self.kind.name(), self.namespace, self.name)
    }
}
