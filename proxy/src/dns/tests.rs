//! What is made of a server's answers.

use std::time::Duration;

use super::testing::{Answer, DnsServer};
use super::*;

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn each_family_gets_the_addresses_it_asks_for() {
    let server = DnsServer::start().await;
    server.set("both.test", &["198.18.0.2", "198.18.0.1", "fd00:198:18::1"], 30);
    server.set("four.test", &["198.18.0.1"], 30);
    let resolver = server.resolver();
    for (name, family, expected) in [
        ("both.test", Family::Auto, vec!["fd00:198:18::1"]),
        ("both.test", Family::V4Only, vec!["198.18.0.1", "198.18.0.2"]),
        ("both.test", Family::V6Only, vec!["fd00:198:18::1"]),
        ("both.test", Family::V4Preferred, vec!["198.18.0.1", "198.18.0.2"]),
        ("both.test", Family::All, vec!["198.18.0.1", "198.18.0.2", "fd00:198:18::1"]),
        ("four.test", Family::Auto, vec!["198.18.0.1"]),
        ("four.test", Family::All, vec!["198.18.0.1"]),
    ] {
        let resolved = resolver.lookup(name, family).await.unwrap();
        assert_eq!(resolved.addresses, addresses(&expected), "{name} {family:?}");
        assert_eq!(resolved.ttl, Some(Duration::from_secs(30)));
    }
}

#[test]
fn each_family_gets_from_the_hosts_file_what_it_asks_for() {
    let text = "
198.18.0.2  both.test other.test  # a comment
198.18.0.1  Both.test
198.18.0.1  both.test
fd00:198:18::1 both.test six.test
198.18.0.3  four.test
";
    let mut hosts = Hosts::default();
    hosts.read_hosts_conf(text.as_bytes()).unwrap();
    let both = ["198.18.0.1", "198.18.0.2", "fd00:198:18::1"];
    let (v4, v6) = both.split_at(2);
    for (name, family, expected) in [
        ("both.test", Family::Auto, v6),
        ("both.test", Family::V4Only, v4),
        ("both.test", Family::V6Only, v6),
        ("both.test", Family::V4Preferred, v4),
        ("both.test", Family::All, &both),
        ("BOTH.test", Family::All, &both),
        ("other.test", Family::All, &["198.18.0.2"]),
        ("four.test", Family::Auto, &["198.18.0.3"]),
        ("four.test", Family::V6Only, &[]),
        ("six.test", Family::V4Preferred, v6),
        ("six.test", Family::V4Only, &[]),
        ("absent.test", Family::All, &[]),
    ] {
        let found = addresses_in(&hosts, &Name::from_str_relaxed(name).unwrap(), family);
        assert_eq!(found, addresses(expected), "{name} {family:?}");
    }
}

#[tokio::test]
async fn a_change_is_seen_at_the_next_lookup_whatever_the_ttl() {
    let server = DnsServer::start().await;
    let resolver = server.resolver();
    for address in ["198.18.0.1", "198.18.0.2"] {
        server.set("moves.test", &[address], 3600);
        assert_eq!(resolver.lookup("moves.test", Family::V4Only).await.unwrap().addresses, addresses(&[address]));
    }
}

#[tokio::test]
async fn an_address_needs_no_server() {
    let resolver = Resolver::with_servers(Vec::new());
    let resolved = resolver.lookup("fd00:198:18::1", Family::V4Only).await.unwrap();
    assert_eq!(resolved, Resolved { addresses: addresses(&["fd00:198:18::1"]), ttl: None });
}

#[tokio::test]
async fn what_failed_is_said_with_the_name() {
    let server = DnsServer::start().await;
    server.answer("broken.test", Answer::Failure);
    server.set("six.test", &["fd00:198:18::1"], 1);
    let resolver = server.resolver();
    for (name, expected) in [
        ("absent.test", "the DNS servers know no address of `absent.test`"),
        ("six.test", "the DNS servers know no address of `six.test`"),
        ("broken.test", "`broken.test` cannot be resolved: "),
        ("a..b", "`a..b` is not a DNS name: "),
    ] {
        let error = resolver.lookup(name, Family::V4Only).await.unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
