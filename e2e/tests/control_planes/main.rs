//! weft-proxy under somebody else's control plane: one made of go-control-plane, which Envoy's users make theirs of.
//!
//! It serves what go-control-plane's own integration test serves to Envoy (`e2e/go-control-plane`), in both dialects of xDS, over one stream
//! for everything and over one for each kind. In each of the four ways the proxy goes through the same, while it is asked all the time.
// Clippy knows only tests of the standard harness as tests.
#![allow(clippy::unwrap_used)]

mod application;
mod control_plane;
mod load;

use std::process::Command;
use std::time::Duration;

use weft_local_mesh::control_plane::alive;
use weft_local_mesh::{Programs, wait};
use weft_sandbox::testing::{self, Failure, TestResult};
use weft_sandbox::{Pod, PodSpec};

use application::{ONE, OTHER};
use control_plane::{Configuration, ControlPlane, Way};
use load::Load;

weft_sandbox::tests! {
    in_delta_over_one_stream_everything_is_followed,
    in_delta_over_a_stream_for_each_kind_everything_is_followed,
    as_state_of_the_world_over_one_stream_everything_is_followed,
    as_state_of_the_world_over_a_stream_for_each_kind_everything_is_followed,
}

/// How long anything may take, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

async fn in_delta_over_one_stream_everything_is_followed() -> TestResult {
    everything_is_followed(&Way { mode: "delta-ads", api_type: "DELTA_GRPC", aggregated: true }).await
}

async fn in_delta_over_a_stream_for_each_kind_everything_is_followed() -> TestResult {
    everything_is_followed(&Way { mode: "delta", api_type: "DELTA_GRPC", aggregated: false }).await
}

async fn as_state_of_the_world_over_one_stream_everything_is_followed() -> TestResult {
    everything_is_followed(&Way { mode: "ads", api_type: "GRPC", aggregated: true }).await
}

async fn as_state_of_the_world_over_a_stream_for_each_kind_everything_is_followed() -> TestResult {
    everything_is_followed(&Way { mode: "xds", api_type: "GRPC", aggregated: false }).await
}

async fn everything_is_followed(way: &Way) -> TestResult {
    let program = control_plane::find()?;
    let sandbox = testing::sandbox().await?;
    let pod = sandbox.add_pod(PodSpec::named("proxy")).await?;
    application::serve(&pod).await?;
    let control_plane = ControlPlane::start(&pod, &program, way).await?;
    let start = Configuration { version: "1", names: "a", upstream: ONE, http: 2, tcp: 2, broken: &[] };
    control_plane.put(&start).await?;
    let mut command = Command::new(Programs::find()?.proxy);
    command.args(["--config-yaml", &way.bootstrap()]);
    let proxy = pod.spawn("weft-proxy", command).await?;
    for port in 0..4 {
        until_answers(&pod, port, ONE).await?;
    }
    control_plane.was_asked_as(way);

    let load = Load::start(&pod, 4);
    // Make before break: clusters and routes have other names each time, and endpoints another port.
    for (version, names, upstream) in [("2", "b", OTHER), ("3", "c", ONE), ("4", "d", OTHER)] {
        control_plane.put(&Configuration { version, names, upstream, ..start }).await?;
        for port in 0..4 {
            until_answers(&pod, port, upstream).await?;
        }
    }
    // Upserts and removals. The four that are asked all the time stay.
    control_plane.put(&Configuration { version: "5", names: "d", upstream: OTHER, tcp: 4, ..start }).await?;
    until_answers(&pod, 4, OTHER).await?;
    until_answers(&pod, 5, OTHER).await?;
    control_plane.put(&Configuration { version: "6", names: "d", upstream: OTHER, ..start }).await?;
    until_nobody_listens(&pod, 4).await?;
    until_nobody_listens(&pod, 5).await?;
    assert_eq!(control_plane.refusals(), [""; 0], "nothing was refused so far");

    // What is broken is refused, and what was in force stays.
    let broken = &["listener", "cluster", "route", "endpoints"];
    control_plane.put(&Configuration { version: "7", names: "d", upstream: OTHER, broken, ..start }).await?;
    for path in [
        "listener `broken`: filter_chains[0].filters[0].typed_config.scoped_routes: ",
        "cluster `broken`: connect_timeout: ",
        "route `route-d-9000`: virtual_hosts[0].routes[0].match.safe_regex",
        "endpoints `cluster-d-0`: endpoints: `nowhere.test` is not an IP address",
    ] {
        wait::until(LIMIT, &format!("the control plane is told of `{path}`"), async || {
            alive(&proxy, &pod)?;
            Ok(control_plane.refusals().iter().any(|refusal| refusal.contains(path)).then_some(()))
        })
        .await?;
    }
    load.has_gone_on().await?;
    // And it is no dead end.
    control_plane.put(&Configuration { version: "8", names: "e", upstream: ONE, ..start }).await?;
    for port in 0..4 {
        until_answers(&pod, port, ONE).await?;
    }
    load.has_gone_on().await?;
    assert_eq!(load.stop().await?, [""; 0], "no request failed");
    Ok(())
}

/// Until a listener of the configuration leads to this application.
async fn until_answers(pod: &Pod, listener: u16, application: u16) -> Result<(), Failure> {
    let what = format!("listener {listener} leads to the application at {application}");
    let found = wait::until(LIMIT, &what, async || {
        let answer = pod.run(move || load::ask(listener)).await?;
        Ok((answer.ok() == Some(application)).then_some(()))
    });
    Ok(found.await?)
}

async fn until_nobody_listens(pod: &Pod, listener: u16) -> Result<(), Failure> {
    let what = format!("listener {listener} has gone");
    let gone = wait::until(LIMIT, &what, async || Ok(pod.run(move || load::is_closed(listener)).await?.then_some(())));
    Ok(gone.await?)
}
