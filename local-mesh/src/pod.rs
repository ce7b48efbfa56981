//! One pod of the mesh: sidecar, application, redirection, and the Workload file that makes it known.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use weft_cni::redirect::{PROBE_PORT, Redirect};
use weft_sandbox::{Pod, Process};

use crate::client::{Answer, Call};
use crate::control_plane::{ControlPlane, alive};
use crate::programs::Programs;
use crate::sidecar::{self, Counted, Sidecar};
use crate::{App, Error, Load, Outcome, Samples, probe, wait};

/// How long a pod may take from nothing to serving, on a machine that is busy.
const START: Duration = Duration::from_secs(60);

/// The mark that the sidecar sets on its connections: a rootless sandbox has only one user to tell it by.
pub(crate) const MARK: u32 = 0x57ef;

/// What a new pod shall be.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The pod's name.
    pub name: String,
    /// Its owner, whose replicas share their configuration.
    pub workload: String,
    /// A role of the shop, which also is the label `app`; none if nothing listens there.
    pub role: Option<String>,
    /// The label `version`, which the application shows in its answers.
    pub version: String,
    /// The service account, which is the identity.
    pub service_account: String,
    /// What runs as its sidecar.
    pub sidecar: Sidecar,
    /// Whether callers are told that it has mutual TLS.
    pub meshed: bool,
}

impl Spec {
    /// A pod in which only calls are made.
    pub fn client(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            workload: name.to_owned(),
            role: None,
            version: "v1".to_owned(),
            service_account: name.to_owned(),
            sidecar: Sidecar::default(),
            meshed: true,
        }
    }

    /// A replica of one of the shop's roles, `<role>-<version>`; its service account is the role's name.
    pub fn server(name: &str, role: &str, version: &str) -> Self {
        Self {
            workload: format!("{role}-{version}"),
            role: Some(role.to_owned()),
            version: version.to_owned(),
            service_account: role.to_owned(),
            ..Self::client(name)
        }
    }

    /// The same with this sidecar.
    #[must_use]
    pub fn with(self, sidecar: Sidecar) -> Self {
        Self { sidecar, ..self }
    }

    /// The file that declares the pod.
    pub fn file(&self) -> String {
        format!("workload-{}.yaml", self.name)
    }

    /// The pod as the control plane reads it.
    pub(crate) fn declaration(&self, namespace: &str, pod: &Pod, endpoint: Endpoint) -> String {
        let Self { name, workload, version, service_account, .. } = self;
        let app = self.role.as_ref().unwrap_or(name);
        let (v4, v6) = (pod.v4(), pod.v6());
        let (ready, terminating) = (endpoint == Endpoint::Ready, endpoint == Endpoint::Terminating);
        format!(
            "apiVersion: weft.mesh/v1alpha1\nkind: Workload\n\
             metadata: {{ name: {name}, namespace: {namespace}, labels: {{ app: {app}, version: {version} }} }}\n\
             spec:\n  addresses: [\"{v4}\", \"{v6}\"]\n  serviceAccount: {service_account}\n  workload: {workload}\n  \
             ready: {ready}\n  terminating: {terminating}\n  meshed: {}\n",
            self.meshed
        )
    }
}

/// Whether a Service sends requests to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// It does.
    Ready,
    /// It does not.
    NotReady,
    /// It does not any more: the pod finishes what it has.
    Terminating,
}

/// A pod with a sidecar.
#[derive(Debug)]
pub struct MeshPod {
    spec: Spec,
    pod: Pod,
    programs: Programs,
    sidecar: Mutex<Process>,
    /// What runs beside a sidecar that is not ours, and keeps its key and certificate.
    agent: Option<Process>,
    app: Option<Arc<App>>,
}

impl MeshPod {
    /// Starts sidecar and application in a pod that has been declared; waits until both are ready.
    pub(crate) async fn start(
        spec: Spec,
        namespace: &str,
        pod: Pod,
        programs: Programs,
        control_plane: &ControlPlane,
    ) -> Result<Self, Error> {
        let token = control_plane.token(namespace, pod.name()).await?;
        hand_in(&pod, "token", token.as_bytes())?;
        hand_in(&pod, "root.pem", control_plane.roots().await?.as_bytes())?;
        pod.redirect(&Redirect { exclude_mark: Some(MARK), ..Redirect::default() }).await?;
        let agent = sidecar::prepare(&spec, namespace, &pod, &programs, control_plane.address()).await?;
        let sidecar = Mutex::new(sidecar::spawn(spec.sidecar, &pod, &programs).await?);
        let mut mesh_pod = Self { spec, pod, programs, sidecar, agent, app: None };
        mesh_pod.sidecar_ready().await?;
        if let Some(role) = mesh_pod.spec.role.clone() {
            let (pod, program) = (mesh_pod.pod.clone(), mesh_pod.programs.shop.clone());
            let app = App::start(pod, program, role, mesh_pod.spec.version.clone()).await?;
            mesh_pod.app = Some(Arc::new(app));
        }
        Ok(mesh_pod)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.pod.name()
    }

    /// What it was asked to be.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The pod as the sandbox has it.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The sidecar's process.
    pub fn sidecar(&self) -> Process {
        self.sidecar.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Kills the sidecar as a crash would, and starts it again; waits until it is ready.
    ///
    /// # Errors
    /// If it ends, or is not ready in time.
    pub async fn restart_sidecar(&self) -> Result<(), Error> {
        let old = self.sidecar();
        old.kill();
        old.wait().await;
        let new = sidecar::spawn(self.spec.sidecar, &self.pod, &self.programs).await?;
        *self.sidecar.lock().unwrap_or_else(PoisonError::into_inner) = new;
        self.sidecar_ready().await
    }

    /// Makes one call from inside, with the options of `weft-shop probe`.
    ///
    /// # Errors
    /// If the call could not be attempted; its own failure is in the outcome.
    pub async fn probe(&self, target: &str, options: &[&str]) -> Result<Outcome, Error> {
        Ok(self.probes(target, options).await?.swap_remove(0))
    }

    /// Makes calls one after the other, as many as the option `--repeat` says: at least one outcome.
    ///
    /// # Errors
    /// As [`MeshPod::probe`].
    pub async fn probes(&self, target: &str, options: &[&str]) -> Result<Vec<Outcome>, Error> {
        probe::probe(&self.pod, &self.programs.shop, target, options).await
    }

    /// Starts a load from inside; the targets take turns.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn load(&self, targets: &[impl AsRef<str>], per_second: f64) -> Result<Load, Error> {
        Load::start(&self.pod, &self.programs.shop, targets, per_second).await
    }

    /// Where Prometheus finds `/stats/prometheus`.
    pub fn metrics_address(&self) -> SocketAddr {
        SocketAddr::new(self.pod.v4(), PROBE_PORT)
    }

    /// What runs beside a sidecar that is not ours, and keeps its key and certificate.
    pub fn agent(&self) -> Option<&Process> {
        self.agent.as_ref()
    }

    /// What the sidecar counts: our own as scraped from outside the pod, an Envoy from its admin server.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn metrics(&self) -> Result<Samples, Error> {
        Ok(Samples::parse(&self.statistics("/stats/prometheus").await?.text()?))
    }

    /// What the sidecar, whichever it is, counts of something.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn count(&self, what: Counted) -> Result<f64, Error> {
        Ok(what.of(self.spec.sidecar, &self.metrics().await?))
    }

    /// When the sidecar's certificate ends, in time since 1970; 0 while it has none.
    ///
    /// # Errors
    /// If it does not answer, or does not say.
    pub async fn certificate_expiry(&self) -> Result<Duration, Error> {
        const NAME: &str = "weft_certificate_expiry_seconds";
        let metrics = self.metrics().await?;
        let sample = metrics.of(NAME, &[]).next();
        let sample = sample.ok_or_else(|| Error::unexpected(format!("{NAME} of {}", self.name()), "no sample"))?;
        Duration::try_from_secs_f64(sample.value)
            .map_err(|error| Error::unexpected(format!("{NAME} of {}", self.name()), error.to_string()))
    }

    /// What tells the certificates that the sidecar has in use from those before and after them: our own has one; an Envoy may have an older one
    /// in use for a moment.
    ///
    /// # Errors
    /// If it does not answer, or does not say.
    pub async fn certificates(&self) -> Result<Vec<String>, Error> {
        match self.spec.sidecar {
            Sidecar::Weft => Ok(vec![format!("{:?}", self.certificate_expiry().await?)]),
            Sidecar::Envoy(_) => Ok(sidecar::serial_numbers(&self.statistics("/certs").await?.json()?)),
        }
    }

    /// What the sidecar answers on its admin socket.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn admin(&self, call: Call) -> Result<Answer, Error> {
        call.unix(&self.pod.run_dir().join("proxy.sock")).await
    }

    /// The application.
    ///
    /// # Errors
    /// If the pod has none.
    pub fn app(&self) -> Result<&Arc<App>, Error> {
        self.app.as_ref().ok_or_else(|| Error::unexpected(format!("pod {}", self.name()), "has no application"))
    }

    /// Asks the sidecar to end, and waits for it, at most `grace`.
    pub async fn stop_sidecar(&self, grace: Duration) -> ExitStatus {
        self.sidecar().stop(grace).await
    }

    async fn sidecar_ready(&self) -> Result<(), Error> {
        let sidecar = self.sidecar();
        wait::until(START, &format!("the sidecar of {} is ready", self.name()), async || {
            alive(&sidecar, &self.pod)?;
            Ok(self.statistics("/ready").await.and_then(Answer::text).ok().map(drop))
        })
        .await
    }

    async fn statistics(&self, path: &str) -> Result<Answer, Error> {
        match self.spec.sidecar {
            Sidecar::Weft => Call::get(path).tcp(self.metrics_address()).await,
            Sidecar::Envoy(_) => Call::get(path).inside(&self.pod, sidecar::ADMIN).await,
        }
    }
}

/// Puts a file into the pod's `/run`.
pub(crate) fn hand_in(pod: &Pod, file: &str, content: &[u8]) -> Result<(), Error> {
    let path: &Path = &pod.run_dir().join(file);
    std::fs::write(path, content).map_err(Error::io(format!("write {}", path.display())))
}
