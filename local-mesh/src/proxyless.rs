//! A pod without a sidecar whose application belongs to the mesh by itself: `weft agent` runs beside it, and nothing is redirected.

use std::net::SocketAddr;

use weft_sandbox::{Pod, Process};

use crate::control_plane::ControlPlane;
use crate::pod::{Spec, hand_in};
use crate::{Error, Programs, sidecar};

/// Where its start-up file is, for `GRPC_XDS_BOOTSTRAP`.
pub const BOOTSTRAP: &str = "/run/bootstrap.json";

/// Such a pod.
#[derive(Debug)]
pub struct Proxyless {
    spec: Spec,
    pod: Pod,
    agent: Process,
}

impl Proxyless {
    /// Starts the agent in a pod that has been declared; waits until it has a certificate.
    pub(crate) async fn start(
        spec: Spec,
        namespace: &str,
        pod: Pod,
        programs: &Programs,
        control_plane: &ControlPlane,
    ) -> Result<Self, Error> {
        let token = control_plane.token(namespace, pod.name()).await?;
        hand_in(&pod, "token", token.as_bytes())?;
        hand_in(&pod, "root.pem", control_plane.roots().await?.as_bytes())?;
        let at: SocketAddr = control_plane.address();
        let agent = sidecar::with_agent(&spec, namespace, &pod, programs, at, &["--for", "grpc"]).await?;
        Ok(Self { spec, pod, agent })
    }

    /// What it was asked to be.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The pod as the sandbox has it.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The agent.
    pub fn agent(&self) -> &Process {
        &self.agent
    }
}
