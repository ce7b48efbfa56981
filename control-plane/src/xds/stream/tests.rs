use std::time::Duration;

use tonic::Code;

use super::*;
use crate::configuration::Configuration;
use crate::identity::authority::Trust;
use crate::model::{MeshConfig, Model};
use crate::sources::build;
use crate::xds::subscriptions::Delta;

const HOUR: Duration = Duration::from_secs(3600);

const WEB: &str = "
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: web-0, namespace: shop}
spec: {addresses: [198.18.0.10], serviceAccount: web, workload: web}
";

fn configuration(yaml: &str) -> Configuration {
    let objects = weft_api::parse("f.yaml", yaml).objects;
    let config = Arc::new(MeshConfig::default());
    let model = if objects.is_empty() { Model::empty(config) } else { build(&objects, &config, None).unwrap().model };
    Configuration { model: Arc::new(model), trust: Arc::new(Trust { bundle: Vec::new(), signer: 0 }) }
}

type Answer = Result<<Delta as Dialect>::Outgoing, Status>;

/// A stream of web-0 that says nothing, with what its client hears, and its connection.
fn open(cache: &Arc<Cache>, lasts: Duration) -> (mpsc::Receiver<Answer>, CancellationToken) {
    let close = CancellationToken::new();
    let shared = Shared {
        cache: cache.clone(),
        registry: Arc::default(),
        metrics: Arc::new(Metrics::new()),
        source: watch::Sender::default().subscribe(),
        stop: CancellationToken::new(),
    };
    let word = |text: &str| Arc::<str>::from(text);
    let principal = Principal {
        namespace: word("shop"),
        pod: word("web-0"),
        workload: word("web"),
        service_account: word("web"),
        uid: None,
        zone: None,
    };
    let caller = Caller { principal, expires: SystemTime::now() + lasts, close: close.clone() };
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(serve::<Delta>(shared, caller, futures_util::stream::pending(), sender));
    (receiver, close)
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_when_the_credentials_it_was_opened_with_expire() {
    let cache = Arc::new(Cache::new(configuration(WEB)));
    let (mut heard, close) = open(&cache, HOUR);
    let before = Instant::now();
    let status = heard.recv().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert!(status.message().contains("expired"), "{status}");
    // The clock of certificates went on a little before the stream looked at it.
    let lasted = before.elapsed();
    assert!(lasted > HOUR - Duration::from_secs(60) && lasted <= HOUR + Duration::from_secs(1), "{lasted:?}");
    assert!(close.is_cancelled(), "a new stream needs a connection with new credentials");
    assert!(heard.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_once_when_its_pod_is_gone_or_became_another_workload() {
    let other_account = WEB.replace("serviceAccount: web", "serviceAccount: other");
    let other_workload = WEB.replace("workload: web", "workload: other");
    for after in ["", &other_account, &other_workload] {
        let cache = Arc::new(Cache::new(configuration(WEB)));
        let (mut heard, close) = open(&cache, HOUR);
        cache.update(configuration(&WEB.replace("198.18.0.10", "198.18.0.11")), Instant::now());
        tokio::task::yield_now().await;
        assert!(heard.try_recv().is_err() && !close.is_cancelled(), "a pod may change its address");

        let before = Instant::now();
        cache.update(configuration(after), Instant::now());
        let status = heard.recv().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{status}");
        assert!(status.message().contains("another workload"), "{status}");
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert!(close.is_cancelled());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_pod_went_while_it_was_opened_ends_too() {
    let cache = Arc::new(Cache::new(configuration("")));
    let (mut heard, _) = open(&cache, HOUR);
    let before = Instant::now();
    assert_eq!(heard.recv().await.unwrap().unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(before.elapsed(), Duration::ZERO);
}
