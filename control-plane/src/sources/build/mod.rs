//! Objects that users wrote → [`Model`].
//!
//! Each object has been checked by itself (`weft-api`). Here they meet: names that refer to each other, addresses that must not
//! be used twice, policies that govern the same thing. An error refuses the whole; a warning is told and lived with.

mod addresses;
mod attach;
mod backends;
mod endpoints;
mod grpc;
mod http;
mod index;
pub(super) mod pods;
mod receivers;
mod routes;
mod services;
mod traffic;

use std::sync::Arc;

use index::PodIndex;
use weft_api::gateway::{GrpcRoute, HttpRoute, ReferenceGrant};
use weft_api::k8s_openapi::api::core::v1::Service;
use weft_api::k8s_openapi::api::discovery::v1::EndpointSlice;
use weft_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weft_api::manifest::{DEFAULT_NAMESPACE, find_duplicates};
use weft_api::mesh::{AccessPolicy, FaultPolicy, MeshTls, TrafficPolicy, Workload};
use weft_api::{FieldPath, Located, Object, Origin, Problem, Severity};

use crate::model::route::Seniority;
use crate::model::{MeshConfig, Model, ObjectName};

/// A model, and what its author should know about it.
#[derive(Debug)]
pub struct Built {
    /// The model.
    pub model: Model,
    /// Things that are probably not as meant.
    pub warnings: Vec<Problem>,
}

/// Builds a model. `previous` keeps addresses that were given to services, and lends its parts where they have not changed.
///
/// # Errors
/// Everything found, if any of it is an error.
pub fn build(objects: &[Located], config: &Arc<MeshConfig>, previous: Option<&Model>) -> Result<Built, Vec<Problem>> {
    build_from(objects, EndpointsFrom::Selectors, config, previous)
}

/// Who says which pods stand behind a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointsFrom {
    /// The services' selectors, and EndpointSlices beside them.
    Selectors,
    /// EndpointSlices alone: in Kubernetes a controller writes them, and knows what labels do not tell.
    Slices,
}

/// [`build`] of objects in any order, with endpoints from where the caller says.
///
/// # Errors
/// Everything found, if any of it is an error.
pub(super) fn build_from<'a>(
    objects: impl IntoIterator<Item = &'a Located> + Clone,
    endpoints: EndpointsFrom,
    config: &Arc<MeshConfig>,
    previous: Option<&Model>,
) -> Result<Built, Vec<Problem>> {
    let parts = Parts::sort(objects.clone());
    let mut notes = Notes { problems: find_duplicates(objects) };
    let pods = pods::pods(&parts, config, &mut notes);
    let mut services = services::services(&parts, &pods, config, previous, &mut notes);
    let index = PodIndex::new(&pods);
    endpoints::fill(&mut services, endpoints, &parts, &index, &mut notes);
    traffic::attach(&mut services, &parts, &mut notes);
    routes::attach(&mut services, &parts, &mut notes);
    let workloads = receivers::workloads(&parts, &pods, &index, &services, config, &mut notes);

    let mut problems = notes.problems;
    problems.sort_by(|a, b| (&a.file, a.line, a).cmp(&(&b.file, b.line, b)));
    problems.dedup();
    if problems.iter().any(Problem::is_error) {
        return Err(problems);
    }
    let model = Model::new(
        config.clone(),
        services.into_values().map(|s| s.service),
        pods.into_iter().map(|p| p.pod),
        workloads,
    );
    let model = match previous {
        Some(previous) => model.sharing(previous),
        None => model,
    };
    Ok(Built { model, warnings: problems })
}

/// The objects by kind.
#[derive(Default)]
struct Parts<'a> {
    services: Vec<Written<'a, Service>>,
    slices: Vec<Written<'a, EndpointSlice>>,
    http_routes: Vec<Written<'a, HttpRoute>>,
    grpc_routes: Vec<Written<'a, GrpcRoute>>,
    grants: Vec<Written<'a, ReferenceGrant>>,
    workloads: Vec<Written<'a, Workload>>,
    traffic: Vec<Written<'a, TrafficPolicy>>,
    tls: Vec<Written<'a, MeshTls>>,
    access: Vec<Written<'a, AccessPolicy>>,
    faults: Vec<Written<'a, FaultPolicy>>,
}

/// An object and where it is written.
struct Written<'a, T> {
    object: &'a T,
    origin: &'a Origin,
    name: ObjectName,
    /// Seconds since 1970, or the end of time where it does not say.
    created: i64,
}

impl<T> Clone for Written<'_, T> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), ..*self }
    }
}

impl<'a> Parts<'a> {
    fn sort(objects: impl IntoIterator<Item = &'a Located>) -> Self {
        let mut parts = Self::default();
        for Located { object, origin } in objects {
            match object {
                Object::Service(o) => parts.services.push(written(o, &o.metadata, origin)),
                Object::EndpointSlice(o) => parts.slices.push(written(o, &o.metadata, origin)),
                Object::HttpRoute(o) => parts.http_routes.push(written(o, &o.metadata, origin)),
                Object::GrpcRoute(o) => parts.grpc_routes.push(written(o, &o.metadata, origin)),
                Object::ReferenceGrant(o) => parts.grants.push(written(o, &o.metadata, origin)),
                Object::Workload(o) => parts.workloads.push(written(o, &o.metadata, origin)),
                Object::TrafficPolicy(o) => parts.traffic.push(written(o, &o.metadata, origin)),
                Object::MeshTls(o) => parts.tls.push(written(o, &o.metadata, origin)),
                Object::AccessPolicy(o) => parts.access.push(written(o, &o.metadata, origin)),
                Object::FaultPolicy(o) => parts.faults.push(written(o, &o.metadata, origin)),
                // Workloads name their account; the object itself adds nothing yet.
                Object::ServiceAccount(_) => {}
            }
        }
        parts
    }
}

fn written<'a, T>(object: &'a T, metadata: &ObjectMeta, origin: &'a Origin) -> Written<'a, T> {
    let namespace = metadata.namespace.as_deref().filter(|n| !n.is_empty());
    Written {
        object,
        origin,
        name: ObjectName::new(namespace.unwrap_or(DEFAULT_NAMESPACE), metadata.name.as_deref().unwrap_or_default()),
        created: metadata.creation_timestamp.as_ref().map_or(i64::MAX, |t| t.0.as_second()),
    }
}

impl<T> Written<'_, T> {
    fn seniority(&self) -> Seniority {
        Seniority { created: self.created, name: self.name.clone() }
    }
}

/// Problems found so far.
struct Notes {
    problems: Vec<Problem>,
}

impl Notes {
    fn error(&mut self, origin: &Origin, path: &FieldPath, value: impl ToString, why: String, hint: &str) {
        self.problems.push(origin.problem(Severity::Error, path, value.to_string(), why, hint));
    }

    fn warning(&mut self, origin: &Origin, path: &FieldPath, value: impl ToString, why: String, hint: &str) {
        self.problems.push(origin.problem(Severity::Warning, path, value.to_string(), why, hint));
    }
}

/// `spec.<name>`.
fn spec(name: &'static str) -> FieldPath {
    FieldPath::root().key("spec").key(name)
}
