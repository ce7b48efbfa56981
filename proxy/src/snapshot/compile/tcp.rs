//! `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.

use weft_xds::FieldError;
use weft_xds::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use weft_xds::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;

use super::Needs;
use super::fields::{ONE_HOUR, join, limit, number, unsupported};
use crate::snapshot::{TcpChain, TcpTarget};

/// Compiles the message; adds the clusters it names to `needs`.
pub(super) fn compile(message: &TcpProxy, path: &str, needs: &mut Needs) -> Result<TcpChain, FieldError> {
    unsupported(message.on_demand.is_some(), path, "on_demand")?;
    unsupported(message.metadata_match.is_some(), path, "metadata_match")?;
    unsupported(message.downstream_idle_timeout.is_some(), path, "downstream_idle_timeout")?;
    unsupported(message.upstream_idle_timeout.is_some(), path, "upstream_idle_timeout")?;
    unsupported(message.backoff_options.is_some(), path, "backoff_options")?;
    unsupported(!message.hash_policy.is_empty(), path, "hash_policy")?;
    unsupported(message.tunneling_config.is_some(), path, "tunneling_config")?;
    unsupported(
        message.max_downstream_connection_duration_jitter_percentage.is_some(),
        path,
        "max_downstream_connection_duration_jitter_percentage",
    )?;
    unsupported(message.max_downstream_connection_duration.is_some(), path, "max_downstream_connection_duration")?;
    unsupported(!message.proxy_protocol_tlvs.is_empty(), path, "proxy_protocol_tlvs")?;
    unsupported(message.upstream_connect_mode != 0, path, "upstream_connect_mode")?;
    unsupported(message.max_early_data_bytes.is_some(), path, "max_early_data_bytes")?;
    let targets = match &message.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![target(name, 1, &join(path, "cluster"))?],
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let path = join(path, "weighted_clusters.clusters");
            let mut targets = Vec::with_capacity(weighted.clusters.len());
            for (i, choice) in weighted.clusters.iter().enumerate() {
                let path = format!("{path}[{i}]");
                unsupported(choice.metadata_match.is_some(), &path, "metadata_match")?;
                if choice.weight == 0 {
                    return Err(FieldError::invalid(
                        join(&path, "weight"),
                        0,
                        "is not a weight",
                        "give 1 or more, or leave the cluster out",
                    ));
                }
                targets.push(target(&choice.name, choice.weight, &join(&path, "name"))?);
            }
            targets
        }
        None => Vec::new(),
    };
    if targets.is_empty() {
        return Err(FieldError::missing(join(path, "cluster"), "give cluster or weighted_clusters"));
    }
    let Some(total_weight) = targets.iter().try_fold(0_u32, |sum, target| sum.checked_add(target.weight)) else {
        return Err(FieldError::new(
            join(path, "weighted_clusters"),
            "weights add up to more than 4294967295; make them smaller",
        ));
    };
    needs.clusters.extend(targets.iter().map(|target| target.cluster.clone()));
    Ok(TcpChain {
        targets,
        total_weight,
        idle_timeout: limit(message.idle_timeout.as_ref(), Some(ONE_HOUR), path, "idle_timeout")?,
        max_connect_attempts: number(
            message.max_connect_attempts.as_ref(),
            1,
            1..=u32::MAX,
            path,
            "max_connect_attempts",
        )?,
        stat_prefix: message.stat_prefix.as_str().into(),
    })
}

fn target(name: &str, weight: u32, path: &str) -> Result<TcpTarget, FieldError> {
    if name.is_empty() {
        return Err(FieldError::missing(path, "name a cluster"));
    }
    Ok(TcpTarget { cluster: name.into(), weight })
}
