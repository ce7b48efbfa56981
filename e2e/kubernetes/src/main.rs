//! `weft-e2e-kubernetes`: tests of the mesh on the cluster of `$KUBECONFIG`. `make e2e-smoke` and `make e2e` bring a cluster and
//! images along.
//!
//! | module | job |
//! |---|---|
//! | [`report`] | named tests, what became of them, JUnit |
//! | [`cluster`] | the cluster: manifests in, commands in pods, what is there |
//! | [`mesh`] | Weft itself: install, uninstall |
//! | [`manifests`] | texts to apply |
//! | [`load`] | steady load, and what it counts |
//! | [`tests`] | the suites |

mod cluster;
mod load;
mod manifests;
mod mesh;
mod report;
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use self::mesh::{Mesh, SYSTEM};
use self::report::Report;
use self::tests::Suite;

/// Longer than any test takes: what hangs ends the suite, not the patience of who waits for it.
const LIMIT: Duration = Duration::from_secs(600);

/// Tests of the mesh on the cluster of $KUBECONFIG. The images have to be there.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Which tests
    suite: Suite,
    /// Folder for the reports: JUnit, and what explains failures
    #[arg(long, default_value = "target/e2e")]
    reports: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mesh = Mesh::connect().await?;
    let suite = arguments.suite.name();
    let report = Report::run(suite, &arguments.suite.tests(mesh.has_node()), &mesh, LIMIT, async |test: &str| {
        explain(&mesh, &arguments.reports.join(suite), test).await;
    })
    .await;
    report.write_junit(&arguments.reports.join(format!("{suite}.xml")))?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Keeps what explains a failure, as far as the cluster still tells.
async fn explain(mesh: &Mesh, folder: &Path, test: &str) {
    let looks: [(&str, &[&str]); 4] = [
        ("pods", &["get", "pods", "-A", "-o", "wide"]),
        ("events", &["get", "events", "-A", "--sort-by=.lastTimestamp"]),
        ("control-plane", &["-n", SYSTEM, "logs", "-l", "app.kubernetes.io/name=weft-control-plane", "--tail=500"]),
        ("sidecars", &["logs", "-A", "-l", "weft.mesh/workload", "-c", "weft-proxy", "--tail=100", "--prefix"]),
    ];
    let folder = folder.join(test);
    if let Err(error) = std::fs::create_dir_all(&folder) {
        eprintln!("{}: {error}", folder.display());
        return;
    }
    for (name, arguments) in looks {
        let text = mesh.cluster.kubectl(arguments, "").await.unwrap_or_else(|error| format!("{error:#}\n"));
        if let Err(error) = std::fs::write(folder.join(name), text) {
            eprintln!("{}: {error}", folder.display());
        }
    }
    eprintln!("    see {}", folder.display());
}
