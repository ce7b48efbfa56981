//! `weft agent`: what a sidecar of ours does for itself, for programs that want their key and certificate in files.
//!
//! It is a command of `weft`, and no program of its own: whoever runs an Envoy or a gRPC application beside it needs the bootstrap file from the
//! same hand, and getting and renewing certificates is the proxy's library, which so has one implementation.
//!
//! | module | job |
//! |---|---|
//! | [`flags`] | the flags |
//! | [`files`] | the folder, replaced in one step |
//! | [`trust`] | following the trust bundle |
//! | [`bootstrap`] | start-up files of Envoy, gRPC and weft-proxy |
//!
//! Invariant: no reader of the folder ever sees a key with another key's certificate.

mod bootstrap;
mod files;
mod flags;
mod trust;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use weft_proxy::ads::ControlPlaneChannel;
use weft_proxy::tls::LocalIdentity;
use weft_proxy::tls::signing::Renewal;
use weft_proxy::tls::state_dir::{StateDir, bundle_pem};

use self::files::Folder;
pub(crate) use self::flags::AgentArgs;
use self::flags::Run;

pub(crate) fn run(args: Box<AgentArgs>) -> anyhow::Result<ExitCode> {
    match *args {
        AgentArgs::Bootstrap(args) => {
            crate::output::print(&bootstrap::file(&args)?)?;
            Ok(ExitCode::SUCCESS)
        }
        AgentArgs::Run(args) => crate::wait_for(keep(args)),
    }
}

/// Keeps the folder up to date until told to stop.
async fn keep(args: Run) -> anyhow::Result<ExitCode> {
    weft_proxy::admin::log_to_stderr(None)?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let folder = Folder::open(&args.common.folder)?;
    let state = StateDir::open(folder.state()).context("cannot use the folder")?;
    let identity = LocalIdentity::new();
    let channel = ControlPlaneChannel::new(args.control_plane()?, identity.clone());
    let renewal =
        Renewal::new(channel.channel(), identity.clone()).with_token_file(&args.token).with_state_dir(state.clone());
    tokio::select! {
        never = renewal.run() => match never {},
        never = trust::follow(channel, args.common.node()?, identity.clone()) => match never {},
        failed = publish(&folder, &state, &identity) => return Err(failed),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes what is in force, whenever that changes. Ends only where it cannot.
async fn publish(folder: &Folder, state: &StateDir, identity: &Arc<LocalIdentity>) -> anyhow::Error {
    let mut changes = identity.subscribe();
    loop {
        changes.mark_unchanged();
        if let (true, Some(bundle)) = (identity.is_ready(), &identity.current().bundle)
            && let Err(error) = state.load_pem().map_err(Into::into).and_then(|saved| match saved {
                Some((key, chain)) => folder.replace(&key, &chain, &bundle_pem(bundle)),
                // It could not be saved, which was said, and is tried again at the next renewal.
                None => Ok(()),
            })
        {
            return error;
        }
        // The sender lives in `identity`.
        if changes.changed().await.is_err() {
            return anyhow::anyhow!("the identity is gone");
        }
    }
}
