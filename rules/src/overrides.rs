//! What routes and virtual hosts change about HTTP filters (`typed_per_filter_config`).

use std::collections::HashMap;
use std::sync::Arc;

use weft_xds::{FieldError, any};

use crate::fault::Fault;
use crate::proto::{http_fault, http_rbac, protobuf, refuse, route};
use crate::rbac::Rbac;

/// What one filter does differently on a route.
#[derive(Debug, Clone)]
pub enum FilterOverride {
    /// The filter is skipped.
    Disabled,
    /// The RBAC filter decides by these rules instead.
    Rbac(Arc<Rbac>),
    /// The fault filter injects these faults instead.
    Fault(Arc<Fault>),
}

/// Overrides by filter name, the most specific level's only. A handful at most, hence a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct FilterOverrides(Vec<(String, FilterOverride)>);

impl FilterOverrides {
    /// Compiles one level; `path` is the path of the message that holds the map.
    pub(crate) fn compile(messages: &HashMap<String, protobuf::Any>, path: &str) -> Result<Self, FieldError> {
        let mut overrides = Vec::with_capacity(messages.len());
        for (name, message) in messages {
            if let Some(found) = compile(message, &format!("{path}.typed_per_filter_config[{name:?}]"))? {
                overrides.push((name.clone(), found));
            }
        }
        Ok(Self(overrides))
    }

    /// This level on top of a wider one.
    pub(crate) fn over(mut self, wider: &Self) -> Self {
        let missing: Vec<_> = wider.0.iter().filter(|(name, _)| self.get(name).is_none()).cloned().collect();
        self.0.extend(missing);
        self
    }

    pub(crate) fn get(&self, filter: &str) -> Option<&FilterOverride> {
        self.0.iter().find(|(name, _)| name == filter).map(|(_, found)| found)
    }
}

fn compile(message: &protobuf::Any, path: &str) -> Result<Option<FilterOverride>, FieldError> {
    if any::is::<route::FilterConfig>(message) {
        let wrapper: route::FilterConfig = any::unpack(message, path)?;
        let path = format!("{path}.config");
        return match &wrapper.config {
            _ if wrapper.disabled => Ok(Some(FilterOverride::Disabled)),
            // An empty configuration only turns on a filter that is off by default, of which there is none.
            None => Ok(None),
            Some(config) if wrapper.is_optional && !is_known(config) => Ok(None),
            Some(config) => compile_filter(config, &path).map(Some),
        };
    }
    compile_filter(message, path).map(Some)
}

fn compile_filter(message: &protobuf::Any, path: &str) -> Result<FilterOverride, FieldError> {
    if any::is::<http_fault::HttpFault>(message) {
        let fault: http_fault::HttpFault = any::unpack(message, path)?;
        return Ok(FilterOverride::Fault(Arc::new(Fault::compile(&fault, path)?)));
    }
    if any::is::<http_rbac::RbacPerRoute>(message) {
        let per_route: http_rbac::RbacPerRoute = any::unpack(message, path)?;
        // Envoy: "If absent, RBAC policy will be disabled for this route".
        return Ok(match &per_route.rbac {
            None => FilterOverride::Disabled,
            Some(rbac) => FilterOverride::Rbac(Arc::new(Rbac::compile(rbac, &format!("{path}.rbac"))?)),
        });
    }
    Err(refuse(
        path,
        format!(
            "{} is not supported; known are HTTPFault, RBACPerRoute and FilterConfig",
            any::type_name(&message.type_url)
        ),
    ))
}

fn is_known(message: &protobuf::Any) -> bool {
    any::is::<http_fault::HttpFault>(message) || any::is::<http_rbac::RbacPerRoute>(message)
}
