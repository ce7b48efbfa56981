//! The init container where no CNI plugin does the work: redirects its own network namespace, which is the pod's.

use anyhow::{Context, ensure};
use weft_cni::redirect::{self, Redirect};

/// Installs the redirection and reads it back.
pub(crate) fn run(redirect: &Redirect) -> anyhow::Result<()> {
    redirect::install(redirect)?;
    let installed = redirect::installed().context("the redirection was installed, but cannot be read back")?;
    let matches = installed.as_ref().is_some_and(|installed| installed.matches(redirect));
    ensure!(
        matches,
        "the redirection was installed, but the kernel has other rules: something else changes the table `inet weft` in the pod"
    );
    println!("redirected: outbound to {}, inbound to {}", redirect.outbound_port, redirect.inbound_port);
    Ok(())
}
