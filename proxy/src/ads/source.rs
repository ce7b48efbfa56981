//! Where resources say that what they need comes from: all of it from the one control plane of the bootstrap.

use prost::Message as _;
use weft_xds::envoy::config::core::v3::api_config_source::ApiType;
use weft_xds::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use weft_xds::envoy::config::core::v3::grpc_service::TargetSpecifier;
use weft_xds::envoy::config::core::v3::{ApiConfigSource, ConfigSource};
use weft_xds::{FieldError, support};

use super::channel::Dialect;

/// How the bootstrap reaches its control plane, which every `ConfigSource` has to agree with.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Source {
    /// By one stream for everything (`ads_config`).
    #[default]
    Aggregated,
    /// By a stream for each kind (`api_config_source`).
    Separate(Service),
}

/// What an `ApiConfigSource` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The cluster of the bootstrap that leads to the control plane.
    pub cluster: String,
    /// What is spoken.
    pub dialect: Dialect,
}

impl Source {
    /// Checks every `ConfigSource` in an encoded message.
    ///
    /// # Errors
    /// The path of the first one that means another control plane, or another way to it.
    pub fn check(&self, type_url: &str, bytes: &[u8]) -> Result<(), FieldError> {
        for found in support::each_within(type_url, bytes, "envoy.config.core.v3.ConfigSource") {
            let source = ConfigSource::decode(found.bytes)
                .map_err(|error| FieldError::new(&found.path, format!("does not decode: {error}")))?;
            self.check_one(&source).map_err(|error| error.within(&found.path))?;
        }
        Ok(())
    }

    fn check_one(&self, source: &ConfigSource) -> Result<(), FieldError> {
        match (self, &source.config_source_specifier) {
            (Self::Aggregated, Some(ConfigSourceSpecifier::ApiConfigSource(_))) => Err(FieldError::new(
                "api_config_source",
                "the bootstrap has a stream for everything (ads_config); write `ads: {}`",
            )),
            (Self::Separate(_), Some(ConfigSourceSpecifier::Ads(_))) => Err(FieldError::new(
                "ads",
                "the bootstrap has no stream for everything; give it an ads_config, or write the api_config_source that it has",
            )),
            (Self::Separate(own), Some(ConfigSourceSpecifier::ApiConfigSource(other))) => {
                let other = Service::compile(other, "api_config_source")?;
                if other.cluster != own.cluster {
                    return Err(FieldError::invalid(
                        "api_config_source.grpc_services[0].envoy_grpc.cluster_name",
                        &other.cluster,
                        format_args!("is not `{}`, the control plane of the bootstrap", own.cluster),
                        "everything has to come from one",
                    ));
                }
                if other.dialect != own.dialect {
                    let problem = "differs from the bootstrap's; make both the same";
                    return Err(FieldError::new("api_config_source.api_type", problem));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Service {
    /// What is named, where it is something that can be spoken to.
    ///
    /// # Errors
    /// The first field that is wrong or not supported, below `path`.
    pub fn compile(message: &ApiConfigSource, path: &str) -> Result<Self, FieldError> {
        let dialect = match ApiType::try_from(message.api_type) {
            Ok(ApiType::DeltaGrpc) => Dialect::Delta,
            Ok(ApiType::Grpc) => Dialect::StateOfTheWorld,
            _ => return Err(FieldError::new(format!("{path}.api_type"), "is not supported; use DELTA_GRPC or GRPC")),
        };
        let service = match message.grpc_services.as_slice() {
            [service] => service,
            services => {
                let problem = format!("holds {} services; give exactly one", services.len());
                return Err(FieldError::new(format!("{path}.grpc_services"), problem));
            }
        };
        let path = format!("{path}.grpc_services[0].envoy_grpc");
        let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
            return Err(FieldError::missing(path, "name a cluster of static_resources"));
        };
        Ok(Self { cluster: target.cluster_name.clone(), dialect })
    }
}

#[cfg(test)]
mod tests {
    use weft_xds::envoy::config::cluster::v3::Cluster;
    use weft_xds::envoy::config::listener::v3::Listener;
    use weft_xds::{pack, yaml};

    use super::*;

    const API: &str = "api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: control}}]}";

    fn cluster(source: &Source, config: &str) -> Result<(), String> {
        let text = format!("{{name: c, type: EDS, eds_cluster_config: {{eds_config: {{{config}}}}}}}");
        let message = pack(&yaml::from_str::<Cluster>(&text).unwrap());
        source.check(&message.type_url, &message.value).map_err(|error| error.to_string())
    }

    fn separate(cluster: &str) -> Source {
        Source::Separate(Service { cluster: cluster.to_owned(), dialect: Dialect::StateOfTheWorld })
    }

    #[test]
    fn resources_name_the_way_that_the_bootstrap_names() {
        assert_eq!(cluster(&Source::Aggregated, "ads: {}"), Ok(()));
        assert_eq!(cluster(&Source::Aggregated, "self: {}"), Ok(()));
        assert_eq!(cluster(&separate("control"), API), Ok(()));
        assert_eq!(cluster(&separate("control"), "self: {}"), Ok(()));
        let at = "eds_cluster_config.eds_config";
        let refused = |source: &Source, config: &str| cluster(source, config).unwrap_err();
        assert!(refused(&Source::Aggregated, API).starts_with(&format!("{at}.api_config_source: ")));
        assert!(refused(&separate("control"), "ads: {}").starts_with(&format!("{at}.ads: ")));
        let other = refused(&separate("other"), API);
        assert!(
            other.starts_with(&format!("{at}.api_config_source.grpc_services[0].envoy_grpc.cluster_name: `control`"))
        );
        let delta = API.replace("GRPC", "DELTA_GRPC");
        assert!(refused(&separate("control"), &delta).starts_with(&format!("{at}.api_config_source.api_type: ")));
    }

    #[test]
    fn a_source_deep_inside_is_found() {
        let text = format!(
            r#"
name: l
filter_chains:
- filters: [{{name: first}}]
- filters:
  - name: http
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      rds: {{route_config_name: r, config_source: {{{API}}}}}
"#
        );
        let message = pack(&yaml::from_str::<Listener>(&text).unwrap());
        let error = Source::Aggregated.check(&message.type_url, &message.value).unwrap_err();
        assert_eq!(error.path, "filter_chains[1].filters[0].typed_config.rds.config_source.api_config_source");
    }
}
