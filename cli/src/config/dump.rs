//! Finding things in Envoy's `/config_dump`.

use serde_json::{Value, json};

use crate::command::Part;

/// A dump: `configs`, each with its `@type`.
pub(crate) struct Dump<'a> {
    configs: Vec<&'a Value>,
}

/// A resource, and the version it came with.
pub(crate) struct Entry<'a> {
    pub(crate) resource: &'a Value,
    version: &'a str,
    error: Option<&'a str>,
}

impl Entry<'_> {
    /// The version, whole; empty for what is from the bootstrap file.
    pub(crate) fn full_version(&self) -> &str {
        self.version
    }

    /// The version as a cell of a table; `static` for what is from the bootstrap file.
    pub(crate) fn version(&self) -> String {
        let version = match self.version {
            "" => "static",
            version => version.get(..8).unwrap_or(version),
        };
        match self.error {
            None => version.to_owned(),
            Some(error) => format!("{version}, rejected: {error}"),
        }
    }
}

impl<'a> Dump<'a> {
    pub(crate) fn new(dump: &'a Value) -> Self {
        Self { configs: list(&dump["configs"]).collect() }
    }

    /// The configs of one part, in the shape of the whole.
    pub(crate) fn part(&self, part: Part) -> Value {
        let of = match part {
            Part::Listeners => "ListenersConfigDump",
            Part::Routes => "RoutesConfigDump",
            Part::Clusters => "ClustersConfigDump",
            Part::Endpoints => "EndpointsConfigDump",
            Part::Certificates | Part::All => "",
        };
        json!({ "configs": self.configs_of(of).collect::<Vec<_>>() })
    }

    pub(crate) fn listeners(&self) -> Vec<Entry<'a>> {
        let dynamic = self.entries("ListenersConfigDump", "dynamic_listeners").map(|entry| {
            let state = if entry["active_state"].is_object() { "active_state" } else { "warming_state" };
            Entry {
                resource: &entry[state]["listener"],
                version: text(&entry[state]["version_info"]),
                error: entry["error_state"]["details"].as_str(),
            }
        });
        dynamic.chain(self.plain("ListenersConfigDump", "static_listeners", "listener")).collect()
    }

    pub(crate) fn routes(&self) -> Vec<Entry<'a>> {
        let dynamic = self.plain("RoutesConfigDump", "dynamic_route_configs", "route_config");
        dynamic.chain(self.plain("RoutesConfigDump", "static_route_configs", "route_config")).collect()
    }

    pub(crate) fn clusters(&self) -> Vec<Entry<'a>> {
        let active = self.plain("ClustersConfigDump", "dynamic_active_clusters", "cluster");
        let warming = self.plain("ClustersConfigDump", "dynamic_warming_clusters", "cluster");
        active.chain(warming).chain(self.plain("ClustersConfigDump", "static_clusters", "cluster")).collect()
    }

    pub(crate) fn endpoints(&self) -> Vec<Entry<'a>> {
        let dynamic = self.plain("EndpointsConfigDump", "dynamic_endpoint_configs", "endpoint_config");
        dynamic.chain(self.plain("EndpointsConfigDump", "static_endpoint_configs", "endpoint_config")).collect()
    }

    fn plain(&self, of: &'static str, field: &'static str, inner: &'static str) -> impl Iterator<Item = Entry<'a>> {
        self.entries(of, field).map(move |entry| Entry {
            resource: &entry[inner],
            version: text(&entry["version_info"]),
            error: entry["error_state"]["details"].as_str(),
        })
    }

    fn entries(&self, of: &'static str, field: &'static str) -> impl Iterator<Item = &'a Value> {
        self.configs_of(of).flat_map(move |config| list(&config[field]))
    }

    fn configs_of(&self, of: &'static str) -> impl Iterator<Item = &'a Value> {
        self.configs.iter().copied().filter(move |config| text(&config["@type"]).ends_with(of))
    }
}

/// The elements of a list; none of anything else.
pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The text of a string; empty for anything else.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A number, or a wrapper message's number, as text; `-` where there is none.
pub(crate) fn number(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => "-".to_owned(),
    }
}

/// `address:port` of an `Address`.
pub(crate) fn address(value: &Value) -> String {
    let socket = &value["socket_address"];
    if let Some(address) = socket["address"].as_str() {
        let port = number(&socket["port_value"]);
        return if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    }
    match value["pipe"]["path"].as_str() {
        Some(path) => format!("unix:{path}"),
        None => "-".to_owned(),
    }
}

/// The short name of a typed configuration's type: `Router` of `…http.router.v3.Router`.
pub(crate) fn type_name(typed_config: &Value) -> &str {
    text(&typed_config["@type"]).rsplit('.').next().unwrap_or_default()
}

/// Items joined, `-` if there are none.
pub(crate) fn join(items: impl IntoIterator<Item = String>, with: &str) -> String {
    let items: Vec<_> = items.into_iter().filter(|item| !item.is_empty()).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(with) }
}
