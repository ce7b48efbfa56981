//! What tests need: pods, and an API server that answers from a table.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::{Value, json};
use weft_cni::injection::REDIRECT;
use weft_cni::redirect::Redirect;

/// A redirection that is not the default one.
pub(crate) fn redirect() -> Redirect {
    Redirect { exclude_uid: Some(1337), exclude_outbound_ports: vec![3306], ..Redirect::default() }
}

/// A running pod in the namespace `shop`.
pub(crate) fn pod(name: &str, uid: &str, is_injected: bool) -> Pod {
    let mut annotations = BTreeMap::new();
    if is_injected {
        annotations.insert(REDIRECT, serde_json::to_string(&redirect()).unwrap());
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": "shop", "name": name, "uid": uid, "annotations": annotations },
        "spec": { "containers": [] },
        "status": { "phase": "Running" },
    });
    serde_json::from_value(pod).unwrap()
}

/// An API server that answers requests for a path with a code and an object, and everything else with 500.
pub(crate) fn api(table: Vec<(&str, u16, Value)>) -> Client {
    let table: BTreeMap<String, (u16, Value)> =
        table.into_iter().map(|(path, code, answer)| (path.to_owned(), (code, answer))).collect();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let unknown = (
            500,
            json!({ "kind": "Status", "status": "Failure", "code": 500, "reason": "InternalError", "message": request.uri().path() }),
        );
        let (code, answer) = table.get(request.uri().path()).cloned().unwrap_or(unknown);
        let response =
            http::Response::builder().status(code).body(kube::client::Body::from(answer.to_string().into_bytes()));
        async { response }
    });
    Client::new(service, "default")
}
