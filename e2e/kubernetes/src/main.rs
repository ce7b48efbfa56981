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
    /// Only tests whose names contain this, and those that others need
    #[arg(long, default_value = "")]
    only: String,
    /// Folder for the reports: JUnit, and what explains failures
    #[arg(long, default_value = "target/e2e")]
    reports: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mesh = Mesh::connect().await?;
    let suite = arguments.suite.name();
    let mut tests = arguments.suite.tests(mesh.has_node());
    tests.retain(|test| test.essential || test.name.contains(&arguments.only));
    let report = Report::run(suite, &tests, &mesh, LIMIT, async |test: &str| {
        explain(&mesh, &arguments.reports.join(suite), test).await;
    })
    .await;
    report.write_junit(&arguments.reports.join(format!("{suite}.xml")))?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Keeps what explains a failure, as far as the cluster still tells.
async fn explain(mesh: &Mesh, folder: &Path, test: &str) {
    let looks: [(&str, &[&str]); 3] = [
        ("pods", &["get", "pods", "-A", "-o", "wide"]),
        ("events", &["get", "events", "-A", "--sort-by=.lastTimestamp"]),
        ("control-plane", &["-n", SYSTEM, "logs", "-l", "app.kubernetes.io/name=weft-control-plane", "--tail=500"]),
    ];
    let folder = folder.join(test);
    if let Err(error) = std::fs::create_dir_all(&folder) {
        eprintln!("{}: {error}", folder.display());
        return;
    }
    let keep = async |name: &str, arguments: &[&str]| {
        let text = mesh.cluster.kubectl(arguments, "").await.unwrap_or_else(|error| format!("{error:#}\n"));
        if let Err(error) = std::fs::write(folder.join(name), text) {
            eprintln!("{}: {error}", folder.display());
        }
    };
    for (name, arguments) in looks {
        keep(name, arguments).await;
    }
    for (namespace, pod) in meshed(mesh).await.unwrap_or_default() {
        let arguments = ["-n", &namespace, "logs", &pod, "--all-containers", "--prefix", "--tail=200"];
        keep(&format!("{pod}.{namespace}"), &arguments).await;
    }
    eprintln!("    see {}", folder.display());
}

/// Namespace and name of every pod with a sidecar.
async fn meshed(mesh: &Mesh) -> anyhow::Result<Vec<(String, String)>> {
    const FIELDS: &str = "jsonpath={range .items[*]}{.metadata.namespace} {.metadata.name}{\"\\n\"}{end}";
    let pods = mesh.cluster.kubectl(&["get", "pods", "-A", "-l", "weft.mesh/workload", "-o", FIELDS], "").await?;
    let pair = |line: &str| line.split_once(' ').map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned()));
    Ok(pods.lines().filter_map(pair).collect())
}
