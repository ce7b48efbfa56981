//! Clusters given by name, against a real DNS server.

use super::*;
use crate::dns::testing::{Answer, DnsServer};
use crate::upstream::ClusterConfig;

/// A DNS server, a store whose clusters follow it, and the cluster `c` of these settings with these endpoints.
struct Setup {
    dns: DnsServer,
    store: Arc<Store>,
    cluster: Arc<Cluster>,
    task: JoinHandle<std::convert::Infallible>,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn setup(dns: DnsServer, settings: &str, names: &[&str]) -> Setup {
    let store = Arc::new(Store::new());
    let cluster = Arc::new(Cluster::new(config(settings, names, 80)));
    store.update(|next| drop(next.clusters.insert("c".into(), cluster.clone())));
    let task = tokio::spawn(resolve(store.clone(), dns.resolver()));
    Setup { dns, store, cluster, task }
}

fn config(settings: &str, names: &[&str], port: u16) -> ClusterConfig {
    let endpoint =
        |name: &&str| format!("{{endpoint: {{address: {{socket_address: {{address: {name}, port_value: {port}}}}}}}}}");
    let endpoints: Vec<String> = names.iter().map(endpoint).collect();
    let endpoints = endpoints.join(", ");
    let text = format!("{{name: c, {settings}, load_assignment: {{endpoints: [{{lb_endpoints: [{endpoints}]}}]}}}}");
    ClusterConfig::compile(&weft_xds::yaml::from_str(&text).unwrap(), "").unwrap()
}

impl Setup {
    fn addresses(&self) -> Vec<String> {
        self.cluster.members().iter().map(|member| member.endpoint.address().to_string()).collect()
    }

    async fn wait_for(&self, expected: &[&str]) {
        until(|| self.addresses() == expected).await;
    }

    /// Waits until questions that began after now were answered.
    async fn wait_for_answers(&self) {
        self.dns.wait_for_questions(self.dns.asked() + 2).await;
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const QUICK: &str = "type: STRICT_DNS, dns_lookup_family: V4_ONLY, dns_refresh_rate: 0.02s";

#[tokio::test]
async fn endpoints_are_what_the_name_stands_for_at_the_time() {
    let dns = DnsServer::start().await;
    dns.set("shop.test", &["198.18.0.2", "198.18.0.1"], 3600);
    let setup = setup(dns, QUICK, &["shop.test"]).await;
    setup.cluster.warmed().await;
    assert_eq!(setup.addresses(), ["198.18.0.1:80", "198.18.0.2:80"]);
    let stays = setup.cluster.members()[1].endpoint.clone();
    setup.dns.set("shop.test", &["198.18.0.2", "198.18.0.3"], 3600);
    setup.wait_for(&["198.18.0.2:80", "198.18.0.3:80"]).await;
    assert!(Arc::ptr_eq(&setup.cluster.members()[0].endpoint, &stays), "what stays keeps its connections");
}

#[tokio::test]
async fn a_failure_leaves_the_last_endpoints_and_no_address_takes_them_away() {
    let dns = DnsServer::start().await;
    dns.set("shop.test", &["198.18.0.1"], 1);
    let setup = setup(dns, QUICK, &["shop.test"]).await;
    setup.cluster.warmed().await;
    setup.dns.answer("shop.test", Answer::Failure);
    setup.wait_for_answers().await;
    assert_eq!(setup.addresses(), ["198.18.0.1:80"]);
    setup.dns.set("shop.test", &[], 1);
    setup.wait_for(&[]).await;
}

#[tokio::test]
async fn a_cluster_is_warm_when_each_of_its_names_was_answered_or_failed() {
    let dns = DnsServer::start().await;
    dns.set("one.test", &["198.18.0.1"], 1);
    dns.answer("silent.test", Answer::Silence);
    let cold = setup(dns, QUICK, &["one.test", "silent.test"]).await;
    cold.dns.wait_for_questions(2).await;
    cold.wait_for_answers().await;
    assert!(!cold.cluster.is_warm() && cold.addresses().is_empty());
    let dns = DnsServer::start().await;
    dns.set("one.test", &["198.18.0.1"], 1);
    dns.answer("broken.test", Answer::Failure);
    let warm = setup(dns, QUICK, &["one.test", "broken.test", "198.18.0.9"]).await;
    warm.cluster.warmed().await;
    assert_eq!(warm.addresses(), ["198.18.0.1:80", "198.18.0.9:80"]);
}

#[tokio::test]
async fn the_next_question_waits_for_the_time_to_live_only_where_that_is_asked_for() {
    for (settings, ttl) in [
        ("type: STRICT_DNS, dns_lookup_family: V4_ONLY, dns_refresh_rate: 3600s, respect_dns_ttl: true", 1),
        (QUICK, 3600),
    ] {
        let dns = DnsServer::start().await;
        dns.set("shop.test", &["198.18.0.1"], ttl);
        let setup = setup(dns, settings, &["shop.test"]).await;
        setup.wait_for_answers().await;
    }
}

#[tokio::test]
async fn failures_have_a_rate_of_their_own() {
    let dns = DnsServer::start().await;
    dns.answer("shop.test", Answer::Failure);
    let settings = "type: STRICT_DNS, dns_lookup_family: V4_ONLY, dns_refresh_rate: 3600s, \
                    dns_failure_refresh_rate: {base_interval: 0.01s, max_interval: 0.02s}";
    let setup = setup(dns, settings, &["shop.test"]).await;
    setup.cluster.warmed().await;
    setup.dns.set("shop.test", &["198.18.0.1"], 1);
    setup.wait_for(&["198.18.0.1:80"]).await;
}

#[tokio::test]
async fn the_family_is_the_one_asked_for() {
    for (family, expected) in [
        ("AUTO", vec!["[fd00:198:18::1]:80"]),
        ("V4_ONLY", vec!["198.18.0.1:80"]),
        ("V6_ONLY", vec!["[fd00:198:18::1]:80"]),
        ("V4_PREFERRED", vec!["198.18.0.1:80"]),
        ("ALL", vec!["198.18.0.1:80", "[fd00:198:18::1]:80"]),
    ] {
        let dns = DnsServer::start().await;
        dns.set("both.test", &["198.18.0.1", "fd00:198:18::1"], 1);
        let setup = setup(dns, &format!("type: STRICT_DNS, dns_lookup_family: {family}"), &["both.test"]).await;
        setup.cluster.warmed().await;
        assert_eq!(setup.addresses(), expected, "{family}");
    }
}

#[tokio::test]
async fn a_logical_cluster_uses_one_address_for_as_long_as_it_is_there() {
    let dns = DnsServer::start().await;
    dns.set("shop.test", &["198.18.0.1"], 1);
    let setup = setup(dns, &QUICK.replace("STRICT", "LOGICAL"), &["shop.test"]).await;
    setup.cluster.warmed().await;
    setup.dns.set("shop.test", &["198.18.0.1", "198.18.0.2", "198.18.0.3"], 1);
    setup.wait_for_answers().await;
    assert_eq!(setup.addresses(), ["198.18.0.1:80"]);
    setup.dns.set("shop.test", &["198.18.0.2"], 1);
    setup.wait_for(&["198.18.0.2:80"]).await;
}

#[tokio::test]
async fn other_settings_are_taken_without_losing_what_is_known() {
    let dns = DnsServer::start().await;
    dns.set("shop.test", &["198.18.0.1"], 1);
    let setup = setup(dns, QUICK, &["shop.test"]).await;
    setup.cluster.warmed().await;
    setup.dns.answer("shop.test", Answer::Failure);
    setup.store.update(|_| setup.cluster.update(config(QUICK, &["shop.test"], 81)));
    setup.wait_for(&["198.18.0.1:81"]).await;
}

#[tokio::test]
async fn a_cluster_that_is_removed_is_no_longer_followed() {
    let dns = DnsServer::start().await;
    dns.set("shop.test", &["198.18.0.1"], 1);
    let setup = setup(dns, QUICK, &["shop.test"]).await;
    setup.cluster.warmed().await;
    setup.store.update(|next| drop(next.clusters.remove("c")));
    until(|| Arc::strong_count(&setup.cluster) == 1).await;
}
