//! Traffic policy from the command line, on a folder: what is printed, what is changed, and what is said to wrong input.

// Clippy knows #[test] functions as tests, but not their helpers.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: shop }
spec: { selector: { app: reviews }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: reviews-v1, namespace: shop }
spec: { selector: { app: reviews, version: v1 }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: reviews-v2, namespace: shop }
spec: { selector: { app: reviews, version: v2 }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: cart, namespace: shop }
spec: { selector: { app: cart }, ports: [{ name: grpc, port: 80, targetPort: 8080 }, { name: admin, port: 81 }] }
";

const ROUTE: &str = r#"# The canary.
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: reviews
  namespace: shop
spec:
  parentRefs:
    - { group: "", kind: Service, name: reviews, port: 80 }
  rules:
    # Testers.
    - name: beta
      matches: [{ headers: [{ name: x-cohort, value: beta }] }]
      backendRefs: [{ name: reviews-v2, port: 80 }]
    # Everyone else.
    - name: canary
      backendRefs:
        - { name: reviews-v1, port: 80, weight: 90 }
        - { name: reviews-v2, port: 80, weight: 10 } # stars
"#;

/// A folder with the Services, and what else there is.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files.iter().chain(&[("services.yaml", SERVICES)]) {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(arguments).arg("--folder").arg(folder).env_remove("WEFT_CONTROL_PLANE");
    command
}

fn weft(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

/// Runs a command that has to go well: the object that it prints, and what it says.
fn steer(folder: &Path, arguments: &[&str]) -> (Value, String) {
    let output = weft(folder, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    (if printed.is_empty() { Value::Null } else { serde_yaml_ng::from_str(&printed).unwrap() }, said)
}

fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap()
}

/// What the folder holds.
fn contents(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| (name.clone(), read(folder, &name)))
        .collect();
    files.sort();
    files
}

#[test]
fn a_split_changes_nothing_but_the_weights_and_only_when_applied() {
    let folder = folder(&[("routes.yaml", ROUTE)]);
    let before = contents(folder.path());
    let (route, said) = steer(folder.path(), &["split", "reviews.shop", "v1=50", "v2=50"]);
    assert_eq!(contents(folder.path()), before, "nothing is changed without --apply");
    assert_eq!(route["spec"]["rules"][1]["backendRefs"][1]["weight"], 50);
    assert_eq!(route["spec"]["rules"][0]["name"], "beta", "the other rule stays");
    for line in [
        "-        - { name: reviews-v1, port: 80, weight: 90 }",
        "+        - { name: reviews-v1, port: 80, weight: 50 }",
    ] {
        assert!(said.contains(line), "{said}");
    }
    assert!(said.ends_with("nothing has been changed; add --apply\n"), "{said}");

    let (_, said) = steer(folder.path(), &["split", "reviews", "v1=50", "v2=50", "--apply"]);
    assert!(said.contains("changed ") && said.contains("routes.yaml"), "{said}");
    let expected = ROUTE.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50");
    assert_eq!(read(folder.path(), "routes.yaml"), expected, "comments and style stay");
    let (_, said) = steer(folder.path(), &["split", "reviews", "v1=50", "v2=50", "--apply"]);
    assert!(said.contains("nothing to change"), "{said}");
}

#[test]
fn a_split_without_a_route_makes_one_of_the_kind_that_the_port_speaks() {
    let folder = folder(&[]);
    let (route, said) = steer(folder.path(), &["split", "reviews", "v1=1", "v2=0", "--apply"]);
    assert_eq!((&route["kind"], &route["metadata"]["name"]), (&"HTTPRoute".into(), &"reviews".into()));
    assert!(said.contains("reviews-httproute.yaml"), "{said}");
    let written: Value = serde_yaml_ng::from_str(&read(folder.path(), "reviews-httproute.yaml")).unwrap();
    assert_eq!(written, route);
    let (route, _) = steer(folder.path(), &["split", "cart:80", "reviews-v1=1"]);
    assert_eq!((&route["kind"], &route["spec"]["parentRefs"][0]["port"]), (&"GRPCRoute".into(), &80.into()));
}

#[test]
fn a_rule_is_chosen_by_name_or_place() {
    let folder = folder(&[("routes.yaml", ROUTE)]);
    for rule in ["beta", "0"] {
        let (route, _) = steer(folder.path(), &["split", "reviews", "v1=3", "v2=7", "--rule", rule]);
        let weights: Vec<_> = (0..2).map(|at| route["spec"]["rules"][0]["backendRefs"][at]["weight"].clone()).collect();
        assert_eq!(weights, [3, 7], "{rule}");
    }
}

#[test]
fn policies_keep_what_was_not_asked_for() {
    let policy = "---\n# Time.\napiVersion: weft.mesh/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: slow, namespace: shop }\nspec:\n  \
                  targetRefs: [{ kind: Service, name: reviews }]\n  timeouts: { request: 9s, connect: 1s }\n---\n";
    let folder = folder(&[("traffic.yaml", policy)]);
    let (_, said) = steer(folder.path(), &["timeout", "reviews", "3s", "--apply"]);
    assert_eq!(read(folder.path(), "traffic.yaml"), policy.replace("9s", "3s"), "{said}");
    let (changed, _) = steer(
        folder.path(),
        &["retry", "reviews", "3", "--on", "5xx,reset", "--backoff", "10ms..1s", "--budget", "30", "--apply"],
    );
    let retries = serde_json::json!({
        "attempts": 3, "conditions": ["5xx", "reset"], "backoff": { "base": "10ms", "max": "1s" }, "budget": { "percent": 30 }
    });
    assert_eq!(changed["spec"]["retries"], retries);
    assert_eq!(changed["spec"]["timeouts"]["request"], "3s");
    let text = read(folder.path(), "traffic.yaml");
    assert!(text.starts_with("---\n# Time.\n"), "{text}");
    let (changed, _) = steer(folder.path(), &["retry", "reviews", "--off", "--apply"]);
    assert_eq!(changed["spec"]["retries"], Value::Null);
    steer(folder.path(), &["timeout", "reviews", "--off", "--apply"]);
    assert!(!folder.path().join("traffic.yaml").exists(), "a policy that says nothing goes");
}

#[test]
fn a_fault_is_made_and_taken_away_again() {
    let folder = folder(&[]);
    let before = contents(folder.path());
    let (fault, _) =
        steer(folder.path(), &["fault", "cart:81", "--delay", "2s", "--abort", "503", "--percent", "12.5", "--apply"]);
    let target = serde_json::json!([{ "kind": "Service", "name": "cart", "sectionName": "admin" }]);
    assert_eq!(fault["spec"]["targetRefs"], target);
    assert_eq!(fault["spec"]["abort"], serde_json::json!({ "httpStatus": 503, "percentage": 12.5 }));
    let (fault, said) = steer(folder.path(), &["fault", "cart:81", "--off", "--apply"]);
    assert_eq!(fault, Value::Null);
    assert!(said.contains("-kind: FaultPolicy") && said.contains("removed "), "{said}");
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn wrong_input_gives_one_line_that_says_what_to_do() {
    let own_limits = ROUTE.replace("    - name: canary\n", "    - name: canary\n      timeouts: { request: 1s }\n");
    let folder = folder(&[("routes.yaml", &own_limits)]);
    let before = contents(folder.path());
    let cases: [(&[&str], i32, &str); 12] = [
        (&["split", "revews", "v1=1"], 1, "there is no Service revews; did you mean reviews?"),
        (&["split", "reviews.shopp", "v1=1"], 1, "in namespace shopp"),
        (&["split", "reviews", "v1=0", "v2=0"], 1, "all weights are 0"),
        (&["split", "reviews", "v3=1"], 1, "versions that have one: v1 and v2"),
        (&["split", "reviews", "v1=1", "reviews-v1=2"], 1, "named twice"),
        (&["split", "reviews", "v1=1", "--rule", "gamma"], 1, "their rules are beta of reviews and canary of reviews"),
        (&["split", "reviews", "v1=1", "--route", "other"], 1, "attached to it: reviews"),
        (&["split", "cart", "reviews-v1=1"], 1, "say which, as cart:PORT"),
        (&["timeout", "reviews:8080", "1s"], 1, "its ports are 80"),
        (&["timeout", "reviews", "1s", "--try", "2s"], 1, "backendRequest"),
        (&["retry", "reviews", "11"], 1, "spec.retries.attempts"),
        (&["fault", "reviews", "--abort", "503", "--percent", "101"], 1, "from 0 to 100"),
    ];
    for (arguments, code, hint) in cases {
        let mut arguments = arguments.to_vec();
        arguments.push("--apply");
        let output = weft(folder.path(), &arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(hint) && said.lines().count() == 1, "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    for wrong in [
        &["split", "reviews"][..],
        &["split", "reviews", "v1=ten"],
        &["retry", "reviews"],
        &["timeout", "reviews", "soon"],
        &["fault", "reviews"],
    ] {
        assert_eq!(weft(folder.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
    let (_, said) = steer(folder.path(), &["timeout", "reviews", "2s"]);
    assert!(said.contains("a rule canary of HTTPRoute shop/reviews has timeouts of its own"), "{said}");
    assert_eq!(contents(folder.path()), before, "nothing was changed by any of it");
}

#[test]
fn a_folder_or_control_plane_that_does_not_answer_is_told() {
    let run = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_weft")).args(arguments).env_remove("WEFT_CONTROL_PLANE").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["split", "reviews", "v1=1", "--control-plane", "127.0.0.1:1"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("--control-plane") && said.lines().count() == 1, "{said}");
    let (code, said) = run(&["split", "reviews", "v1=1", "--folder", "/nowhere"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("name a folder"), "{said}");
}

#[test]
fn what_the_control_plane_would_refuse_is_not_written() {
    let folder = folder(&[("broken.yaml", "kind: Nonsense\napiVersion: v1\n")]);
    let output = weft(folder.path(), &["split", "reviews", "v1=1", "--apply"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the folder is refused as it is: broken.yaml:1"), "{said}");
}

#[test]
fn an_edit_by_somebody_else_is_not_overwritten() {
    let folder = folder(&[("routes.yaml", ROUTE)]);
    // Whoever has the folder's lock is about to write: the command waits, and finds another text then.
    let lock = std::fs::File::open(folder.path()).unwrap();
    lock.lock().unwrap();
    let mut running = command(folder.path(), &["split", "reviews", "v1=1", "v2=1", "--apply"]);
    let running = running.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_lock(running.id());
    let theirs = ROUTE.replace("weight: 90", "weight: 80");
    std::fs::write(folder.path().join("routes.yaml"), &theirs).unwrap();
    drop(lock);
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("was changed meanwhile"), "{said}");
    assert_eq!(read(folder.path(), "routes.yaml"), theirs);
}

#[test]
fn a_killed_command_leaves_the_old_text_or_the_new_one() {
    let folder = folder(&[("routes.yaml", ROUTE)]);
    let weights = |v1: u32, v2: u32| {
        let open = ROUTE.replace("weight: 90", "weight: FIRST").replace("weight: 10", "weight: SECOND");
        open.replace("FIRST", &v1.to_string()).replace("SECOND", &v2.to_string())
    };
    let mut known = vec![ROUTE.to_owned()];
    for round in 1..=20_u32 {
        let shares = [format!("v1={round}"), format!("v2={}", 100 - round)];
        let mut running = command(folder.path(), &["split", "reviews", &shares[0], &shares[1], "--apply"]);
        let mut running = running.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Later from round to round, so that some are killed before they write and some after.
        std::thread::sleep(std::time::Duration::from_millis(u64::from(round) / 2));
        running.kill().unwrap();
        running.wait().unwrap();
        known.push(weights(round, 100 - round));
        let text = read(folder.path(), "routes.yaml");
        assert!(known.contains(&text), "round {round}: {text}");
    }
    let (_, said) = steer(folder.path(), &["split", "reviews", "v1=33", "v2=67", "--apply"]);
    assert_eq!(read(folder.path(), "routes.yaml"), weights(33, 67), "what was left behind is in nobody's way: {said}");
    let left: Vec<_> = contents(folder.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["routes.yaml", "services.yaml"], "and is gone");
}

/// Waits until a process waits for a lock: the kernel marks it by an arrow.
fn wait_for_lock(pid: u32) {
    let pid = pid.to_string();
    let waits = |line: &str| line.contains("->") && line.split_whitespace().any(|word| word == pid);
    while !std::fs::read_to_string("/proc/locks").unwrap().lines().any(waits) {
        std::thread::yield_now();
    }
}
