//! Messages that several others hold.

use super::Decision;

pub(super) static TABLE: &[Decision] = &[
    Decision {
        message: "envoy.config.core.v3.Address",
        enforced: &["socket_address"],
        ignored: &[],
        refused: &["pipe", "envoy_internal_address"],
    },
    Decision {
        message: "envoy.config.core.v3.SocketAddress",
        enforced: &["protocol", "address", "port_value"],
        ignored: &["ipv4_compat"],
        refused: &["named_port", "resolver_name", "network_namespace_filepath"],
    },
    Decision {
        message: "envoy.config.core.v3.CidrRange",
        enforced: &["address_prefix", "prefix_len"],
        ignored: &[],
        refused: &[],
    },
    Decision {
        message: "envoy.config.core.v3.Metadata",
        enforced: &["filter_metadata"],
        ignored: &["typed_filter_metadata"],
        refused: &[],
    },
    Decision {
        message: "envoy.config.core.v3.Locality",
        enforced: &["zone"],
        ignored: &["region", "sub_zone"],
        refused: &[],
    },
    Decision {
        message: "envoy.config.core.v3.TransportSocket",
        enforced: &["name", "typed_config"],
        ignored: &[],
        refused: &[],
    },
    Decision {
        message: "envoy.config.core.v3.TypedExtensionConfig",
        enforced: &["name", "typed_config"],
        ignored: &[],
        refused: &[],
    },
    Decision {
        message: "envoy.config.core.v3.DataSource",
        enforced: &["filename", "inline_bytes", "inline_string", "environment_variable"],
        ignored: &[],
        refused: &["watched_directory"],
    },
    Decision {
        message: "envoy.config.core.v3.HeaderValueOption",
        enforced: &["header", "append", "append_action", "keep_empty_value"],
        ignored: &[],
        refused: &[],
    },
    Decision {
        message: "envoy.config.core.v3.HeaderValue",
        enforced: &["key", "value", "raw_value"],
        ignored: &[],
        refused: &[],
    },
    Decision {
        message: "envoy.config.core.v3.RuntimeFractionalPercent",
        enforced: &["default_value"],
        ignored: &["runtime_key"],
        refused: &[],
    },
    Decision {
        message: "envoy.config.core.v3.ConfigSource",
        enforced: &["ads", "self", "api_config_source", "resource_api_version"],
        ignored: &["initial_fetch_timeout"],
        refused: &["authorities", "path", "path_config_source"],
    },
    Decision { message: "envoy.config.core.v3.AggregatedConfigSource", enforced: &[], ignored: &[], refused: &[] },
    Decision {
        message: "envoy.config.core.v3.SelfConfigSource",
        enforced: &["transport_api_version"],
        ignored: &[],
        refused: &[],
    },
    Decision {
        message: "envoy.type.v3.FractionalPercent",
        enforced: &["numerator", "denominator"],
        ignored: &[],
        refused: &[],
    },
    Decision { message: "envoy.type.v3.Percent", enforced: &["value"], ignored: &[], refused: &[] },
    Decision { message: "envoy.type.v3.Int32Range", enforced: &["start", "end"], ignored: &[], refused: &[] },
    Decision { message: "envoy.type.v3.Int64Range", enforced: &["start", "end"], ignored: &[], refused: &[] },
    Decision {
        message: "envoy.type.matcher.v3.StringMatcher",
        enforced: &["exact", "prefix", "suffix", "safe_regex", "contains", "ignore_case"],
        ignored: &[],
        refused: &["custom"],
    },
    Decision {
        message: "envoy.type.matcher.v3.RegexMatcher",
        enforced: &["regex"],
        ignored: &["google_re2"],
        refused: &[],
    },
    Decision {
        message: "envoy.type.matcher.v3.RegexMatchAndSubstitute",
        enforced: &["pattern", "substitution"],
        ignored: &[],
        refused: &[],
    },
    Decision { message: "envoy.type.matcher.v3.PathMatcher", enforced: &["path"], ignored: &[], refused: &[] },
];
