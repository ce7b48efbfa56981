//! ReferenceGrant: the Gateway API's own validation rules, and what looks like a grant but grants nothing here.

use super::Check;
use crate::gateway::{GROUP, ReferenceGrant};

/// The kinds of route whose backends are looked at.
const ROUTES: [&str; 2] = ["HTTPRoute", "GRPCRoute"];

pub(crate) fn reference_grant(c: &mut Check, grant: &ReferenceGrant) {
    c.metadata(&grant.metadata, false);
    c.field("spec", |c| {
        if grant.spec.from.is_empty() {
            c.field("from", |c| c.error("", "is missing", "name the kind and namespace of the routes that may refer"));
        }
        c.each("from", &grant.spec.from, |c, from| {
            c.field("namespace", |c| c.label_name(&from.namespace));
            if ROUTES.contains(&from.kind.as_str()) && from.group != GROUP {
                c.field("group", |c| {
                    c.error(&from.group, format!("is not the group of {}", from.kind), format!("write {GROUP}"));
                });
            }
        });
        if grant.spec.to.is_empty() {
            c.field("to", |c| c.error("", "is missing", "name the kind of what may be referred to: Service"));
        }
        c.each("to", &grant.spec.to, |c, to| {
            if to.kind == "Service" && !to.group.is_empty() {
                c.field("group", |c| c.error(&to.group, "a Service is in the core group", "write group: \"\""));
            }
        });
    });
}
