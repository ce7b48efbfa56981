//! What is measured: one table of all metrics, from which the programs register them and the reference page is made; and what is made
//! of them, the Grafana dashboards.
//!
//! | module | job |
//! |---|---|
//! | [`proxy`], [`control_plane`] | the tables |
//! | [`page`] | `docs/reference/metrics.md` |
//! | [`dashboards`] | `manifests/grafana/dashboards` |
//!
//! Invariants: no IO; a metric that is not in its table cannot be registered, and a dashboard asks for no other.

pub mod control_plane;
pub mod dashboards;
pub mod page;
pub mod proxy;

/// A metric: all series of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// The name in `# TYPE`, which of a counter and of an info lacks the suffix that its series have.
    pub name: &'static str,
    /// What kind of series.
    pub kind: Kind,
    /// The labels of its series; a histogram's buckets also have `le`.
    pub labels: &'static [&'static str],
    /// What it means: the text in `# HELP`, without a full stop.
    pub help: &'static str,
}

/// The kinds of the OpenMetrics exposition format that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows from the start of its process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
    /// Is 1, and says something by its labels.
    Info,
}

impl Kind {
    /// As in `# TYPE`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// What the names of series have in addition to the family's.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["_bucket", "_sum", "_count"],
            Self::Info => &["_info"],
        }
    }
}

impl Family {
    /// The names of its series.
    pub fn series(&self) -> impl Iterator<Item = String> {
        self.kind.suffixes().iter().map(|suffix| format!("{}{suffix}", self.name))
    }
}

/// The family of a series, given its name.
pub fn family_of(series: &str) -> Option<&'static Family> {
    all().find(|family| family.series().any(|name| name == series))
}

/// Every family of every table.
pub fn all() -> impl Iterator<Item = &'static Family> {
    proxy::ALL.iter().chain(control_plane::ALL)
}

/// A table: each family as a constant, and all of them.
macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal $labels:expr, $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`: ", $help, ".")]
            pub const $constant: $crate::Family =
                $crate::Family { name: $name, kind: $crate::Kind::$kind, labels: &$labels, help: $help };
        )+

        /// All of them, in the order in which they are described.
        pub const ALL: &[$crate::Family] = &[$($constant,)+];
    };
}
use families;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_series_belongs_to_one_family() {
        let mut names = BTreeSet::new();
        for name in all().flat_map(Family::series) {
            assert!(names.insert(name.clone()), "{name} is there twice");
        }
        assert_eq!(family_of("weft_requests_total"), Some(&proxy::REQUESTS));
        assert_eq!(family_of("weft_requests"), None);
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for Family { name, kind, help, .. } in all() {
            assert!(name.starts_with("weft_") || name.starts_with("process_"), "{name} has a prefix");
            assert!(!name.ends_with("_total") && !name.ends_with("_info"), "{name} has no suffix");
            assert!(!help.ends_with('.'), "{name}: a full stop is added to {help:?}");
            let unit = ["_seconds", "_bytes"].iter().any(|unit| name.ends_with(unit));
            assert!(*kind != Kind::Histogram || unit, "{name} says its unit");
        }
    }

    #[test]
    fn every_label_is_explained() {
        let used: BTreeSet<_> = all().flat_map(|family| family.labels).collect();
        let explained: BTreeSet<_> = page::LABELS.iter().map(|(label, _)| label).collect();
        assert_eq!(used, explained);
    }
}
