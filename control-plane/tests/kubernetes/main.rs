//! The control plane against a real API server.

mod api_server;
// Written for the standard harness, whose tests may unwrap; much of it is about a folder.
#[path = "../serving/support.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod support;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde::Deserialize;
use serde_json::{Value, json};
use support::{Identity, Proxy, connect, names_of, sign};
use tonic::transport::Channel;
use tonic::{Code, Status};
use weft_control_plane::{ControlPlane, REQUEST_HEADER, ResourceType};
use weft_sandbox::testing::{TestResult, eventually};
use weft_xds::identity::SignResponse;
use x509_parser::extensions::GeneralName;

use self::api_server::{ApiServer, PATIENCE, ask, metric};

weft_sandbox::tests! {
    a_pods_token_gets_its_certificate_and_no_other_token_does,
    replicas_share_one_authority_and_one_of_them_writes,
    an_outage_of_the_api_server_leaves_proxies_undisturbed_and_is_seen,
    what_became_of_routes_and_policies_is_in_their_status,
    the_api_server_trusts_the_webhook_whoever_changes_roots_or_configuration,
    wrong_routes_are_refused_where_they_are_written_and_nothing_else_is,
}

async fn a_pods_token_gets_its_certificate_and_no_other_token_does() -> TestResult {
    let server = ApiServer::start().await?;
    let web = server.pod("web", "198.18.0.10").await?;
    // Made before anything is deleted, and each used once: no answer is remembered from another question.
    let good = server.token("web", "weft", Some(&web)).await?;
    let of_deleted_pod = server.token("web", "weft", Some(&web)).await?;
    let for_another = server.token("web", "vault", Some(&web)).await?;
    let of_no_pod = server.token("web", "weft", None).await?;
    let other = server.pod("other", "198.18.0.11").await?;
    let of_deleted_account = server.token("other", "weft", Some(&other)).await?;

    let control_plane = server.control_plane("a").await?;
    let channel = connect(control_plane.xds_addr, &control_plane.bundle_pem(), None).await?;
    let (identity, response) = answered(&channel, &good).await?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&response.chain_der[0])?;
    let names = leaf.subject_alternative_name()?.map(|names| names.value.general_names.clone());
    assert_eq!(
        names.unwrap_or_default(),
        [GeneralName::URI("spiffe://weft.local/ns/shop/sa/web"), GeneralName::DNSName("web.web.shop.pod.weft.mesh")]
    );
    let with_certificate = connect(control_plane.xds_addr, &control_plane.bundle_pem(), Some(&identity)).await?;
    sign(with_certificate.clone(), None).await?;

    let refused = async |token: &str| answered(&channel, token).await.err().map(|s| (s.code(), s.message().to_owned()));
    for (token, reason) in
        [(&*for_another, "audience"), (&of_no_pod, "not bound to a pod"), ("x.y.z", "does not accept")]
    {
        let (code, message) = refused(token).await.unwrap_or((Code::Ok, String::new()));
        assert_eq!(code, Code::Unauthenticated, "{reason}");
        assert!(message.contains(reason), "{message}");
    }

    // The API server itself looks at what it remembers of accounts and pods.
    server.delete::<ServiceAccount>("other").await?;
    eventually("the token of a deleted account is refused", PATIENCE, async || {
        refused(&of_deleted_account).await.is_some_and(|(code, _)| code == Code::Unauthenticated)
    })
    .await;
    server.delete::<Pod>("web").await?;
    eventually("the token of a deleted pod is refused", PATIENCE, async || {
        refused(&of_deleted_pod).await.is_some_and(|(code, _)| code == Code::Unauthenticated)
    })
    .await;
    eventually("a pod that is gone cannot renew its certificate", PATIENCE, async || {
        sign(with_certificate.clone(), None).await.err().map(|status| status.code()) == Some(Code::NotFound)
    })
    .await;
    let refusals = metric(&control_plane, r#"weft_control_plane_token_reviews_total{result="refused"}"#).await;
    assert_eq!(refusals, 5.0);
    Ok(())
}

async fn replicas_share_one_authority_and_one_of_them_writes() -> TestResult {
    let server = ApiServer::start().await?;
    let (a, b, c) = tokio::join!(server.control_plane("a"), server.control_plane("b"), server.control_plane("c"));
    let mut replicas = vec![a?, b?, c?];
    let roots: Vec<_> = replicas.iter().map(ControlPlane::bundle_pem).collect();
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");

    let published = async |namespace: &str| {
        let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), namespace);
        let map = maps.get_opt("weft-trust").await.ok()??;
        map.data?.remove("roots.pem")
    };
    for namespace in ["shop", "default", "weft-system"] {
        eventually("the roots are there", PATIENCE, async || published(namespace).await.as_ref() == Some(&roots[0]))
            .await;
    }
    assert_eq!(published("kube-system").await, None);
    let elected = async |replicas: &[ControlPlane]| {
        let mut found = Vec::new();
        for (at, replica) in replicas.iter().enumerate() {
            if metric(replica, "weft_control_plane_elected").await == 1.0 {
                found.push(at);
            }
        }
        found
    };
    eventually("one is elected", PATIENCE, async || elected(&replicas).await.len() == 1).await;
    let first = elected(&replicas).await.first().copied().unwrap_or_default();

    // Another than the elected one starts a rotation; all take part in it.
    let rotating = (first + 1) % 3;
    let request = http::Request::post("/rotate-root").header(REQUEST_HEADER, "test");
    let (code, body) = support::request(replicas[rotating].admin_addr, request).await;
    assert_eq!(code, 200, "{body}");
    let rotated = replicas[rotating].bundle_pem();
    assert_ne!(rotated, roots[0]);
    for replica in &replicas {
        eventually("every replica has the new root", PATIENCE, async || replica.bundle_pem() == rotated).await;
    }
    eventually("the new root is published", PATIENCE, async || published("shop").await.as_ref() == Some(&rotated))
        .await;

    replicas.swap_remove(first).stop().await;
    eventually("another is elected", PATIENCE, async || elected(&replicas).await.len() == 1).await;
    server.create::<Namespace>("", json!({ "metadata": { "name": "later" } })).await?;
    eventually("it writes", PATIENCE, async || published("later").await.as_ref() == Some(&rotated)).await;

    let secrets: Api<Secret> = Api::namespaced(server.client.clone(), "weft-system");
    secrets.delete("weft-ca", &Default::default()).await?;
    eventually("a Secret that was deleted is made again", PATIENCE, async || {
        matches!(secrets.get_opt("weft-ca").await, Ok(Some(_)))
    })
    .await;
    let restarted = server.control_plane("d").await?;
    assert_eq!(restarted.bundle_pem(), rotated);
    Ok(())
}

async fn an_outage_of_the_api_server_leaves_proxies_undisturbed_and_is_seen() -> TestResult {
    let mut server = ApiServer::start().await?;
    let web = server.pod("web", "198.18.0.10").await?;
    let port = json!([{ "name": "http", "port": 80, "targetPort": 8080 }]);
    let service = json!({
        "metadata": { "name": "web" },
        "spec": { "clusterIP": "198.19.0.80", "selector": { "app": "web" }, "ports": port },
    });
    server.create::<Service>("shop", service).await?;
    let control_plane = server.control_plane("a").await?;
    let channel = connect(control_plane.xds_addr, &control_plane.bundle_pem(), None).await?;
    let (identity, _) = answered(&channel, &server.token("web", "weft", Some(&web)).await?).await?;
    let channel = connect(control_plane.xds_addr, &control_plane.bundle_pem(), Some(&identity)).await?;
    let mut proxy = Proxy::open(channel.clone(), None).await?;
    proxy.subscribe(ResourceType::Listener, &["198.19.0.80:80", "198.19.0.81:80"]).await;
    let told = proxy.take().await;
    assert_eq!(names_of(&told), ["198.19.0.80:80"]);

    server.kill().await;
    let watch = async |what: &str| {
        let status: Value = serde_json::from_str(&ask(&control_plane, "/status").await.1).unwrap_or_default();
        let watches = status["source"]["watches"].as_array().cloned().unwrap_or_default();
        watches
            .into_iter()
            .find(|watch| watch["kind"] == "Service")
            .map(|watch| watch[what].clone())
            .unwrap_or_default()
    };
    eventually("the outage is in the status", PATIENCE, async || !watch("error").await.is_null()).await;
    assert!(metric(&control_plane, r#"weft_control_plane_watch_failures{kind="Service"}"#).await >= 1.0);
    assert_eq!(ask(&control_plane, "/ready").await.0, 200);
    eventually("nobody is elected", PATIENCE, async || {
        metric(&control_plane, "weft_control_plane_elected").await == 0.0
    })
    .await;
    // Who has a certificate needs the API server for nothing.
    sign(channel.clone(), None).await?;
    let mut second = Proxy::open(channel, None).await?;
    second.subscribe(ResourceType::Listener, &["198.19.0.80:80"]).await;
    assert_eq!(names_of(&second.take().await), ["198.19.0.80:80"]);
    proxy.expect_silence().await;

    server.serve_again().await?;
    let service = json!({ "metadata": { "name": "later" }, "spec": { "clusterIP": "198.19.0.81", "ports": port } });
    server.create::<Service>("shop", service).await?;
    eventually("the outage is over", PATIENCE, async || watch("error").await.is_null()).await;
    eventually("what is new is told", PATIENCE, async || {
        ask(&control_plane, "/status").await.1.contains("198.19.0.81")
    })
    .await;
    assert_eq!(names_of(&proxy.take().await), ["198.19.0.81:80"], "and nothing is told again");
    Ok(())
}

async fn what_became_of_routes_and_policies_is_in_their_status() -> TestResult {
    let server = ApiServer::start().await?;
    let control_plane = server.control_plane("a").await?;
    // Kinds that come later are watched all the same.
    define(&server, "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes").await?;
    define(&server, "weft.mesh", "v1alpha1", "TrafficPolicy", "trafficpolicies").await?;
    let port = json!([{ "name": "http", "port": 80, "appProtocol": "http" }]);
    server.create::<Service>("shop", json!({ "metadata": { "name": "web" }, "spec": { "ports": port } })).await?;

    let routes = server.defined("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes");
    let policies = server.defined("weft.mesh", "v1alpha1", "TrafficPolicy", "trafficpolicies");
    let mut route = object("gateway.networking.k8s.io/v1", "HTTPRoute");
    route["spec"] = json!({
        "parentRefs": [{ "group": "", "kind": "Service", "name": "web" }],
        "rules": [{ "backendRefs": [{ "name": "new", "port": 80 }] }],
    });
    let mut policy = object("weft.mesh/v1alpha1", "TrafficPolicy");
    policy["spec"] = json!({ "targetRefs": [{ "kind": "Service", "name": "web" }], "timeouts": { "request": "2s" } });
    create(&routes, route).await?;
    create(&policies, policy).await?;

    let conditions = async |api: &Api<DynamicObject>, at: &str| {
        let object = api.get("web").await.ok();
        let found = object.and_then(|object| object.data.pointer(at)?.as_array().cloned()).unwrap_or_default();
        found
            .iter()
            .map(|c| format!("{}={} {}", text(c, "type"), text(c, "status"), text(c, "reason")))
            .collect::<Vec<_>>()
    };
    let of_route = "/status/parents/0/conditions";
    let unresolved = ["Accepted=True Accepted", "ResolvedRefs=False BackendNotFound"];
    let resolved = ["Accepted=True Accepted", "ResolvedRefs=True ResolvedRefs"];
    eventually("the route's status", PATIENCE, async || conditions(&routes, of_route).await == unresolved).await;
    eventually("the policy's status", PATIENCE, async || conditions(&policies, "/status/conditions").await == resolved)
        .await;

    server.create::<Service>("shop", json!({ "metadata": { "name": "new" }, "spec": { "ports": port } })).await?;
    eventually("the route's status changes with others", PATIENCE, async || {
        conditions(&routes, of_route).await == resolved
    })
    .await;
    server.delete::<Service>("web").await?;
    let lost = ["Accepted=False NoMatchingParent", "ResolvedRefs=True ResolvedRefs"];
    eventually("a parent that is gone", PATIENCE, async || conditions(&routes, of_route).await == lost).await;
    let lost = ["Accepted=False TargetNotFound", "ResolvedRefs=False TargetNotFound"];
    eventually("a target that is gone", PATIENCE, async || conditions(&policies, "/status/conditions").await == lost)
        .await;
    let failed = metric(&control_plane, r#"weft_control_plane_status_writes_total{result="failed"}"#).await;
    assert_eq!(failed, 0.0);
    Ok(())
}

async fn the_api_server_trusts_the_webhook_whoever_changes_roots_or_configuration() -> TestResult {
    let server = ApiServer::start().await?;
    let control_plane = server.control_plane("a").await?;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(server.client.clone());
    let trusted = async || {
        let webhook = configurations.get("weft").await.ok()?.webhooks?.pop()?;
        String::from_utf8(webhook.client_config.ca_bundle?.0).ok()
    };
    // Without rules: nobody is asked.
    let configuration: MutatingWebhookConfiguration = serde_json::from_value(json!({
        "metadata": { "name": "weft" },
        "webhooks": [{
            "name": "pods.weft.mesh", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": { "service": { "name": "weft-control-plane", "namespace": "weft-system" } },
        }],
    }))?;
    let first = control_plane.bundle_pem();
    configurations.create(&PostParams::default(), &configuration).await?;
    eventually("the roots are in a new configuration", PATIENCE, async || trusted().await.as_ref() == Some(&first))
        .await;

    let emptied = json!({ "webhooks": [{ "name": "pods.weft.mesh", "clientConfig": { "caBundle": null } }] });
    configurations.patch("weft", &PatchParams::default(), &Patch::Strategic(emptied)).await?;
    eventually("roots that were taken out are back", PATIENCE, async || trusted().await.as_ref() == Some(&first)).await;

    let request = http::Request::post("/rotate-root").header(REQUEST_HEADER, "test");
    let (code, body) = support::request(control_plane.admin_addr, request).await;
    assert_eq!(code, 200, "{body}");
    let rotated = control_plane.bundle_pem();
    assert_ne!(rotated, first);
    eventually("the new root is there", PATIENCE, async || trusted().await.as_ref() == Some(&rotated)).await;

    configurations.delete("weft", &Default::default()).await?;
    configurations.create(&PostParams::default(), &configuration).await?;
    eventually("the next configuration has the roots", PATIENCE, async || trusted().await.as_ref() == Some(&rotated))
        .await;
    control_plane.stop().await;
    Ok(())
}

async fn wrong_routes_are_refused_where_they_are_written_and_nothing_else_is() -> TestResult {
    let server = ApiServer::start().await?;
    let control_plane = server.control_plane("a").await?;
    define(&server, "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes").await?;
    // Who is called by its Service: elsewhere than in a cluster, by a name that is an address.
    let system: Api<Service> = Api::namespaced(server.client.clone(), "weft-system");
    let service = json!({
        "metadata": { "name": "weft-control-plane" },
        "spec": { "type": "ExternalName", "externalName": server.host().to_string() },
    });
    system.create(&PostParams::default(), &serde_json::from_value(service)?).await?;
    let manifests = include_str!("../../../manifests/base/webhook.yaml");
    let documents = serde_yaml_ng::Deserializer::from_str(manifests).map(Value::deserialize);
    let mut documents: Vec<Value> = documents.collect::<Result<_, _>>()?;
    documents.retain(|document| document["kind"] == "ValidatingWebhookConfiguration");
    let configuration = &mut documents[0];
    let port = control_plane.webhook_addr.map(|address| address.port());
    configuration["webhooks"][0]["clientConfig"]["service"]["port"] = port.into();
    // A busy machine takes its time.
    configuration["webhooks"][0]["timeoutSeconds"] = 30.into();
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(server.client.clone());
    configurations.create(&PostParams::default(), &serde_json::from_value(configuration.clone())?).await?;

    let route = |name: &str, namespace: &str, parent: Value, expression: &str| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "parentRefs": [parent],
                "rules": [{ "matches": [{ "path": { "type": "RegularExpression", "value": expression } }] }],
            },
        })
    };
    let service = json!({ "group": "", "kind": "Service", "name": "web" });
    let write = async |object: Value| {
        let namespace = text(&object["metadata"], "namespace");
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let resource = ApiResource::from_gvk_with_plural(&kind, "httproutes");
        let api: Api<DynamicObject> = Api::namespaced_with(server.client.clone(), &namespace, &resource);
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &object).await.map(drop)
    };
    // Until the API server serves the kind, knows of the webhook, and trusts it.
    let mut attempts = 0..;
    let mut refusal = String::new();
    eventually("a wrong route is refused", PATIENCE, async || {
        let name = format!("wrong-{}", attempts.next().unwrap_or_default());
        match write(route(&name, "shop", service.clone(), "/(")).await {
            Err(kube::Error::Api(status)) if status.code == 422 => {
                refusal = status.message;
                true
            }
            _ => false,
        }
    })
    .await;
    assert!(refusal.contains("validate.weft.mesh"), "{refusal}");
    assert!(refusal.contains("spec.rules[0].matches[0].path.value: \"/(\": "), "{refusal}");

    write(route("good", "shop", service.clone(), "/a.*")).await?;
    write(route("of-a-gateway", "shop", json!({ "name": "edge" }), "/(")).await?;
    write(route("of-the-system", "kube-system", service.clone(), "/(")).await?;
    // It fails open.
    control_plane.stop().await;
    write(route("unseen", "shop", service, "/(")).await?;
    Ok(())
}

/// Asks with a token as a proxy does, until the API server has said something about it: a control plane does not wait for ever, and a busy
/// machine takes its time.
async fn answered(channel: &Channel, token: &str) -> Result<(Identity, SignResponse), Status> {
    let mut last = Err(Status::unavailable("not asked"));
    eventually("an answer about a token", PATIENCE, async || {
        last = sign(channel.clone(), Some(token)).await;
        !last.as_ref().is_err_and(|status| status.code() == Code::Unavailable)
    })
    .await;
    last
}

fn object(api_version: &str, kind: &str) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "web", "namespace": "shop" } })
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// Creates an object of a kind that may have been defined a moment ago.
async fn create(api: &Api<DynamicObject>, object: Value) -> TestResult {
    let object: DynamicObject = serde_json::from_value(object)?;
    eventually("the kind is served", PATIENCE, async || match api.create(&PostParams::default(), &object).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) => status.is_already_exists(),
        Err(_) => false,
    })
    .await;
    Ok(())
}

/// Defines a kind that takes anything; its status is a thing of its own.
async fn define(server: &ApiServer, group: &str, version: &str, kind: &str, plural: &str) -> TestResult {
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    // Kinds of this group are defined with the approval of their authors.
    let approved = json!({ "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2997" });
    let definition = json!({
        "metadata": { "name": format!("{plural}.{group}"), "annotations": approved },
        "spec": {
            "group": group, "scope": "Namespaced", "names": { "kind": kind, "plural": plural },
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": anything },
            }],
        },
    });
    server.create::<CustomResourceDefinition>("", definition).await?;
    Ok(())
}
