//! Service-account tokens against what the mesh knows of pods. (Join tokens and certificates: `tests/serving/identity.rs`.)

use std::convert::Infallible;

use serde_json::{Value, json};
use tonic::Code;

use super::*;
use crate::identity::authority::Trust;
use crate::metrics::Metrics;

/// An authenticator whose API server says of every token that it is of pod `shop/web-0` with this uid and service account.
fn saying(uid: &str, account: &str) -> Authenticator {
    let status = json!({
        "authenticated": true,
        "audiences": ["weft"],
        "user": {
            "username": format!("system:serviceaccount:shop:{account}"),
            "extra": {
                "authentication.kubernetes.io/pod-name": ["web-0"],
                "authentication.kubernetes.io/pod-uid": [uid],
            },
        },
    });
    let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
        let review: Value =
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status });
        async move { Ok::<_, Infallible>(http::Response::new(kube::client::Body::from(review.to_string().into_bytes()))) }
    });
    let reviewer = Reviewer::new(kube::Client::new(service, "default"), Arc::new(Metrics::new()));
    Authenticator::new("weft.local".into(), Tokens::ServiceAccount(Box::new(reviewer)))
}

/// What the mesh knows: this pod with uid 17 and service account `web`.
fn mesh(pod: &str) -> Cache {
    let yaml = format!(
        "apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {{name: {pod}, namespace: shop, uid: '17'}}
spec: {{addresses: [198.18.0.10], serviceAccount: web, workload: web}}
"
    );
    let objects = weft_api::parse("test", &yaml).objects;
    let model = Arc::new(crate::sources::build(&objects, &Arc::default(), None).unwrap().model);
    Cache::new(Configuration { model, trust: Arc::new(Trust { bundle: Vec::new(), signer: 0 }) })
}

async fn caller(authenticator: &Authenticator, mesh: &Cache) -> Result<Principal, Status> {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", "Bearer a.b.c".parse().unwrap());
    authenticator.caller(&Extensions::default(), &metadata, mesh).await.map(|caller| caller.principal)
}

#[tokio::test]
async fn the_pod_that_a_token_is_bound_to_is_the_caller() {
    let principal = caller(&saying("17", "web"), &mesh("web-0")).await.unwrap();
    assert_eq!((&*principal.pod, &*principal.workload, &*principal.service_account), ("web-0", "web", "web"));
}

#[tokio::test]
async fn a_token_of_another_pod_of_the_same_name_is_refused() {
    let status = caller(&saying("18", "web"), &mesh("web-0")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("uid 18") && status.message().contains("uid 17"), "{status}");
}

#[tokio::test]
async fn a_token_of_another_account_than_the_pods_is_refused() {
    assert_eq!(caller(&saying("17", "admin"), &mesh("web-0")).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_pod_that_the_mesh_does_not_know_is_refused_and_told_to_ask_again() {
    let status = caller(&saying("17", "web"), &mesh("web-1")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().ends_with("ask again"), "{status}");
}
