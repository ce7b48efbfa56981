//! What the agent counts, for Prometheus.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use weft_cni::agent::Answer;

/// The agent's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    answers: Family<AnswerLabel, Counter>,
    repairs: Family<OutcomeLabel, Counter>,
    /// How often the CNI configuration had to be written.
    pub configuration_writes: Counter,
    /// 1 while the plugin is in the configuration that counts.
    pub configured: Gauge,
    /// Injected pods on the node, as of the last look.
    pub pods_injected: Gauge,
    /// Those of them that are known to be redirected.
    pub pods_redirected: Gauge<i64>,
    /// Errors of the watch on the API server.
    pub watch_errors: Counter<u64, AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    answer: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("weft_cni"),
            answers: Family::default(),
            repairs: Family::default(),
            configuration_writes: Counter::default(),
            configured: Gauge::default(),
            pods_injected: Gauge::default(),
            pods_redirected: Gauge::default(),
            watch_errors: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("answers", "Questions of the plugin, by answer", metrics.answers.clone());
        registry.register("repairs", "Pods found without their redirection, by outcome", metrics.repairs.clone());
        let writes = metrics.configuration_writes.clone();
        registry.register("configuration_writes", "How often the CNI configuration had to be written", writes);
        registry.register(
            "configured",
            "1 while the plugin is in the configuration that counts",
            metrics.configured.clone(),
        );
        registry.register("pods_injected", "Injected pods on the node", metrics.pods_injected.clone());
        registry.register(
            "pods_redirected",
            "Injected pods that are known to be redirected",
            metrics.pods_redirected.clone(),
        );
        registry.register("watch_errors", "Errors of the watch on the API server", metrics.watch_errors.clone());
        metrics
    }
}

impl Metrics {
    /// Counts an answer to the plugin.
    pub fn answered(&self, answer: &Answer) {
        let answer = match answer {
            Answer::Redirect(_) => "redirect",
            Answer::Leave(_) => "leave",
            Answer::Unknown(_) => "unknown",
        };
        self.answers.get_or_create(&AnswerLabel { answer }).inc();
    }

    /// Counts a pod that was found without its redirection: `installed`, `deleted`, `left` or `failed`.
    pub fn repaired(&self, outcome: &'static str) {
        self.repairs.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// All of them in the text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Invariant: writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
