//! Traffic follows what is written in the folder, under load.

use std::time::Duration;

use weft_e2e::Mesh;
use weft_e2e::yaml::{object, service};
use weft_local_mesh::control_plane::problems;
use weft_local_mesh::{Spec, wait};
use weft_sandbox::testing::{self, TestResult};

use super::sidecars::Sidecars;

const LIMIT: Duration = Duration::from_secs(60);

/// Calls per second.
const RATE: f64 = 200.0;

const CALL: &str = "http://reviews/reviews";

pub(crate) async fn a_split_follows_an_edit_under_load_without_a_failure() -> TestResult {
    split_follows_an_edit(Sidecars::WEFT).await
}

pub(crate) async fn envoys_follow_an_edited_split_under_load_without_a_failure() -> TestResult {
    split_follows_an_edit(Sidecars::envoys()?).await
}

async fn split_follows_an_edit(sidecars: Sidecars) -> TestResult {
    let mesh = with_two_versions(sidecars).await?;
    mesh.apply("routes.yaml", &split(100, 0)).await?;
    let client = mesh.add(Spec::client("client").with(sidecars.caller)).await?;
    let load = client.load(&mesh.by_address("reviews", &[CALL]).await?, RATE).await?;
    load.until("all calls go to v1", 50, LIMIT, |counts| counts.version("v1") == counts.sent).await?;

    mesh.apply("routes.yaml", &split(50, 50)).await?;
    load.until("v2 gets a share", 20, LIMIT, |counts| counts.version("v2") > 0).await?;
    let counts = load.next(400, LIMIT).await?;
    // Five standard errors of a half among so many.
    let (share, error) = (counts.version("v2") as f64 / counts.sent as f64, 5.0 * (0.25 / counts.sent as f64).sqrt());
    assert!((share - 0.5).abs() <= error, "{share} is further than {error} from a half");

    mesh.apply("routes.yaml", &split(0, 100)).await?;
    load.until("all calls go to v2", 50, LIMIT, |counts| counts.version("v2") == counts.sent).await?;
    let total = load.total().await?;
    assert_eq!(total.failed, 0, "{}", total.describe_failures());
    Ok(mesh.none_rejected().await?)
}

pub(crate) async fn a_broken_edit_changes_nothing_and_is_told() -> TestResult {
    let mesh = with_two_versions(Sidecars::WEFT).await?;
    mesh.apply("routes.yaml", &split(0, 100)).await?;
    let client = mesh.add(Spec::client("client")).await?;
    let load = client.load(&mesh.by_address("reviews", &[CALL]).await?, RATE).await?;
    load.until("all calls go to v2", 50, LIMIT, |counts| counts.version("v2") == counts.sent).await?;
    let generation = mesh.control_plane().status().await?["source"]["generation"].clone();

    let broken = split(100, 0).replace("weight: 100", "weight: lots");
    mesh.control_plane().folder().write("routes.yaml", &broken)?;
    let status = wait::until(LIMIT, "the edit is refused", async || {
        let status = mesh.control_plane().status().await?;
        Ok((status["source"]["refused"] == true).then_some(status))
    })
    .await?;
    let told = problems(&status).join("\n");
    let problem = &status["source"]["problems"][0];
    assert_eq!(status["source"]["generation"], generation, "the last good configuration stays");
    assert!(problem["file"].as_str().unwrap_or_default().ends_with("routes.yaml"), "{told}");
    assert_eq!(problem["line"], 4, "{told}");
    assert!(problem["field"].as_str().unwrap_or_default().contains("weight") && told.contains("lots"), "{told}");
    assert_eq!(mesh.control_plane().metrics().await?.sum("weft_control_plane_source_errors", &[]), 1.0);

    let counts = load.next(100, LIMIT).await?;
    assert_eq!(counts.version("v2"), counts.sent, "traffic goes on as before");
    assert_eq!(load.total().await?.failed, 0);

    mesh.apply("routes.yaml", &split(100, 0)).await?;
    load.until("the corrected edit applies", 50, LIMIT, |counts| counts.version("v1") == counts.sent).await?;
    Ok(())
}

async fn with_two_versions(sidecars: Sidecars) -> Result<Mesh, testing::Failure> {
    let mesh = Mesh::start(testing::sandbox().await?).await?;
    mesh.serve(&[
        service("reviews", "app: reviews", 80, 8080, "http"),
        service("reviews-v1", "app: reviews, version: v1", 80, 8080, "http"),
        service("reviews-v2", "app: reviews, version: v2", 80, 8080, "http"),
    ])
    .await?;
    for version in ["v1", "v2"] {
        let name = format!("reviews-{version}-0");
        mesh.add(Spec::server(&name, "reviews", version).with(sidecars.called)).await?;
    }
    Ok(mesh)
}

fn split(v1: u32, v2: u32) -> String {
    let backends = [("v1", v1), ("v2", v2)]
        .map(|(version, weight)| format!("{{ name: reviews-{version}, port: 80, weight: {weight} }}"))
        .join(", ");
    let parent = r#"{ group: "", kind: Service, name: reviews, port: 80 }"#;
    let spec = format!("{{ parentRefs: [{parent}], rules: [{{ backendRefs: [{backends}] }}] }}");
    object("gateway.networking.k8s.io/v1 HTTPRoute", "reviews", &spec)
}
