//! `/config_dump` in Envoy's form (`envoy.admin.v3.ConfigDump`).

use prost::{Message, Name};
use serde_json::{Map, Value, json};
use weft_xds::envoy::config::bootstrap::v3::Bootstrap;
use weft_xds::envoy::config::cluster::v3::Cluster;
use weft_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_xds::envoy::config::listener::v3::Listener;
use weft_xds::envoy::config::route::v3::RouteConfiguration;
use weft_xds::envoy::extensions::transport_sockets::tls::v3::Secret;
use weft_xds::{FieldError, yaml};

use crate::ads::{Dump, Kind, Raw, Record};

/// The whole dump. Private keys are blacked out.
pub(super) fn config_dump(bootstrap: &Bootstrap, dump: &Dump) -> Result<Value, FieldError> {
    let mut message = yaml::to_json(bootstrap)?;
    redact(&mut message);
    let (static_listeners, static_clusters) = statics(&message);
    let (listeners, clusters) =
        (resources::<Listener>(dump, Kind::Listener)?, resources::<Cluster>(dump, Kind::Cluster)?);
    let routes = resources::<RouteConfiguration>(dump, Kind::Route)?;
    let endpoints = resources::<ClusterLoadAssignment>(dump, Kind::Endpoints)?;
    let secrets = resources::<Secret>(dump, Kind::Secret)?;
    let mut dump = json!({ "connected": dump.connected, "configs": [
        { "@type": of("BootstrapConfigDump"), "bootstrap": message },
        {
            "@type": of("ListenersConfigDump"),
            "static_listeners": static_listeners,
            "dynamic_listeners": listeners.iter().map(Resource::listener).collect::<Vec<_>>(),
        },
        {
            "@type": of("ClustersConfigDump"),
            "static_clusters": static_clusters,
            "dynamic_active_clusters": states(&clusters, "cluster", false),
            "dynamic_warming_clusters": states(&clusters, "cluster", true),
        },
        { "@type": of("RoutesConfigDump"), "dynamic_route_configs": states(&routes, "route_config", false) },
        { "@type": of("EndpointsConfigDump"), "dynamic_endpoint_configs": states(&endpoints, "endpoint_config", false) },
        {
            "@type": of("SecretsConfigDump"),
            "dynamic_active_secrets": states(&secrets, "secret", false),
            "dynamic_warming_secrets": states(&secrets, "secret", true),
        },
    ]});
    redact(&mut dump);
    Ok(dump)
}

fn of(name: &str) -> String {
    format!("type.googleapis.com/envoy.admin.v3.{name}")
}

/// One resource with its messages in JSON.
struct Resource {
    record: Record,
    active: Option<Value>,
    warming: Option<Value>,
}

/// The resources of a kind by name. All are converted together: loading the descriptors costs milliseconds.
fn resources<M: Message + Name + Default>(dump: &Dump, kind: Kind) -> Result<Vec<Resource>, FieldError> {
    let mut records: Vec<Record> = dump.records.iter().filter(|record| record.key.0 == kind).cloned().collect();
    records.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let raws = records.iter().flat_map(|record| [&record.active, &record.warming]).flatten();
    let messages: Vec<M> = raws.map(|raw| weft_xds::unpack(&raw.message, "")).collect::<Result<_, _>>()?;
    let mut values = yaml::to_json_all(&messages)?.into_iter();
    let mut value = |raw: &Option<Raw>, kind: Kind| {
        let mut value = raw.as_ref().and_then(|_| values.next())?;
        if let Value::Object(fields) = &mut value {
            fields.insert("@type".to_owned(), kind.type_url().into());
        }
        Some(value)
    };
    let resources = records.into_iter().map(|record| {
        let (active, warming) = (value(&record.active, kind), value(&record.warming, kind));
        Resource { record, active, warming }
    });
    Ok(resources.collect())
}

impl Resource {
    /// `envoy.admin.v3.ListenersConfigDump.DynamicListener`.
    fn listener(&self) -> Value {
        let mut out = Map::new();
        out.insert("name".to_owned(), (*self.record.key.1).into());
        for (field, raw, value) in [
            ("active_state", &self.record.active, &self.active),
            ("warming_state", &self.record.warming, &self.warming),
        ] {
            if let (Some(raw), Some(value)) = (raw, value) {
                out.insert(field.to_owned(), json!({ "version_info": &*raw.version, "listener": value }));
            }
        }
        self.finish(out)
    }

    /// The dumps of the other kinds, which hold one version each.
    fn state(&self, field: &str, warming: bool) -> Option<Value> {
        let (raw, value) =
            if warming { (&self.record.warming, &self.warming) } else { (&self.record.active, &self.active) };
        let mut out = Map::new();
        match (raw, value) {
            (Some(raw), Some(value)) => {
                out.insert("version_info".to_owned(), (*raw.version).into());
                out.insert(field.to_owned(), value.clone());
            }
            // Known only by name: asked for, absent or refused.
            _ if !warming && self.record.warming.is_none() => {}
            _ => return None,
        }
        out.insert("name".to_owned(), (*self.record.key.1).into());
        Some(self.finish(out))
    }

    fn finish(&self, mut out: Map<String, Value>) -> Value {
        let record = &self.record;
        let status = match () {
            () if record.refused.is_some() => "NACKED",
            () if record.absent => "DOES_NOT_EXIST",
            () if record.active.is_some() || record.warming.is_some() => "ACKED",
            () => "REQUESTED",
        };
        out.insert("client_status".to_owned(), status.into());
        if let Some(refused) = &record.refused {
            let state = json!({ "version_info": &*refused.version, "details": refused.error.to_string() });
            out.insert("error_state".to_owned(), state);
        }
        out.into()
    }
}

fn states(resources: &[Resource], field: &str, warming: bool) -> Vec<Value> {
    resources.iter().filter_map(|resource| resource.state(field, warming)).collect()
}

/// The bootstrap's own listeners and clusters, each in the wrapper that the dump has for it.
fn statics(bootstrap: &Value) -> (Vec<Value>, Vec<Value>) {
    let list = |field: &str, wrapper: &str| {
        let messages = bootstrap["static_resources"][field].as_array();
        messages.into_iter().flatten().map(|message| json!({ wrapper: message })).collect()
    };
    (list("listeners", "listener"), list("clusters", "cluster"))
}

/// Blacks out what must not leave the process, wherever it is.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if matches!(name.as_str(), "private_key" | "password" | "session_ticket_keys") {
                    *field = json!({ "inline_string": "[redacted]" });
                } else {
                    redact(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}
