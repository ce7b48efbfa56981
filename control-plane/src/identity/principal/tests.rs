//! Service-account tokens against what the mesh knows of pods. (Join tokens and certificates: `tests/serving/identity.rs`.)

use std::convert::Infallible;
use std::path::Path;

use serde_json::{Value, json};
use tonic::Code;

use super::*;
use crate::identity::authority::{Settings, Trust};
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
    Authenticator::new(
        "weft.local".into(),
        Tokens::ServiceAccount(Box::new(reviewer), authority(tempfile::tempdir().unwrap().path())),
    )
}

/// What the mesh knows: this pod with uid 17 and service account `web`.
fn mesh(pod: &str) -> Cache {
    with_uid(pod, "17")
}

fn with_uid(pod: &str, uid: &str) -> Cache {
    let yaml = format!(
        "apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {{name: {pod}, namespace: shop, uid: '{uid}'}}
spec: {{addresses: [198.18.0.10], serviceAccount: web, workload: web}}
"
    );
    let objects = weft_api::parse("test", &yaml).objects;
    let model = Arc::new(crate::sources::build(&objects, &Arc::default(), None).unwrap().model);
    Cache::new(Configuration { model, trust: Arc::new(Trust { bundle: Vec::new(), signer: 0 }) })
}

fn authority(folder: &Path) -> Arc<Authority> {
    let settings = Settings {
        trust_domain: "weft.local".into(),
        certificate_lifetime: Duration::from_secs(3600),
        root_overlap: Duration::from_secs(10),
    };
    // For a while now, so that a rotation may lie behind.
    let since = SystemTime::now() - Duration::from_secs(1000);
    Arc::new(Authority::open(folder, settings, since).unwrap())
}

async fn caller(authenticator: &Authenticator, mesh: &Cache) -> Result<Principal, Status> {
    with_token(authenticator, mesh, "a.b.c").await
}

async fn with_token(authenticator: &Authenticator, mesh: &Cache, token: &str) -> Result<Principal, Status> {
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", format!("Bearer {token}").parse().unwrap());
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

/// A token that the control plane makes for `shop/web-0` now.
fn made(authenticator: &Authenticator, mesh: &Cache) -> Result<String, String> {
    let claim = Claim { namespace: "shop".into(), pod: "web-0".into() };
    authenticator.join_token(&claim, Duration::from_secs(60), mesh, SystemTime::now())
}

#[tokio::test]
async fn a_workload_outside_the_cluster_joins_with_a_token_that_the_control_plane_made() {
    // Whom the API server is asked about it says to be another.
    let (authenticator, mesh) = (saying("18", "web"), mesh("web-0"));
    let token = made(&authenticator, &mesh).unwrap();
    let principal = with_token(&authenticator, &mesh, &token).await.unwrap();
    assert_eq!((&*principal.pod, &*principal.service_account), ("web-0", "web"));

    let elsewhere = made(&saying("17", "web"), &mesh).unwrap();
    let status = with_token(&authenticator, &mesh, &elsewhere).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("not one of this control plane"), "{status}");
}

#[tokio::test]
async fn a_join_token_is_good_for_the_pod_that_it_was_made_for_and_no_other_of_its_name() {
    let authenticator = saying("17", "web");
    let token = made(&authenticator, &mesh("web-0")).unwrap();
    let again = with_uid("web-0", "18");
    let status = with_token(&authenticator, &again, &token).await.unwrap_err();
    assert!(status.message().contains("before this one"), "{status}");
    let unknown = made(&authenticator, &mesh("web-1")).unwrap_err();
    assert!(unknown.contains("no pod shop/web-0"), "{unknown}");
}

#[tokio::test]
async fn a_join_token_is_good_as_long_as_the_root_of_its_time_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(folder.path());
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is asked"))
    });
    let reviewer = Reviewer::new(kube::Client::new(service, "default"), Arc::new(Metrics::new()));
    let tokens = Tokens::ServiceAccount(Box::new(reviewer), authority.clone());
    let (authenticator, mesh) = (Authenticator::new("weft.local".into(), tokens), mesh("web-0"));
    let token = made(&authenticator, &mesh).unwrap();
    let signs_with = authority.trust().borrow().signer;
    // So long ago that the new root signs by now.
    authority.rotate(SystemTime::now() - Duration::from_secs(100)).await.unwrap();
    authority.advance(SystemTime::now()).await.unwrap();
    assert_ne!(authority.trust().borrow().signer, signs_with);
    with_token(&authenticator, &mesh, &token).await.unwrap();
}
