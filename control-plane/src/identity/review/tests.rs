//! Tokens in, answers of a fake API server back, who it is out.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::*;

/// A reviewer, and how often its API server was asked.
struct Fake {
    reviewer: Reviewer,
    asked: Arc<AtomicUsize>,
}

/// An API server that answers every question with this status of a TokenReview.
fn answering(status: Value) -> Fake {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        counter.fetch_add(1, Ordering::SeqCst);
        let status = status.clone();
        async move {
            assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
            let question = request.into_body().collect().await.unwrap().to_bytes();
            let mut review: Value = serde_json::from_slice(&question).unwrap();
            assert_eq!(review["spec"]["audiences"], json!(["weft"]));
            review["status"] = status;
            Ok::<_, Infallible>(http::Response::new(kube::client::Body::from(review.to_string().into_bytes())))
        }
    });
    let client = kube::Client::new(service, "default");
    Fake { reviewer: Reviewer::new(client, Arc::new(Metrics::new())), asked }
}

fn accepted() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["weft"],
        "user": {
            "username": "system:serviceaccount:shop:web",
            "extra": { POD_NAME: ["web-0"], POD_UID: ["17"] },
        },
    })
}

fn token(expires: SystemTime) -> String {
    let seconds = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(json!({ "exp": seconds }).to_string()))
}

fn whole_seconds(after: Duration) -> SystemTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()) + after
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_bound_token_is_its_pods_until_it_expires() {
    let expires = whole_seconds(HOUR);
    let reviewed = answering(accepted()).reviewer.review(&token(expires), SystemTime::now()).await.unwrap();
    assert_eq!(
        reviewed,
        Reviewed {
            namespace: "shop".into(),
            pod: "web-0".into(),
            uid: "17".into(),
            service_account: "web".into(),
            expires
        }
    );
}

#[tokio::test]
async fn what_the_api_server_refuses_is_refused_with_its_reason() {
    let status = json!({ "authenticated": false, "error": "token audiences [other] is invalid" });
    let error = answering(status).reviewer.review("x.y.z", SystemTime::now()).await.unwrap_err();
    assert!(matches!(&error, ReviewError::Refused(why) if why.contains("[other]")), "{error}");
    assert!(error.to_string().contains("audience: weft"), "{error}");
}

#[tokio::test]
async fn an_answer_for_another_audience_proves_nothing() {
    let mut status = accepted();
    status["audiences"] = json!(["https://kubernetes.default.svc"]);
    let error = answering(status).reviewer.review("x.y.z", SystemTime::now()).await.unwrap_err();
    assert!(matches!(error, ReviewError::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_token_that_is_bound_to_no_pod_proves_nothing() {
    let mut status = accepted();
    status["user"]["extra"] = json!({});
    let error = answering(status).reviewer.review("x.y.z", SystemTime::now()).await.unwrap_err();
    assert_eq!(error, ReviewError::NoPod("system:serviceaccount:shop:web".into()));
    let mut status = accepted();
    status["user"]["username"] = "system:node:n1".into();
    let error = answering(status).reviewer.review("x.y.z", SystemTime::now()).await.unwrap_err();
    assert_eq!(error, ReviewError::NoPod("system:node:n1".into()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_believed_for_ten_seconds() {
    let fake = answering(accepted());
    let token = token(SystemTime::now() + HOUR);
    for _ in 0..3 {
        fake.reviewer.review(&token, SystemTime::now()).await.unwrap();
        tokio::time::advance(Duration::from_secs(4)).await;
    }
    assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
    fake.reviewer.review(&token, SystemTime::now()).await.unwrap();
    assert_eq!(fake.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_remembered_token_expires_all_the_same() {
    let fake = answering(accepted());
    let expires = SystemTime::now() + HOUR;
    fake.reviewer.review(&token(expires), SystemTime::now()).await.unwrap();
    let error = fake.reviewer.review(&token(expires), expires).await.unwrap_err();
    assert!(matches!(error, ReviewError::Refused(_)), "{error}");
}

#[tokio::test]
async fn an_outage_is_no_answer_and_not_remembered() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = asked.clone();
    let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
        counter.fetch_add(1, Ordering::SeqCst);
        async { Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("connection refused")) }
    });
    let reviewer = Reviewer::new(kube::Client::new(service, "default"), Arc::new(Metrics::new()));
    for asked_so_far in 1..3 {
        let error = reviewer.review("x.y.z", SystemTime::now()).await.unwrap_err();
        assert!(matches!(error, ReviewError::Unavailable(_)), "{error}");
        assert!(error.to_string().contains("connection refused"), "{error}");
        assert_eq!(asked.load(Ordering::SeqCst), asked_so_far);
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_not_waited_for_longer_than_the_proxy_waits() {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, Infallible>>()
    });
    let reviewer = Reviewer::new(kube::Client::new(service, "default"), Arc::new(Metrics::new()));
    let started = Instant::now();
    let error = reviewer.review("x.y.z", SystemTime::now()).await.unwrap_err();
    assert!(matches!(error, ReviewError::Unavailable(_)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
