//! Checks of single objects that a type alone cannot express: ranges, names, fields that belong together.
//!
//! Each check adds what it finds and goes on, so that one run shows everything. What concerns several objects
//! (a route's backend, say) is checked where the model is built.

mod core;
mod gateway;
mod grant;
mod mesh;
mod values;

use std::borrow::Cow;

pub(crate) use self::core::{endpoint_slice, service, service_account};
pub(crate) use self::gateway::{grpc_route, http_route};
pub(crate) use self::grant::reference_grant;
pub(crate) use self::mesh::{access_policy, fault_policy, mesh_tls, traffic_policy, workload};
use crate::path::{FieldPath, Step};
use crate::problem::Severity;
use crate::yaml::Finding;

/// Collects findings; knows the path of the field it looks at.
#[derive(Default)]
pub(crate) struct Check {
    at: FieldPath,
    findings: Vec<Finding>,
}

impl Check {
    pub(crate) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    /// Checks below field `name`.
    fn field<T>(&mut self, name: impl Into<Cow<'static, str>>, check: impl FnOnce(&mut Self) -> T) -> T {
        self.at.steps_mut().push(Step::Key(name.into()));
        let result = check(self);
        self.at.steps_mut().pop();
        result
    }

    /// Checks each element of list `name`.
    fn each<T>(&mut self, name: &'static str, items: &[T], mut check: impl FnMut(&mut Self, &T)) {
        self.field(name, |c| {
            for (index, item) in items.iter().enumerate() {
                c.at.steps_mut().push(Step::Index(index));
                check(c, item);
                c.at.steps_mut().pop();
            }
        });
    }

    fn error(&mut self, value: impl ToString, why: impl Into<String>, hint: impl Into<String>) {
        self.find(Severity::Error, value, why, hint);
    }

    fn warning(&mut self, value: impl ToString, why: impl Into<String>, hint: impl Into<String>) {
        self.find(Severity::Warning, value, why, hint);
    }

    fn find(&mut self, severity: Severity, value: impl ToString, why: impl Into<String>, hint: impl Into<String>) {
        self.findings.push(Finding {
            path: self.at.clone(),
            value: value.to_string(),
            why: why.into(),
            hint: hint.into(),
            severity,
        });
    }
}
