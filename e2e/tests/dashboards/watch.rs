//! What panels show, and how it moves.

use std::collections::BTreeMap;

use weft_local_mesh::{Error, Sample};
use weft_telemetry::dashboards::{self, Dashboard, Moves, Panel};

use super::scene::{Scene, WINDOW};

/// All panels, and what is known of each.
pub(crate) struct Watch {
    dashboards: Vec<Dashboard>,
    /// Queries that have not shown anything yet.
    unseen: Vec<Watched>,
    /// What the others showed when it was remembered; those that have moved since are gone.
    still: Vec<(Watched, Option<Extremes>)>,
}

/// One query of a panel.
#[derive(Clone)]
struct Watched {
    dashboard: &'static str,
    panel: Panel,
    expression: String,
}

/// The smallest and the largest value.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Extremes {
    least: f64,
    most: f64,
}

impl Watch {
    pub(crate) fn of_all_dashboards() -> Self {
        let dashboards = dashboards::all();
        let panels =
            dashboards.iter().flat_map(|dashboard| dashboard.panels.iter().map(|panel| (dashboard.uid, panel)));
        let queries = panels.flat_map(|(dashboard, panel)| {
            let watched = |query: &dashboards::Query| Watched {
                dashboard,
                panel: panel.clone(),
                expression: with_everything_chosen(&query.expression),
            };
            panel.queries.iter().map(watched).collect::<Vec<_>>()
        });
        Self { unseen: queries.collect(), still: Vec::new(), dashboards }
    }

    /// Looks at those that have shown nothing so far; says when there are none.
    pub(crate) async fn see(&mut self, scene: &Scene) -> Result<Option<()>, Error> {
        let mut unseen = Vec::new();
        for watched in std::mem::take(&mut self.unseen) {
            if watched.look(scene).await?.is_none() {
                unseen.push(watched);
            } else {
                self.still.push((watched, None));
            }
        }
        self.unseen = unseen;
        self.unseen.is_empty().then_some(Some(())).ok_or_else(|| {
            Error::unexpected("without data", self.unseen.iter().map(Watched::name).collect::<Vec<_>>().join(", "))
        })
    }

    /// Whether each dashboard's variables have values to choose from.
    pub(crate) async fn variables(&self, scene: &Scene) -> Result<Option<()>, Error> {
        for variable in self.dashboards.iter().flat_map(|dashboard| &dashboard.variables) {
            let metric = with_everything_chosen(&variable.metric);
            let values = scene.query(&format!("count by ({}) ({metric})", variable.values_of)).await?;
            if values.iter().all(|value| value.label(variable.values_of).is_empty()) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Takes what is shown now as that from which it moves.
    pub(crate) async fn remember(&mut self, scene: &Scene) -> Result<(), Error> {
        for (watched, known) in &mut self.still {
            *known = watched.look(scene).await?;
        }
        Ok(())
    }

    /// Whether all of these panels have moved, at some time, as they say; those that say that they do not must not.
    pub(crate) async fn moved(&mut self, scene: &Scene, these: fn(&Panel) -> bool) -> Result<Option<()>, Error> {
        tokio::try_join!(scene.call_from_outside(), scene.say_something())?;
        let mut still = Vec::new();
        for (watched, before) in std::mem::take(&mut self.still) {
            let now = watched.look(scene).await?;
            let moved = match (watched.panel.moves, before, now) {
                (Moves::Not(why), Some(before), Some(now)) => {
                    assert_eq!(before, now, "{} moves, though {why}", watched.name());
                    false
                }
                (_, _, None) | (Moves::Not(_), None, _) => false,
                // What was not there: it shows now what happens.
                (_, None, Some(_)) => true,
                (Moves::Up, Some(before), Some(now)) => now.most > before.most,
                (Moves::Down, Some(before), Some(now)) => now.least < before.least,
                (Moves::Either, Some(before), Some(now)) => now != before,
            };
            if !moved {
                still.push((watched, before));
            }
        }
        self.still = still;
        let moves = |watched: &Watched| !matches!(watched.panel.moves, Moves::Not(_)) && these(&watched.panel);
        let waiting = self.still.iter().filter(|(watched, _)| moves(watched));
        let waiting: Vec<_> = waiting.map(|(watched, before)| format!("{} from {before:?}", watched.name())).collect();
        if waiting.is_empty() { Ok(Some(())) } else { Err(Error::unexpected("did not move", waiting.join(", "))) }
    }
}

impl Watched {
    /// What it shows, if anything; what it shows is what the panel's unit can be.
    async fn look(&self, scene: &Scene) -> Result<Option<Extremes>, Error> {
        let samples = scene.query(&self.expression).await?;
        let range = self.panel.unit.range();
        for Sample { labels, value, .. } in &samples {
            let labels: &BTreeMap<_, _> = labels;
            assert!(range.contains(value), "{}: {value} of {labels:?} is not within {range:?}", self.name());
        }
        let values = samples.iter().map(|sample| sample.value);
        Ok(values
            .map(|value| Extremes { least: value, most: value })
            .reduce(|one, other| Extremes { least: one.least.min(other.least), most: one.most.max(other.most) }))
    }

    fn name(&self) -> String {
        format!("{} “{}” ({})", self.dashboard, self.panel.title, self.expression)
    }
}

/// A query as Grafana sends it when nothing has been chosen.
fn with_everything_chosen(expression: &str) -> String {
    let expression = expression.replace("$__rate_interval", WINDOW);
    ["namespace", "workload", "service", "route", "pod"]
        .iter()
        .fold(expression, |expression, variable| expression.replace(&format!("${variable}"), ".*"))
}
