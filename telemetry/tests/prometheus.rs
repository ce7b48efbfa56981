//! `manifests/prometheus`, looked at by Prometheus' own `promtool`; where there is none, each test says so and does nothing.
// Clippy knows only functions that are tests themselves as tests.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

const FOLDER: &str = "../manifests/prometheus";

#[test]
fn the_rules_do_what_their_tests_say() {
    let Some(promtool) = promtool() else { return };
    let output = promtool.run(&["test", "rules", "rules.test.yaml"], FOLDER.as_ref());
    assert!(output.contains("SUCCESS"), "{output}");
    let rules = promtool.run(&["check", "rules", "rules.yaml"], FOLDER.as_ref());
    assert!(rules.contains("SUCCESS: 13 rules found"), "{rules}");
}

#[test]
fn every_alert_is_tested_with_and_without_a_reason() {
    let read = |name: &str| std::fs::read_to_string(Path::new(FOLDER).join(name)).unwrap();
    let (rules, tests) = (read("rules.yaml"), read("rules.test.yaml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), 8);
    for alert in alerts {
        let quiet = format!("alertname: {alert}, eval_time");
        assert!(tests.contains(&quiet), "{alert} is silent at some time");
        assert!(tests.contains(&format!("- alertname: {alert}\n")), "{alert} is raised at some time");
    }
}

#[test]
fn rules_ask_for_metrics_that_there_are() {
    let rules = std::fs::read_to_string(Path::new(FOLDER).join("rules.yaml")).unwrap();
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let mut asked = 0;
    for word in expressions.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')) {
        if word.starts_with("weft_") {
            assert!(weft_telemetry::family_of(word).is_some(), "{word} is no metric");
            asked += 1;
        }
    }
    assert_eq!(asked, 8);
}

/// What is discovered on Kubernetes is written down instead: some builds of Prometheus know nothing of Kubernetes.
#[test]
fn pods_with_a_sidecar_are_scraped_on_kubernetes_and_others_are_not() {
    let Some(promtool) = promtool() else { return };
    let pod = |name: &str, address: &str, port: &str, more: Value| {
        let mut labels = json!({
            "__meta_kubernetes_namespace": "shop",
            "__meta_kubernetes_pod_name": name,
            "__meta_kubernetes_pod_ip": address,
            "__meta_kubernetes_pod_phase": "Running",
            "__meta_kubernetes_pod_container_port_number": port,
        });
        labels.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "targets": [format!("{address}:{port}")], "labels": labels })
    };
    let member = |workload: &str| {
        json!({
            "__meta_kubernetes_pod_annotationpresent_weft_mesh_injected": "true",
            "__meta_kubernetes_pod_label_weft_mesh_workload": workload,
        })
    };
    let control_plane = json!({ "__meta_kubernetes_pod_label_app_kubernetes_io_name": "weft-control-plane" });
    let ended = json!({
        "__meta_kubernetes_pod_annotationpresent_weft_mesh_injected": "true",
        "__meta_kubernetes_pod_phase": "Succeeded",
    });
    let discovered = json!([
        pod("web-0", "198.18.0.1", "8080", member("web")),
        pod("web-0", "198.18.0.1", "15020", member("web")),
        pod("six-0", "fd00:198:18::6", "8080", member("six")),
        pod("job-0", "198.18.0.2", "8080", ended),
        pod("other-0", "198.18.0.3", "8080", json!({})),
        pod("control-0", "198.18.0.4", "15012", control_plane.clone()),
        pod("control-0", "198.18.0.4", "15021", control_plane),
    ]);
    let text = std::fs::read_to_string(Path::new(FOLDER).join("kubernetes.yaml")).unwrap();
    let discovery = "kubernetes_sd_configs: [{ role: pod }]";
    assert_eq!(text.matches(discovery).count(), 2);
    let folder = Folder::new();
    folder.write("rules.yaml", &std::fs::read_to_string(Path::new(FOLDER).join("rules.yaml")).unwrap());
    folder.write("kubernetes.yaml", &text.replace(discovery, &format!("static_configs: {discovered}")));
    let check = promtool.run(&["check", "config", "kubernetes.yaml"], &folder.0);
    assert!(check.contains("is valid prometheus config file syntax"), "{check}");

    // It waits for the whole of the timeout, whatever it has found.
    let scraped = |job: &str| {
        let found = promtool.run(&["check", "service-discovery", "--timeout=15s", "kubernetes.yaml", job], &folder.0);
        let found: Value = serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found}"));
        let label = |labels: &Value, name: &str| labels[name].as_str().unwrap_or_default().to_owned();
        let kept =
            found.as_array().unwrap().iter().map(|target| &target["labels"]).filter(|labels| labels["job"].is_string());
        let names = ["__address__", "__metrics_path__", "namespace", "pod", "workload"];
        let mut kept: Vec<_> = kept.map(|labels| names.map(|name| label(labels, name)).join(" ")).collect();
        kept.sort();
        kept.dedup();
        kept
    };
    let (sidecars, control_planes) = std::thread::scope(|scope| {
        let sidecars = scope.spawn(|| scraped("weft-proxy"));
        let control_planes = scraped("weft-control-plane");
        (sidecars.join().unwrap(), control_planes)
    });
    assert_eq!(
        sidecars,
        [
            "198.18.0.1:15020 /stats/prometheus shop web-0 web",
            "[fd00:198:18::6]:15020 /stats/prometheus shop six-0 six",
        ]
    );
    assert_eq!(control_planes, ["198.18.0.4:15021 /metrics shop control-0 weft-control-plane"]);
}

struct Promtool(PathBuf);

impl Promtool {
    /// What it writes, whatever it thinks of it.
    fn run(&self, arguments: &[&str], folder: &Path) -> String {
        let output = Command::new(&self.0).args(arguments).current_dir(folder).output().unwrap();
        // It warns on standard error; what follows from that is seen in its absence from the rest.
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { text } else { text + &String::from_utf8_lossy(&output.stderr) }
    }
}

/// Beside the Prometheus that is named, or on the `PATH`.
fn promtool() -> Option<Promtool> {
    let named = std::env::var_os("WEFT_PROMETHEUS").map(|path| PathBuf::from(path).with_file_name("promtool"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = named.into_iter().chain(std::env::split_paths(&path).map(|folder| folder.join("promtool")));
    let found = candidates.find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no promtool: apt-get install prometheus");
    }
    found.map(Promtool)
}

/// A folder of this process, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("weft-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
