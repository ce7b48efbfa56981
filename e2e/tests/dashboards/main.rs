//! The Grafana dashboards, over a mesh that runs: every query is put to a genuine Prometheus, and its data are there, within range, and
//! move as the dashboard says they do when the traffic changes.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

mod scene;
mod watch;

use std::collections::BTreeSet;
use std::time::Duration;

use weft_local_mesh::prometheus::PROGRAM;
use weft_local_mesh::{Error, Prometheus, wait};
use weft_sandbox::testing::{self, TestResult};
use weft_telemetry::dashboards::panel::SCRAPED;
use weft_telemetry::{control_plane, family_of, proxy};

use self::scene::Scene;
use self::watch::Watch;

weft_sandbox::tests! {
    every_panel_shows_data_that_move_with_the_traffic,
}

/// How long something may take on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(180);

async fn every_panel_shows_data_that_move_with_the_traffic() -> TestResult {
    if std::env::var_os(PROGRAM).is_none() {
        return Err(testing::skip(format!("{PROGRAM} names no Prometheus: {PROGRAM}=\"$(command -v prometheus)\"")));
    }
    let program = Prometheus::find().map_err(|error| testing::skip(error.to_string()))?;
    let scene = Scene::start(&program).await?;
    let mut watch = Watch::of_all_dashboards();

    // How fast an edit arrives is shown only while there are edits, and counted where requests already are.
    wait::until(LIMIT, "Prometheus sees requests", async || scene.is_seen().await).await?;
    scene.split(3, 1).await?;
    wait::until(LIMIT, "every panel shows something", async || watch.see(&scene).await).await?;
    wait::until(LIMIT, "every variable has values", async || watch.variables(&scene).await).await?;
    wait::until(LIMIT, "nothing changes any more", async || scene.is_quiet().await).await?;
    watch.remember(&scene).await?;

    // What happens once is seen only for as long as queries look back: so they are put while it happens.
    let more = wait::until(LIMIT, "more traffic shows", async || watch.moved(&scene, scene::shows_more).await);
    tokio::try_join!(scene.more(), more)?;
    let failures = wait::until(LIMIT, "failures show", async || watch.moved(&scene, scene::shows_failures).await);
    tokio::try_join!(scene.fail(), failures)?;
    scene.slow().await?;
    wait::until(LIMIT, "the rest shows that requests are slow", async || watch.moved(&scene, |_| true).await).await?;

    every_series_is_in_the_table(&scene).await?;
    wait::until(LIMIT, "every rule is evaluated", async || rules_are_healthy(&scene).await).await?;
    Ok(())
}

/// What a running proxy and control plane expose is what the reference page lists, and the other way round.
async fn every_series_is_in_the_table(scene: &Scene) -> Result<(), Error> {
    // What Prometheus itself says about its targets.
    let own = |name: &str| name == "up" || name.starts_with("scrape_");
    let mut seen = BTreeSet::new();
    for sample in scene.query("{job=~\"weft-.*\"}").await?.iter().filter(|sample| !own(&sample.name)) {
        let family = family_of(&sample.name).unwrap_or_else(|| panic!("{} is not in the table", sample.name));
        for label in sample.labels.keys().filter(|label| *label != "le" && !SCRAPED.contains(&&***label)) {
            assert!(family.labels.contains(&&**label), "{} has a label {label}", sample.name);
        }
        seen.insert(family.name);
    }
    // What does not happen here: in a cluster only, or never while both sides are of one version.
    let absent = [
        proxy::CONFIG_REJECTIONS,
        control_plane::NACKS,
        control_plane::TOKEN_REVIEWS,
        control_plane::STATUS_WRITES,
        control_plane::WATCH_SYNCED,
        control_plane::WATCH_LISTS,
        control_plane::WATCH_FAILURES,
        control_plane::WATCH_LAST_EVENT,
    ];
    for family in weft_telemetry::all() {
        let expected = !absent.contains(family);
        assert_eq!(seen.contains(family.name), expected, "whether there are series of {}", family.name);
    }
    Ok(())
}

async fn rules_are_healthy(scene: &Scene) -> Result<Option<()>, Error> {
    let found = scene.rules().await?;
    let groups = found["data"]["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let rules: Vec<_> = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten()).collect();
    let failed: Vec<_> = rules.iter().filter(|rule| rule["health"] == "err").collect();
    if !failed.is_empty() {
        return Err(Error::unexpected("rules fail", format!("{failed:?}")));
    }
    Ok((rules.len() == 13 && rules.iter().all(|rule| rule["health"] == "ok")).then_some(()))
}
