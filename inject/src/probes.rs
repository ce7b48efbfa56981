//! Probes that keep working when a workload accepts mutual TLS only.
//!
//! A kubelet has no certificate of the mesh. So its questions go to the sidecar's port, which is never redirected, and the sidecar asks the
//! application what the probe asked before. `exec` probes do not go over the network and stay.

use serde_json::{Map, Value, json};

use crate::names;

/// The sidecar's flag with the probes as they were, by the path that asks for them.
pub(crate) const FLAG: &str = "--probes";

/// Where a container has a handler that goes over the network, and what its path ends with.
const PLACES: [(&[&str], &str); 5] = [
    (&["startupProbe"], "startup"),
    (&["livenessProbe"], "liveness"),
    (&["readinessProbe"], "readiness"),
    (&["lifecycle", "postStart"], "post-start"),
    (&["lifecycle", "preStop"], "pre-stop"),
];

const HANDLERS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Points the probes of all containers to the sidecar. What they were is returned, for [`FLAG`].
pub(crate) fn redirect(spec: &mut Map<String, Value>, skipped: &[u16]) -> Map<String, Value> {
    let mut table = Map::new();
    for container in containers(spec) {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        let ports = container["ports"].clone();
        for (place, word) in PLACES {
            let Some(holder) = at(container, place) else {
                continue;
            };
            let Some(how) = HANDLERS.into_iter().find(|how| holder.get(*how).is_some()) else {
                continue;
            };
            let Some(port) = port(&holder[how], &ports).filter(|port| !skipped.contains(port)) else {
                continue;
            };
            // The kubelet asks another host there, which is none of the pod's affairs.
            if holder[how]["host"].as_str().is_some_and(|host| !host.is_empty()) {
                continue;
            }
            let Some(fields) = holder.as_object_mut() else {
                continue;
            };
            let Some(original) = fields.remove(how) else {
                continue;
            };
            let path = format!("/probe/{name}/{word}");
            fields.insert("httpGet".to_owned(), json!({ "path": path, "port": names::PROBE_PORT, "scheme": "HTTP" }));
            // A probe's default; hooks have none, and as much time as they take.
            let seconds = match word {
                "post-start" | "pre-stop" => 600,
                _ => fields.get("timeoutSeconds").and_then(Value::as_u64).unwrap_or(1),
            };
            table.insert(path, json!({ "port": port, "timeoutSeconds": seconds, how: original }));
        }
    }
    table
}

/// Gives all containers the probes back that a sidecar's arguments tell of.
pub(crate) fn restore(spec: &mut Map<String, Value>) {
    let Some(mut table) = containers(spec).find_map(|container| written(container)) else {
        return;
    };
    for container in containers(spec) {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        for (place, word) in PLACES {
            let Some(Value::Object(mut probe)) = table.remove(&format!("/probe/{name}/{word}")) else {
                continue;
            };
            let Some(fields) = at(container, place).and_then(Value::as_object_mut) else {
                continue;
            };
            for how in HANDLERS {
                if let Some(original) = probe.remove(how) {
                    fields.remove("httpGet");
                    fields.insert(how.to_owned(), original);
                }
            }
        }
    }
}

fn written(container: &Value) -> Option<Map<String, Value>> {
    if container["name"] != names::PROXY_CONTAINER {
        return None;
    }
    let arguments = container["args"].as_array()?;
    let at = arguments.iter().position(|argument| argument == FLAG)?;
    serde_json::from_str(&arguments.get(at + 1)?.as_str()?.replace("$$(", "$(")).ok()
}

/// Init containers have probes too, those that go on running.
fn containers(spec: &mut Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    let lists = spec.iter_mut().filter(|(field, _)| ["initContainers", "containers"].contains(&field.as_str()));
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten()
}

fn at<'a>(container: &'a mut Value, place: &[&str]) -> Option<&'a mut Value> {
    place.iter().try_fold(container, |value, field| value.get_mut(*field))
}

/// A probe's port by number; by name it is one of the container's.
fn port(handler: &Value, ports: &Value) -> Option<u16> {
    let number = match &handler["port"] {
        Value::String(name) => {
            let named = ports.as_array().into_iter().flatten().find(|port| port["name"] == name.as_str());
            named.map_or_else(|| name.parse().ok(), |port| port["containerPort"].as_u64())
        }
        number => number.as_u64(),
    };
    number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(container: Value) -> Map<String, Value> {
        let Value::Object(spec) = json!({ "containers": [container] }) else { panic!() };
        spec
    }

    #[test]
    fn every_kind_of_probe_goes_to_the_sidecar_and_comes_back() {
        let original = spec(json!({
            "name": "app", "ports": [{ "name": "http", "containerPort": 8080 }],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": "http", "scheme": "HTTPS" }, "timeoutSeconds": 3 },
            "livenessProbe": { "tcpSocket": { "port": 9090 }, "periodSeconds": 5 },
            "startupProbe": { "grpc": { "port": 9000, "service": "cart" } },
            "lifecycle": { "preStop": { "httpGet": { "path": "/bye", "port": 8080 } } },
        }));
        let mut changed = original.clone();
        let table = redirect(&mut changed, &[]);
        let container = &changed["containers"][0];
        let to_sidecar = |word: &str| json!({ "path": format!("/probe/app/{word}"), "port": 15020, "scheme": "HTTP" });
        assert_eq!(container["readinessProbe"], json!({ "httpGet": to_sidecar("readiness"), "timeoutSeconds": 3 }));
        assert_eq!(container["livenessProbe"], json!({ "httpGet": to_sidecar("liveness"), "periodSeconds": 5 }));
        assert_eq!(container["startupProbe"], json!({ "httpGet": to_sidecar("startup") }));
        assert_eq!(container["lifecycle"]["preStop"], json!({ "httpGet": to_sidecar("pre-stop") }));
        assert_eq!(
            table["/probe/app/readiness"],
            json!({
                "port": 8080, "timeoutSeconds": 3,
                "httpGet": { "path": "/healthz", "port": "http", "scheme": "HTTPS" },
            })
        );
        let mut injected = changed.clone();
        let sidecar = json!({ "name": "weft-proxy", "args": [FLAG, Value::Object(table).to_string()] });
        injected["containers"].as_array_mut().unwrap().push(sidecar);
        restore(&mut injected);
        assert_eq!(injected["containers"][0], original["containers"][0]);
    }

    #[test]
    fn probes_that_do_not_come_through_the_redirect_stay() {
        for probe in [
            json!({ "exec": { "command": ["true"] } }),
            json!({ "httpGet": { "host": "198.18.9.9", "port": 80 } }),
            json!({ "httpGet": { "port": "nowhere" } }),
            json!({ "tcpSocket": { "port": 9100 } }),
        ] {
            let original = spec(json!({ "name": "app", "livenessProbe": probe }));
            let mut changed = original.clone();
            assert!(redirect(&mut changed, &[9100]).is_empty(), "{probe}");
            assert_eq!(changed, original);
        }
    }
}
