//! Where requests go.

use serde_json::Value;

use super::NONE;
use super::dump::{Dump, join, list, number, text};
use crate::output::Table;

/// One row for each route, in the order in which they are tried.
pub(crate) fn table(dump: &Dump<'_>, wide: bool) -> String {
    let mut table = Table::new(["ROUTE", "HOSTS", "MATCH", "TO", "TIMEOUT", "RETRIES", "VERSION"])
        .more(wide, ["NAME", "TRY TIMEOUT", "IDLE TIMEOUT"]);
    for entry in dump.routes() {
        for host in list(&entry.resource["virtual_hosts"]) {
            let domains = join(list(&host["domains"]).map(|domain| text(domain).to_owned()), ",");
            for route in list(&host["routes"]) {
                let action = &route["route"];
                let cells = [
                    text(&entry.resource["name"]).to_owned(),
                    domains.clone(),
                    matches(&route["match"]),
                    to(route),
                    action["timeout"].as_str().unwrap_or("-").to_owned(),
                    retries(&action["retry_policy"]),
                    entry.version(),
                ];
                let or_none = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
                let try_timeout = or_none(&action["retry_policy"]["per_try_timeout"]);
                table.row_and(cells, [or_none(&route["name"]), try_timeout, or_none(&action["idle_timeout"])]);
            }
        }
    }
    table.titled("ROUTES", NONE)
}

fn matches(matches: &Value) -> String {
    let mut parts = Vec::new();
    parts.extend(matches["path"].as_str().map(|path| format!("={path}")));
    parts.extend(matches["prefix"].as_str().map(|path| format!("{path}*")));
    parts.extend(matches["path_separated_prefix"].as_str().map(|path| format!("{path}[/*]")));
    parts.extend(matches["safe_regex"]["regex"].as_str().map(|regex| format!("~{regex}")));
    parts.extend(matches["connect_matcher"].is_object().then(|| "CONNECT".to_owned()));
    for header in list(&matches["headers"]) {
        parts.push(format!("{}{}", text(&header["name"]), string(&header["string_match"])));
    }
    for query in list(&matches["query_parameters"]) {
        parts.push(format!("?{}{}", text(&query["name"]), string(&query["string_match"])));
    }
    join(parts, " ")
}

fn string(matches: &Value) -> String {
    let parts = [("exact", "="), ("prefix", "^="), ("suffix", "$="), ("contains", "*=")];
    let plain = parts.iter().find_map(|(field, sign)| Some(format!("{sign}{}", matches[*field].as_str()?)));
    plain.or_else(|| Some(format!("~{}", matches["safe_regex"]["regex"].as_str()?))).unwrap_or_default()
}

fn to(route: &Value) -> String {
    if route["redirect"].is_object() {
        return "redirect".to_owned();
    }
    if route["direct_response"].is_object() {
        return format!("status {}", number(&route["direct_response"]["status"]));
    }
    let action = &route["route"];
    let weighted = list(&action["weighted_clusters"]["clusters"])
        .map(|cluster| format!("{} ({})", text(&cluster["name"]), number(&cluster["weight"])));
    join(std::iter::once(text(&action["cluster"]).to_owned()).chain(weighted), " ")
}

fn retries(policy: &Value) -> String {
    if !policy.is_object() {
        return "-".to_owned();
    }
    let count = match &policy["num_retries"] {
        Value::Null => "1".to_owned(),
        count => number(count),
    };
    format!("{count} on {}", text(&policy["retry_on"]))
}
