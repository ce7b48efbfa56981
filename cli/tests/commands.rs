//! The program as people run it: what it prints where, and its exit codes.

// Clippy knows #[test] functions as tests, but not their helpers.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use weft_control_plane::{Config, ControlPlane};

const GOOD: &str = "
apiVersion: weft.mesh/v1alpha1
kind: Workload
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {addresses: [198.18.0.10]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 198.19.0.80
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
";

fn weft(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(arguments)
        .env_remove("WEFT_CONTROL_PLANE")
        .env_remove("WEFT_PROXY")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn write(folder: &Path, name: &str, content: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[test]
fn valid_files_print_nothing_on_standard_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "good.yaml", GOOD);
    let output = weft(&["validate", &file]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    assert_eq!(text(&output.stderr), "2 objects: valid\n");
}

#[test]
fn a_bad_file_is_told_with_line_and_field_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "bad.yaml", &GOOD.replace("targetPort: 8080", "targetPort: 808080"));
    let output = weft(&["validate", &file]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = text(&output.stdout);
    assert!(line.starts_with(&format!("{file}:13: Service shop/web: spec.ports[0].targetPort: ")), "{line}");
    assert!(text(&output.stderr).ends_with("not valid: 1 error\n"), "{output:?}");

    let output = weft(&["validate", &file, "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let problems: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problems[0]["line"], 13);
    assert_eq!(problems[0]["severity"], "error");
}

#[test]
fn what_cannot_be_read_or_reached_gives_exit_code_3_and_says_what_to_do() {
    let cases: [(&[&str], &str); 3] = [
        (&["validate", "/nowhere.yaml"], "name a YAML file"),
        (&["status", "--control-plane", "127.0.0.1:1"], "--control-plane"),
        (&["config", "--proxy", "unix:/nowhere.sock"], "--proxy"),
    ];
    for (arguments, hint) in cases {
        let output = weft(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {output:?}");
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
        assert!(text(&output.stderr).contains(hint), "{arguments:?}: {output:?}");
    }
}

#[test]
fn wrong_usage_gives_exit_code_2() {
    for arguments in [&["validate"][..], &["config", "everything"], &["status", "--control-plane", "web"]] {
        assert_eq!(weft(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn every_shell_gets_a_completion_script() {
    for shell in ["bash", "zsh", "fish"] {
        let output = weft(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output.stdout).contains("COMPLETE"), "{shell}");
    }
}

#[test]
fn commands_and_the_names_of_pods_are_completed() {
    let folder = tempfile::tempdir().unwrap();
    let pods = r#"{"items": [{"metadata": {"name": "web-0", "namespace": "shop", "annotations": {"weft.mesh/injected": "0.1.0"}}}]}"#;
    let kubectl = format!("#!/bin/sh\ncase \"$*\" in *--context?kind*get?pods*) echo '{pods}' ;; *) exit 1 ;; esac\n");
    // By another process: a file that this one has open for writing, as a child that another test is just starting still has, cannot be run.
    let written = Command::new("sh")
        .args(["-c", r#"printf '%s\n' "$1" > kubectl && chmod +x kubectl"#, "sh", &kubectl])
        .current_dir(folder.path())
        .status()
        .unwrap();
    assert!(written.success());
    let completed = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(["--", "weft"])
            .args(words)
            .env("COMPLETE", "fish")
            .env("PATH", folder.path())
            .output()
            .unwrap();
        let lines = text(&output.stdout).lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(completed(&["val"]), ["validate"]);
    assert_eq!(completed(&["config", "--context", "kind", "pod/"]), ["pod/web-0.shop"]);
    assert_eq!(completed(&["config", "--context", "other", "pod/"]), Vec::<String>::new());
    assert_eq!(completed(&["config", "rou"]), ["routes"]);
}

#[tokio::test]
async fn status_asks_a_running_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let (shop, state) = (folder.path().join("shop"), folder.path().join("state"));
    std::fs::create_dir(&shop).unwrap();
    write(&shop, "shop.yaml", GOOD);
    let control_plane = ControlPlane::start(Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        admin: "127.0.0.1:0".parse().unwrap(),
        ..Config::new(shop.clone(), state)
    })
    .await
    .unwrap();
    let address = control_plane.admin_addr.to_string();
    let status = async |format: &'static str| {
        let address = address.clone();
        tokio::task::spawn_blocking(move || weft(&["status", "--control-plane", &address, "-o", format])).await.unwrap()
    };
    let output = status("table").await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let table = text(&output.stdout);
    assert!(table.contains("shop/web  198.19.0.80  80     1/1"), "{table}");
    assert!(!table.contains('\x1b'), "no colours in a pipe");
    let yaml = status("yaml").await;
    assert!(text(&yaml.stdout).contains("trust_domain: weft.local"), "{yaml:?}");

    write(&shop, "shop.yaml", "kind: Nonsense");
    let refused = loop {
        let output = status("json").await;
        if output.status.code() != Some(0) {
            break output;
        }
    };
    assert_eq!(refused.status.code(), Some(1));
    let document: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(document["source"]["refused"], true);
}
