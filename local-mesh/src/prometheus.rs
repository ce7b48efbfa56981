//! A genuine Prometheus in a pod of its own: it scrapes every sidecar and the control plane, with the labels that
//! `manifests/prometheus/` gives them on Kubernetes, and evaluates the rules there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weft_sandbox::{Pod, PodSpec, Process};

use crate::client::Call;
use crate::control_plane::alive;
use crate::{Error, Mesh, MeshPod, Sample, wait};

/// Environment variable that names the program; by default it is looked for on the `PATH`.
pub const PROGRAM: &str = "WEFT_PROMETHEUS";

/// Where it answers.
const PORT: u16 = 9090;

/// How long it may take to be ready, on a machine that is busy.
const START: Duration = Duration::from_secs(60);

/// The rules and alerts of `manifests/prometheus`.
const RULES: &str = include_str!("../../manifests/prometheus/rules.yaml");

/// One that runs.
#[derive(Debug)]
pub struct Prometheus {
    pod: Pod,
    process: Process,
    namespace: String,
    control_plane: SocketAddr,
}

impl Prometheus {
    /// The program, or why there is none, with the way out.
    ///
    /// # Errors
    /// [`Error::Unexpected`] with both.
    pub fn find() -> Result<PathBuf, Error> {
        let named = std::env::var_os(PROGRAM).map(PathBuf::from);
        let found = named.or_else(|| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|folder| folder.join("prometheus")).find(|path| path.is_file())
        });
        let way_out = format!("install it (apt-get install prometheus), or name the program in {PROGRAM}");
        match found {
            Some(path) if path.is_file() => Ok(path),
            Some(path) => Err(Error::unexpected(format!("there is no {}", path.display()), way_out)),
            None => Err(Error::unexpected("there is no Prometheus on the PATH", way_out)),
        }
    }

    /// Starts it in a pod of its own; it scrapes as often as `every` says what [`Prometheus::scrape`] names.
    ///
    /// # Errors
    /// If it ends, or is not ready in time.
    pub async fn start(mesh: &Mesh, program: &Path, every: Duration) -> Result<Self, Error> {
        let pod = mesh.sandbox().add_pod(PodSpec::named("prometheus")).await?;
        write(&pod, "prometheus.yaml", &configuration(every).to_string())?;
        write(&pod, "rules.yaml", RULES)?;
        write(&pod, "targets.json", "[]")?;
        let mut command = Command::new(program);
        command.args(["--config.file=/run/prometheus.yaml", "--storage.tsdb.path=/run/data", "--log.level=warn"]);
        command.arg(format!("--web.listen-address=0.0.0.0:{PORT}"));
        let process = pod.spawn("prometheus", command).await?;
        let namespace = mesh.namespace().to_owned();
        let prometheus = Self { pod, process, namespace, control_plane: mesh.control_plane().metrics_address() };
        wait::until(START, "Prometheus is ready", async || {
            alive(&prometheus.process, &prometheus.pod)?;
            Ok(Call::get("/-/ready").tcp(prometheus.address()).await?.text().ok())
        })
        .await?;
        Ok(prometheus)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.pod.v4(), PORT)
    }

    /// Has it scrape the control plane and these pods, and no others; it notices by itself.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn scrape<'a>(&self, pods: impl IntoIterator<Item = &'a MeshPod>) -> Result<(), Error> {
        let target = |job: &str, path: &str, address: SocketAddr, pod: &str, workload: &str| {
            json!({ "targets": [address.to_string()], "labels": {
                "job": job, "__metrics_path__": path, "namespace": self.namespace, "pod": pod, "workload": workload,
            } })
        };
        let control_plane =
            target("weft-control-plane", "/metrics", self.control_plane, "control-plane", "weft-control-plane");
        let sidecars = pods.into_iter().map(|pod| {
            target("weft-proxy", "/stats/prometheus", pod.metrics_address(), pod.name(), &pod.spec().workload)
        });
        let targets: Vec<_> = [control_plane].into_iter().chain(sidecars).collect();
        // Renamed into place, so that it never reads half of it.
        write(&self.pod, "targets.new", &Value::from(targets).to_string())?;
        let path = |name| self.pod.run_dir().join(name);
        std::fs::rename(path("targets.new"), path("targets.json")).map_err(Error::io("replace the list of targets"))
    }

    /// The instant vector of a query, now.
    ///
    /// # Errors
    /// With Prometheus' message, if it cannot be evaluated.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>, Error> {
        let unexpected = |found: String| Error::unexpected(format!("the query {expression}"), found);
        let call = Call::get(format!("/api/v1/query?query={}", encoded(expression)));
        let answer = call.tcp(self.address()).await?;
        let body: Value = serde_json::from_str(&answer.body).map_err(|error| unexpected(error.to_string()))?;
        let Some(result) = body["data"]["result"].as_array() else {
            return Err(unexpected(body["error"].to_string()));
        };
        result.iter().map(|series| sample(series).ok_or_else(|| unexpected(series.to_string()))).collect()
    }

    /// What it knows of alerts and rules: `/api/v1/rules`.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn rules(&self) -> Result<Value, Error> {
        Call::get("/api/v1/rules").tcp(self.address()).await?.json()
    }
}

/// JSON, which YAML contains.
fn configuration(every: Duration) -> Value {
    json!({
        "global": {
            "scrape_interval": format!("{}ms", every.as_millis()),
            "evaluation_interval": format!("{}ms", every.as_millis()),
        },
        "rule_files": ["/run/rules.yaml"],
        "scrape_configs": [{
            "job_name": "weft",
            "file_sd_configs": [{ "files": ["/run/targets.json"], "refresh_interval": "5s" }],
        }],
    })
}

fn write(pod: &Pod, file: &str, text: &str) -> Result<(), Error> {
    let path = pod.run_dir().join(file);
    std::fs::write(&path, text).map_err(Error::io(format!("write {}", path.display())))
}

/// One series of an instant vector; NaN and infinities are written as text too.
fn sample(series: &Value) -> Option<Sample> {
    let labels = series["metric"].as_object()?.iter();
    let mut labels: std::collections::BTreeMap<_, _> =
        labels.filter_map(|(label, value)| Some((label.clone(), value.as_str()?.to_owned()))).collect();
    let name = labels.remove("__name__").unwrap_or_default();
    Some(Sample { name, labels, value: series["value"][1].as_str()?.parse().ok()? })
}

/// For a query string, by RFC 3986: everything but unreserved characters.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded() {
        assert_eq!(encoded("a{b=\"+\"} > 1"), "a%7Bb%3D%22%2B%22%7D%20%3E%201");
    }

    #[test]
    fn values_that_are_no_numbers_are_read() {
        let series = json!({ "metric": { "__name__": "up", "pod": "a" }, "value": [1.5, "NaN"] });
        let sample = sample(&series).unwrap();
        assert_eq!((sample.name.as_str(), sample.label("pod")), ("up", "a"));
        assert!(sample.value.is_nan());
    }
}
