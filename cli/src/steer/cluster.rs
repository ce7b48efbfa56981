//! A cluster, by kubectl: its objects, and a change by server-side apply, which the API server makes whole or not at all.

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::Wrong;
use super::plan::Plan;
use super::world::{Kind, World, name_of, namespace_of};
use crate::cluster::{Cluster, items};

/// Who owns the fields that these commands write.
const FIELD_MANAGER: &str = "weft";

/// The objects of one namespace: the one that is named, or kubectl's current one.
pub(super) async fn read(cluster: &Cluster, kinds: &[Kind], namespace: Option<&str>) -> anyhow::Result<World> {
    let namespace = match namespace {
        Some(named) => named.to_owned(),
        None => cluster.current_namespace().await?,
    };
    let lists = kinds.iter().map(|kind| list(cluster, kind, &namespace));
    let objects = futures_util::future::try_join_all(lists).await?.concat();
    Ok(World { objects, namespace: Some(namespace) })
}

async fn list(cluster: &Cluster, kind: &Kind, namespace: &str) -> anyhow::Result<Vec<Value>> {
    let said = cluster.ask(&["get", kind.resource, "-n", namespace, "-o", "json"]).await?;
    if !said.is_success {
        // A cluster need not have the Gateway API's kinds; then it has no objects of them either.
        if said.error.contains("the server doesn't have a resource type") {
            return Ok(Vec::new());
        }
        return Err(refusal(&said.error, "get", kind, namespace));
    }
    let listed: Value = serde_json::from_str(&said.out).context("kubectl printed no JSON")?;
    Ok(items(&listed).map(|object| essential(kind, object)).collect())
}

/// An object without what others write into it.
fn essential(kind: &Kind, object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({
        "apiVersion": kind.api_version,
        "kind": kind.name,
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "creationTimestamp": metadata["creationTimestamp"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "spec": object["spec"],
    })
}

/// A change of one object.
pub(super) struct Apply {
    cluster: Cluster,
    kind: Kind,
    namespace: String,
    object: String,
    /// `Kind namespace/name`.
    pub(super) name: String,
    pub(super) before: String,
    pub(super) after: String,
    pub(super) notes: Vec<String>,
    /// `None` if the object is to be removed.
    wanted: Option<Value>,
    force: bool,
}

impl Apply {
    pub(super) fn new(cluster: &Cluster, plan: &Plan, force: bool) -> anyhow::Result<Self> {
        let some = plan.after.as_ref().or(plan.before.as_ref());
        let (namespace, object) =
            some.map(|object| (namespace_of(object).to_owned(), name_of(object).to_owned())).unwrap_or_default();
        let name = plan.name();
        let text = |object: &Option<Value>| match object {
            Some(object) => serde_yaml_ng::to_string(&super::plan::printable(object)),
            None => Ok(String::new()),
        };
        let (before, after) = (text(&plan.before)?, text(&plan.after)?);
        let mut notes = Vec::new();
        for problem in weft_api::parse("the object", &after).problems {
            if problem.is_error() {
                return Err(Wrong::because(format!("the API server would refuse it: {problem}")));
            }
            notes.push(problem.to_string());
        }
        let wanted = plan.after.clone();
        Ok(Self {
            cluster: cluster.clone(),
            kind: plan.kind,
            namespace,
            object,
            name,
            before,
            after,
            notes,
            wanted,
            force,
        })
    }

    pub(super) async fn make(&self) -> anyhow::Result<()> {
        let Some(wanted) = &self.wanted else {
            let said = self
                .cluster
                .ask(&["delete", self.kind.resource, &self.object, "-n", &self.namespace, "--wait=false"])
                .await?;
            return if said.is_success {
                Ok(())
            } else {
                Err(refusal(&said.error, "delete", &self.kind, &self.namespace))
            };
        };
        // With the version that the plan was made of: if somebody has changed the object since, the API server refuses.
        let mut object = wanted.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("creationTimestamp");
        }
        let manager = format!("--field-manager={FIELD_MANAGER}");
        let mut arguments = vec!["apply", "--server-side", &manager, "-f", "-"];
        if self.force {
            arguments.push("--force-conflicts");
        }
        let said = self.cluster.tell(&arguments, Some(&object.to_string())).await?;
        if said.is_success {
            return Ok(());
        }
        Err(match owner(&said.error) {
            Some(owner) => Wrong::because(format!(
                "{} has fields that belong to the field manager {owner}, which would write them again; change them there, or take them over with --force",
                self.name
            )),
            None if said.error.contains("the object has been modified") => Wrong::because(format!(
                "{} was changed meanwhile, so nothing is done; run the command again",
                self.name
            )),
            None => refusal(&said.error, "patch", &self.kind, &self.namespace),
        })
    }

    pub(super) fn done(&self) -> String {
        match &self.wanted {
            Some(_) => format!("applied {} as field manager {FIELD_MANAGER}", self.name),
            None => format!("removed {}", self.name),
        }
    }
}

/// Who owns a field that was to be changed: `conflict with "NAME"` in the API server's words.
fn owner(error: &str) -> Option<&str> {
    error.split_once("conflict with ")?.1.split('"').nth(1)
}

/// Why kubectl did not do it, in one line that says what to do.
fn refusal(error: &str, verb: &str, kind: &Kind, namespace: &str) -> anyhow::Error {
    let first = error.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("kubectl gives no reason");
    let first = first.strip_prefix("error: ").unwrap_or(first);
    if error.contains("(Forbidden)") || error.contains("is forbidden") && !error.contains("admission webhook") {
        return Wrong::because(format!(
            "you may not {verb} {} in namespace {namespace}; get that right, or give the printed object to somebody who has it ({first})",
            kind.resource
        ));
    }
    let unreachable =
        ["was refused", "no such host", "i/o timeout", "Unable to connect", "no configuration has been provided"];
    if unreachable.iter().any(|sign| error.contains(sign)) {
        return anyhow::anyhow!(
            "the cluster does not answer: {first}; name another with --context or --kubeconfig, or a folder with --folder"
        );
    }
    Wrong::because(format!("the API server refuses to {verb} {} in namespace {namespace}: {first}", kind.resource))
}

impl Cluster {
    /// The namespace that kubectl means where none is named.
    pub(crate) async fn current_namespace(&self) -> anyhow::Result<String> {
        let said = self.ask(&["config", "view", "--minify", "-o", "jsonpath={..namespace}"]).await?;
        if !said.is_success {
            bail!("{}", said.error.lines().next().unwrap_or("kubectl knows no cluster"));
        }
        let namespace = said.out.trim();
        Ok(if namespace.is_empty() { "default".to_owned() } else { namespace.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::HTTP_ROUTE;
    use super::*;

    #[test]
    fn the_owner_of_a_field_is_named() {
        let error = "error: Apply failed with 1 conflict: conflict with \"flux\" using gateway.networking.k8s.io/v1: .spec.rules\nPlease review";
        assert_eq!(owner(error), Some("flux"));
        assert_eq!(owner("error: something else"), None);
    }

    #[test]
    fn each_refusal_says_in_one_line_what_to_do() {
        let say = |error: &str| refusal(error, "patch", &HTTP_ROUTE, "shop").to_string();
        for (error, hint) in [
            ("Error from server (Forbidden): httproutes is forbidden: User \"ann\" cannot patch", "get that right"),
            ("The connection to the server 127.0.0.1:1 was refused - did you specify the right host", "--context"),
            ("error: invalid configuration: no configuration has been provided, try setting", "--kubeconfig"),
            ("Error from server (BadRequest): admission webhook \"weft\" denied the request: no\nmore", "denied"),
        ] {
            let line = say(error);
            assert!(line.contains(hint) && !line.contains('\n'), "{line}");
        }
    }
}
