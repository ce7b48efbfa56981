//! The Grafana dashboards.
//!
//! | module | job |
//! |---|---|
//! | [`panel`] | what a dashboard, a panel and a variable are; how a query's result must look |
//! | `query` | PromQL, made from the tables |
//! | `grafana` | the JSON that Grafana reads |
//! | `mesh`, `service`, `workload`, `route`, `tcp`, `security`, `control_plane`, `proxy` | one dashboard each |
//!
//! A panel also says how its data move when there is more traffic, more of it fails, is slow or is not protected: `e2e/tests/dashboards`
//! runs every query over a mesh and sees that they do.

mod control_plane;
mod grafana;
mod mesh;
pub mod panel;
mod proxy;
mod query;
mod route;
mod security;
mod service;
mod tcp;
mod workload;

pub use panel::{Dashboard, Moves, Panel, Query, Unit, Variable};

/// All of them, in the order in which one looks closer.
pub fn all() -> Vec<Dashboard> {
    vec![
        mesh::dashboard(),
        service::dashboard(),
        workload::dashboard(),
        route::dashboard(),
        tcp::dashboard(),
        security::dashboard(),
        control_plane::dashboard(),
        proxy::dashboard(),
    ]
}

/// The files of `manifests/grafana/dashboards`: each a name and its text.
pub fn files() -> Vec<(String, String)> {
    all().iter().map(|dashboard| (format!("{}.json", dashboard.uid), grafana::text(dashboard))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn uids_and_titles_are_unique() {
        let all = all();
        for property in [|d: &Dashboard| d.uid, |d: &Dashboard| d.title] {
            assert_eq!(all.iter().map(property).collect::<BTreeSet<_>>().len(), all.len());
        }
        for dashboard in &all {
            let titles: BTreeSet<_> = dashboard.panels.iter().map(|panel| panel.title).collect();
            assert_eq!(titles.len(), dashboard.panels.len(), "{}: each panel has a title of its own", dashboard.uid);
        }
    }

    #[test]
    fn queries_ask_for_metrics_and_labels_that_there_are() {
        for dashboard in all() {
            for expression in dashboard.expressions() {
                for (series, labels) in query::selectors(&expression) {
                    let family = crate::family_of(&series);
                    let family =
                        family.unwrap_or_else(|| panic!("{}: {series} is no metric: {expression}", dashboard.uid));
                    for label in labels {
                        let known = family.labels.contains(&&*label) || panel::SCRAPED.contains(&&*label);
                        assert!(known, "{}: {series} has no label {label}: {expression}", dashboard.uid);
                    }
                }
            }
        }
    }

    #[test]
    fn queries_use_variables_that_their_dashboard_has() {
        for dashboard in all() {
            let known: BTreeSet<_> = dashboard.variables.iter().map(|variable| variable.name).collect();
            for expression in dashboard.expressions() {
                for name in expression.split('$').skip(1) {
                    let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                    assert!(name == "__rate_interval" || known.contains(&*name), "{}: ${name}", dashboard.uid);
                }
            }
        }
    }

    #[test]
    fn every_variable_narrows_something() {
        for dashboard in all() {
            for Variable { name, .. } in &dashboard.variables {
                let used = dashboard.panels.iter().flat_map(|panel| &panel.queries);
                let all = used.clone().count();
                let narrowed = used.filter(|query| query.expression.contains(&format!("${name}"))).count();
                assert!(narrowed > 0, "{}: ${name} is used in none of {all} queries", dashboard.uid);
            }
        }
    }

    #[test]
    fn links_lead_to_dashboards_that_take_what_they_carry() {
        let all = all();
        for dashboard in &all {
            for link in dashboard.panels.iter().filter_map(|panel| panel.link) {
                let target = all.iter().find(|other| other.uid == link.to());
                let target = target.unwrap_or_else(|| panic!("{}: {} is no dashboard", dashboard.uid, link.to()));
                let takes = target.variables.iter().any(|variable| variable.name == link.variable());
                assert!(takes, "{} has no variable {}", target.uid, link.variable());
            }
            for panel in dashboard.panels.iter().filter(|panel| panel.link.is_some()) {
                let label = panel.link.map(|link| link.label()).unwrap_or_default();
                let carried = panel.queries.iter().all(|query| query.expression.contains(label));
                assert!(carried, "{}: {} has no label {label} to lead by", dashboard.uid, panel.title);
            }
        }
    }
}
