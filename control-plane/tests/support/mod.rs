//! YAML in, models and compact descriptions of rendered resources out.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // Helpers of tests: a panic is a failed test.

pub mod describe;

use std::sync::Arc;

use weft_api::Problem;
use weft_control_plane::model::{MeshConfig, Model};
use weft_control_plane::render::render;
use weft_control_plane::sources::{Built, build};
use weft_control_plane::{ResourceKey, ResourceType, View};
use weft_xds::google::protobuf::Any;

/// Parses and builds; every problem as text, warnings too.
pub fn try_build(yaml: &str, previous: Option<&Model>) -> Result<(Model, Vec<String>), Vec<String>> {
    let manifest = weft_api::parse("f.yaml", yaml);
    let text = |problems: Vec<Problem>| -> Vec<String> { problems.iter().map(ToString::to_string).collect() };
    if manifest.has_errors() {
        return Err(text(manifest.problems));
    }
    match build(&manifest.objects, &Arc::new(MeshConfig::default()), previous) {
        Ok(Built { model, warnings }) => Ok((model, text(warnings))),
        Err(problems) => Err(text(problems)),
    }
}

/// A model from YAML without any problem.
#[track_caller]
pub fn model(yaml: &str) -> Model {
    match try_build(yaml, None) {
        Ok((model, warnings)) => {
            assert_eq!(warnings, Vec::<String>::new());
            model
        }
        Err(problems) => panic!("{problems:#?}"),
    }
}

/// The resource as a sidecar in namespace `namespace` gets it.
pub fn resource(model: &Model, kind: ResourceType, name: &str, namespace: &str) -> Option<Any> {
    render(model, &ResourceKey::new(kind, name), &View::weft(namespace))
}

/// [`resource`], described.
#[track_caller]
pub fn described(model: &Model, kind: ResourceType, name: &str, namespace: &str) -> String {
    match resource(model, kind, name, namespace) {
        Some(any) => describe::describe(&any),
        None => "absent\n".to_owned(),
    }
}

/// A service with one port, an explicit address and one replica behind it, all of one name.
pub fn service(name: &str, address: &str, port: &str, pod: &str) -> String {
    format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{clusterIP: {address}, selector: {{app: {name}}}, ports: [{port}]}}
---
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {{name: {name}-0, namespace: shop, labels: {{app: {name}}}}}
spec: {{addresses: [{pod}], serviceAccount: {name}, workload: {name}}}
"
    )
}
