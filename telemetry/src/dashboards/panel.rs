//! What a dashboard consists of.

use std::ops::RangeInclusive;

/// Labels that a scrape adds to every series of a target: `manifests/prometheus/` and `weft demo --prometheus` set them.
pub const SCRAPED: [&str; 5] = ["job", "instance", "namespace", "pod", "workload"];

/// A page of panels.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// What its address is made of, and the name of its file.
    pub uid: &'static str,
    /// Its name.
    pub title: &'static str,
    /// What it answers.
    pub description: &'static str,
    /// What can be chosen, besides the data source.
    pub variables: Vec<Variable>,
    /// What is shown, in rows of 24 columns.
    pub panels: Vec<Panel>,
}

impl Dashboard {
    /// All PromQL in it: of panels, and of variables, whose metric it is.
    pub fn expressions(&self) -> Vec<String> {
        let panels = self.panels.iter().flat_map(|panel| &panel.queries).map(|query| query.expression.clone());
        panels.chain(self.variables.iter().map(|variable| variable.metric.clone())).collect()
    }
}

/// Something to choose: values of a label.
#[derive(Debug, Clone)]
pub struct Variable {
    /// As queries use it, without the `$`.
    pub name: &'static str,
    /// As people read it.
    pub label: &'static str,
    /// Selects the series that have the label.
    pub metric: String,
    /// The label whose values there are.
    pub values_of: &'static str,
}

/// One picture.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// How it is drawn.
    pub kind: Kind,
    /// What its numbers are.
    pub unit: Unit,
    /// What it shows.
    pub queries: Vec<Query>,
    /// How its data move with the traffic.
    pub moves: Moves,
    /// Where a click on a series leads.
    pub link: Option<Link>,
    /// Of 24 columns.
    pub width: u8,
}

impl Panel {
    /// Lines over time, in a third of the width.
    pub fn graph(title: &'static str, unit: Unit, moves: Moves) -> Self {
        Self { title, kind: Kind::Graph, unit, queries: Vec::new(), moves, link: None, width: 8 }
    }

    /// One number, in a sixth of the width.
    pub fn number(title: &'static str, unit: Unit, moves: Moves, expression: String) -> Self {
        let number = Self { kind: Kind::Number, width: 4, ..Self::graph(title, unit, moves) };
        number.query(expression, title)
    }

    /// Rows of labels with their value, in half of the width.
    pub fn table(title: &'static str, unit: Unit, moves: Moves, expression: String) -> Self {
        let table = Self { kind: Kind::Table, width: 12, ..Self::graph(title, unit, moves) };
        table.query(expression, "")
    }

    /// The same with one more query; its legend names labels as `{{label}}`.
    #[must_use]
    pub fn query(mut self, expression: String, legend: &'static str) -> Self {
        self.queries.push(Query { expression, legend });
        self
    }

    /// The same, leading somewhere.
    #[must_use]
    pub fn leads_to(self, link: Link) -> Self {
        Self { link: Some(link), ..self }
    }

    /// The same, as wide.
    #[must_use]
    pub fn wide(self, width: u8) -> Self {
        Self { width, ..self }
    }
}

/// What is asked of Prometheus.
#[derive(Debug, Clone)]
pub struct Query {
    /// PromQL, with Grafana's variables.
    pub expression: String,
    /// What a series is called.
    pub legend: &'static str,
}

/// How a panel is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines over time.
    Graph,
    /// The last value.
    Number,
    /// Rows.
    Table,
}

/// What numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Requests per second.
    Requests,
    /// Other things per second.
    PerSecond,
    /// From 0 to 1, shown as percentage.
    Share,
    /// Durations that people wait for, in seconds.
    Latency,
    /// Seconds until something.
    TimeLeft,
    /// Bytes.
    Bytes,
    /// Bytes per second.
    BytesPerSecond,
    /// Things.
    Count,
    /// Cores of CPU in use.
    Cores,
}

impl Unit {
    /// Grafana's name for it.
    pub fn grafana(self) -> &'static str {
        match self {
            Self::Requests => "reqps",
            Self::PerSecond => "ops",
            Self::Share => "percentunit",
            Self::Latency | Self::TimeLeft => "s",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
            Self::Count => "short",
            Self::Cores => "none",
        }
    }

    /// What a value may be, on any mesh.
    pub fn range(self) -> RangeInclusive<f64> {
        match self {
            Self::Requests | Self::PerSecond | Self::Count => 0.0..=1e9,
            Self::Share => 0.0..=1.0,
            // The histogram's last bound.
            Self::Latency => 0.0..=60.0,
            // Certificates are valid for days.
            Self::TimeLeft => 0.0..=366.0 * 86_400.0,
            Self::Bytes | Self::BytesPerSecond => 0.0..=1e15,
            Self::Cores => 0.0..=4096.0,
        }
    }
}

/// How a panel's data move when there is more traffic on the mesh, more members, and of the traffic more is slow, fails, is refused, is
/// repeated and is in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moves {
    /// The largest value becomes larger.
    Up,
    /// The smallest value becomes smaller.
    Down,
    /// They become others, up or down.
    Either,
    /// They do not, because.
    Not(&'static str),
}

/// Where a series leads: to a dashboard that shows only what the series is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// By `destination_service`.
    Service,
    /// By `destination_workload`.
    Workload,
    /// By `source_workload`.
    Caller,
    /// By `route`.
    Route,
    /// By `pod`, to its proxy.
    Proxy,
}

impl Link {
    /// The dashboard.
    pub fn to(self) -> &'static str {
        match self {
            Self::Service => "weft-service",
            Self::Workload | Self::Caller => "weft-workload",
            Self::Route => "weft-route",
            Self::Proxy => "weft-proxy",
        }
    }

    /// The label whose value is carried.
    pub fn label(self) -> &'static str {
        match self {
            Self::Service => "destination_service",
            Self::Workload => "destination_workload",
            Self::Caller => "source_workload",
            Self::Route => "route",
            Self::Proxy => "pod",
        }
    }

    /// The variable that takes it.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload | Self::Caller => "workload",
            Self::Route => "route",
            Self::Proxy => "pod",
        }
    }
}
