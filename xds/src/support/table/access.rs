//! RBAC, as an HTTP and as a network filter.

use super::Decision;

pub(super) static TABLE: &[Decision] = &[
    Decision {
        message: "envoy.extensions.filters.http.rbac.v3.RBAC",
        enforced: &["rules", "shadow_rules"],
        ignored: &["rules_stat_prefix", "shadow_rules_stat_prefix", "track_per_rule_stats"],
        refused: &["matcher", "shadow_matcher"],
    },
    Decision {
        message: "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
        enforced: &["rbac"],
        ignored: &[],
        refused: &[],
    },
    Decision {
        message: "envoy.extensions.filters.network.rbac.v3.RBAC",
        enforced: &["rules", "shadow_rules"],
        ignored: &["shadow_rules_stat_prefix", "stat_prefix"],
        refused: &["matcher", "shadow_matcher", "enforcement_type", "delay_deny"],
    },
    Decision {
        message: "envoy.config.rbac.v3.RBAC",
        enforced: &["action", "policies"],
        ignored: &[],
        refused: &["audit_logging_options"],
    },
    Decision {
        message: "envoy.config.rbac.v3.Policy",
        enforced: &["permissions", "principals"],
        ignored: &[],
        refused: &["condition", "checked_condition", "cel_config"],
    },
    Decision {
        message: "envoy.config.rbac.v3.Permission",
        enforced: &[
            "and_rules",
            "or_rules",
            "any",
            "header",
            "url_path",
            "destination_ip",
            "destination_port",
            "destination_port_range",
            "not_rule",
            "requested_server_name",
        ],
        ignored: &[],
        refused: &["metadata", "matcher", "uri_template", "sourced_metadata"],
    },
    Decision { message: "envoy.config.rbac.v3.Permission.Set", enforced: &["rules"], ignored: &[], refused: &[] },
    Decision {
        message: "envoy.config.rbac.v3.Principal",
        enforced: &["and_ids", "or_ids", "any", "authenticated", "direct_remote_ip", "header", "url_path", "not_id"],
        ignored: &[],
        refused: &["source_ip", "remote_ip", "metadata", "filter_state", "sourced_metadata", "custom"],
    },
    Decision { message: "envoy.config.rbac.v3.Principal.Set", enforced: &["ids"], ignored: &[], refused: &[] },
    Decision {
        message: "envoy.config.rbac.v3.Principal.Authenticated",
        enforced: &["principal_name"],
        ignored: &[],
        refused: &[],
    },
];
