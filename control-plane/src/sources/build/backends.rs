//! Backends of routes: what they refer to, and whether they may.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::gateway::{BackendReference, ParentReference, ReferenceGrantSpec};
use weft_api::{FieldPath, Origin};

use super::routes::Kind;
use super::services::Services;
use super::{Notes, Parts, Written};
use crate::model::ObjectName;
use crate::model::route::Reference;

/// What happens to the share of a reference that is not resolved.
const REFUSED: &str = "its share of the requests is answered with 500";

/// The ReferenceGrants by the namespace that they open.
pub(super) struct Grants<'a>(BTreeMap<Arc<str>, Vec<&'a ReferenceGrantSpec>>);

impl<'a> Grants<'a> {
    pub(super) fn of(parts: &Parts<'a>) -> Self {
        let mut grants: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for grant in &parts.grants {
            grants.entry(grant.name.namespace.clone()).or_default().push(&grant.object.spec);
        }
        Self(grants)
    }

    fn permit(&self, kind: Kind, from: &str, to: &ObjectName) -> bool {
        self.0.get(&to.namespace).is_some_and(|all| all.iter().any(|g| g.permits(kind.name(), from, &to.name)))
    }
}

/// Resolves the backends of one route, and tells about those that cannot be.
pub(super) struct Backends<'a> {
    origin: &'a Origin,
    namespace: &'a str,
    /// The Services that the route governs.
    parents: Vec<ObjectName>,
    kind: Kind,
    services: &'a Services<'a>,
    grants: &'a Grants<'a>,
    notes: &'a mut Notes,
}

impl<'a> Backends<'a> {
    pub(super) fn of<T>(
        route: &'a Written<'_, T>,
        parents: &[ParentReference],
        kind: Kind,
        services: &'a Services<'a>,
        grants: &'a Grants<'a>,
        notes: &'a mut Notes,
    ) -> Self {
        let namespace = &*route.name.namespace;
        let parents = parents
            .iter()
            .filter(|p| p.kind.as_deref() == Some("Service"))
            .map(|p| ObjectName::new(p.namespace.as_deref().unwrap_or(namespace), p.name.as_str()))
            .collect();
        Self { origin: route.origin, namespace, parents, kind, services, grants, notes }
    }

    /// The service port that a reference names.
    pub(super) fn resolve(&mut self, backend: &BackendReference, path: &FieldPath) -> (ObjectName, u16, Reference) {
        let namespace = backend.namespace.as_deref().unwrap_or(self.namespace);
        let name = ObjectName::new(namespace, backend.name.as_str());
        let port = backend.port.unwrap_or_default();
        let is_service = backend.group.as_deref().is_none_or(str::is_empty)
            && backend.kind.as_deref().is_none_or(|k| k == "Service");
        if !is_service {
            // Told when the file was read.
            return (name, port, Reference::Missing);
        }
        // Before anything is said of what is there: whether a Service exists is the other namespace's business.
        if !self.may_refer_to(&name) {
            let hint = format!(
                "{REFUSED}; write a ReferenceGrant in namespace {namespace}, from {} of namespace {} to Service",
                self.kind.name(),
                self.namespace
            );
            let why = format!("namespace {namespace} does not allow {}s of this namespace", self.kind.name());
            self.notes.warning(self.origin, &path.key("namespace"), namespace, why, &hint);
            return (name, port, Reference::NotPermitted);
        }
        let found = self.services.get(&name).map(|s| s.service.port(port).is_some());
        match found {
            Some(true) => return (name, port, Reference::Resolved),
            Some(false) => {
                let why = format!("Service {name} has no such port");
                self.notes.warning(self.origin, &path.key("port"), port, why, REFUSED);
            }
            None => {
                let why = format!("there is no Service {name}");
                self.notes.warning(self.origin, &path.key("name"), &backend.name, why, REFUSED);
            }
        }
        (name, port, Reference::Missing)
    }

    /// A route of another namespace may send requests to the very Service that they were for: it takes them nowhere new.
    fn may_refer_to(&self, service: &ObjectName) -> bool {
        *service.namespace == *self.namespace
            || self.parents.contains(service)
            || self.grants.permit(self.kind, self.namespace, service)
    }
}
