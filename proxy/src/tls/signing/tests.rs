use super::*;
use crate::tls::testing::{TestCa, Who, alice};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tonic::{Request, Response, Status};
use weft_xds::identity::SignResponse;
use weft_xds::identity::identity_server::{Identity, IdentityServer};

/// A control plane in the same process: no socket, so that paused time can pass.
struct ControlPlane {
    ca: TestCa,
    who: Mutex<Who>,
    down: AtomicBool,
    signed: AtomicUsize,
    attempts: AtomicUsize,
}

impl ControlPlane {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ca: TestCa::new(),
            who: Mutex::new(alice()),
            down: AtomicBool::new(false),
            signed: AtomicUsize::new(0),
            attempts: AtomicUsize::new(0),
        })
    }

    fn signed(&self) -> usize {
        self.signed.load(Ordering::SeqCst)
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }

    fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

#[tonic::async_trait]
impl Identity for ControlPlane {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("down"));
        }
        if request.metadata().get("authorization").map(|value| value.as_bytes()) != Some(b"Bearer let-me-in") {
            return Err(Status::unauthenticated("no such token"));
        }
        self.signed.fetch_add(1, Ordering::SeqCst);
        let who = self.who.lock().unwrap().clone();
        Ok(Response::new(SignResponse {
            chain_der: vec![self.ca.sign(&request.into_inner().csr_der, &who).to_vec()],
            bundle_der: vec![self.ca.root().to_vec()],
            not_before: 0,
            not_after: 0,
        }))
    }
}

struct Sidecar {
    local: Arc<LocalIdentity>,
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<Infallible>,
}

fn start(control_plane: &Arc<ControlPlane>, folder: tempfile::TempDir) -> Sidecar {
    let token = folder.path().join("token");
    std::fs::write(&token, "let-me-in\n").unwrap();
    let local = LocalIdentity::new();
    let renewal = Renewal::new(IdentityServer::from_arc(Arc::clone(control_plane)), Arc::clone(&local))
        .with_token_file(token)
        .with_state_dir(StateDir::open(folder.path().join("state")).unwrap());
    let task = tokio::spawn(renewal.run());
    Sidecar { local, folder, task }
}

async fn generation(local: &LocalIdentity, at_least: u64) {
    local.subscribe().wait_for(|now| *now >= at_least).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_gets_a_certificate_and_renews_it_at_half_life() {
    let control_plane = ControlPlane::new();
    let sidecar = start(&control_plane, tempfile::tempdir().unwrap());
    sidecar.local.ready().await;
    let first = sidecar.local.current().leaf.as_ref().unwrap().serial.clone();
    assert_eq!(control_plane.signed(), 1);
    let start = Instant::now();
    // It lives for an hour.
    generation(&sidecar.local, 2).await;
    let after = start.elapsed().as_secs();
    assert!((27 * 60 - 5..=33 * 60 + 5).contains(&after), "{after}");
    assert_ne!(sidecar.local.current().leaf.as_ref().unwrap().serial, first);
    sidecar.task.abort();
}

#[tokio::test(start_paused = true)]
async fn the_last_good_certificate_stays_while_the_control_plane_is_down() {
    let control_plane = ControlPlane::new();
    let sidecar = start(&control_plane, tempfile::tempdir().unwrap());
    sidecar.local.ready().await;
    control_plane.set_down(true);
    tokio::time::sleep(Duration::from_secs(50 * 60)).await;
    assert!(sidecar.local.is_ready());
    assert_eq!(sidecar.local.generation(), 1);
    let attempts = control_plane.attempts();
    assert!((20..100).contains(&attempts), "backs off: {attempts}");
    assert!(sidecar.local.last_failure().unwrap().contains("Unavailable: down"));
    control_plane.set_down(false);
    generation(&sidecar.local, 2).await;
    assert_eq!(sidecar.local.last_failure(), None);
    sidecar.task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_control_plane_uses_what_was_saved() {
    let control_plane = ControlPlane::new();
    let sidecar = start(&control_plane, tempfile::tempdir().unwrap());
    sidecar.local.ready().await;
    let serial = sidecar.local.current().leaf.as_ref().unwrap().serial.clone();
    // A bundle that came by SDS is saved too.
    let other = TestCa::new();
    sidecar.local.set_bundle(TrustBundle::new(vec![control_plane.ca.root(), other.root()]).unwrap());
    tokio::time::sleep(Duration::from_millis(1)).await;
    sidecar.task.abort();
    control_plane.set_down(true);
    let restarted = start(&control_plane, sidecar.folder);
    restarted.local.ready().await;
    let current = restarted.local.current();
    assert_eq!(current.leaf.as_ref().unwrap().serial, serial);
    assert_eq!(current.bundle.as_ref().unwrap().certificates().len(), 2);
    restarted.task.abort();
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDir::open(folder.path()).unwrap();
    let ca = TestCa::new();
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let mut who = alice();
    who.not_after = SystemTime::now() - Duration::from_secs(1);
    state.save_leaf(&key.serialize_pem(), &[ca.sign(csr.der(), &who)]).unwrap();
    state.save_bundle(&ca.bundle()).unwrap();
    let local = LocalIdentity::new();
    restore(&local, Some(&state));
    assert!(!local.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_and_a_missing_one_say_what_to_do() {
    let control_plane = ControlPlane::new();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let local = LocalIdentity::new();
    let channel = IdentityServer::from_arc(Arc::clone(&control_plane));
    let mut renewal = Renewal::new(channel, Arc::clone(&local)).with_token_file(&token);
    let error = renewal.attempt().await.unwrap_err().to_string();
    assert!(error.contains("weft-control-plane token"), "{error}");
    std::fs::write(&token, "wrong").unwrap();
    let error = renewal.attempt().await.unwrap_err().to_string();
    assert!(error.contains("no such token"), "{error}");
    assert!(!local.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_without_an_identity_is_not_installed() {
    let control_plane = ControlPlane::new();
    control_plane.who.lock().unwrap().uris.clear();
    let sidecar = start(&control_plane, tempfile::tempdir().unwrap());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!sidecar.local.is_ready());
    assert!(sidecar.local.last_failure().unwrap().contains("not exactly one SPIFFE id"));
    sidecar.task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_can_be_asked_for() {
    let control_plane = ControlPlane::new();
    let sidecar = start(&control_plane, tempfile::tempdir().unwrap());
    sidecar.local.ready().await;
    let start = Instant::now();
    sidecar.local.request_renewal();
    generation(&sidecar.local, 2).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    sidecar.task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_bundle_without_our_root_makes_it_ask_for_a_new_certificate_at_once() {
    let control_plane = ControlPlane::new();
    let sidecar = start(&control_plane, tempfile::tempdir().unwrap());
    sidecar.local.ready().await;
    let start = Instant::now();
    let both = vec![control_plane.ca.root(), TestCa::new().root()];
    sidecar.local.set_bundle(TrustBundle::new(both).unwrap());
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(control_plane.signed(), 1, "our root is still there");
    sidecar.local.set_bundle(TestCa::new().bundle());
    generation(&sidecar.local, 4).await;
    assert_eq!(control_plane.signed(), 2);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(sidecar.local.current().verifies_itself());
    sidecar.task.abort();
}
