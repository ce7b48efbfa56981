//! A pod without a sidecar, and so without an identity, knocks on every port.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use weft_local_mesh::{Error, wait};

use super::super::folder::{self, Replacement};
use super::super::report::Findings;
use super::super::shop::Shop;
use super::{LIMIT, RATE, Story, is_load, verdict};

/// The namespace's policy is the file's first.
pub(super) const PERMISSIVE: [Replacement; 1] = [("mode: Strict", "mode: Permissive")];

/// How long an answer is waited for. Those who refuse close the connection at once.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn tell(Story { shop, pace }: Story<'_>, findings: &mut Findings) -> anyhow::Result<()> {
    let limit = pace.patience(LIMIT);
    shop.everything.set_rate(pace.rate(RATE)).await?;
    shop.everything.mark("intruder").await?;
    let doors = doors(shop);
    let (front, others): (Vec<_>, Vec<_>) = doors.into_iter().partition(|door| door.role == "web");

    let answered = answering(shop, &others).await?;
    findings.measured(
        answered.is_empty(),
        "ports that answer the intruder under strict mode, besides the front end's",
        format!("{} of {} (IPv4 and IPv6){}", answered.len(), others.len(), list(&answered)),
    );
    let answered = answering(shop, &front).await?;
    findings.measured(
        answered.len() == front.len(),
        "the front end's port, permissive for browsers",
        format!("{} of {} answer", answered.len(), front.len()),
    );

    let control_plane = shop.control_plane();
    let reviews: Vec<_> = others.iter().filter(|door| door.role == "reviews").cloned().collect();
    let saved = folder::edit(control_plane.folder(), "security.yaml", &PERMISSIVE)?;
    wait::until(limit, "permissive mode admits the intruder", async || {
        Ok((answering(shop, &reviews).await?.len() == reviews.len()).then_some(()))
    })
    .await?;
    findings.counter_proof(
        true,
        "the same calls under permissive mode",
        format!("{} of {} answer, {:.0} ms after the edit", reviews.len(), reviews.len(), ms(saved)),
    );
    let saved = folder::restore(control_plane.folder(), "security.yaml")?;
    wait::until(limit, "strict mode refuses the intruder again", async || {
        Ok(answering(shop, &reviews).await?.is_empty().then_some(()))
    })
    .await?;
    findings.measured(true, "strict again", format!("none answers, {:.0} ms after the edit", ms(saved)));

    let counts = shop.everything.reach("intruder", limit, "300 requests", |counts| counts.sent >= 300).await?;
    findings.measured(counts.failed == 0, "failed requests of the shop meanwhile", verdict(&counts));
    is_load(pace, &counts, findings);
    Ok(())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// A port of an application.
#[derive(Debug, Clone)]
struct Door {
    role: String,
    pod: String,
    address: SocketAddr,
}

/// The port of every application, by both of its pod's addresses.
fn doors(shop: &Shop) -> Vec<Door> {
    let port = |role: &str| match role {
        "cart" | "payments" => 50051,
        "queue" => 4222,
        _ => 8080,
    };
    let pods = shop.pods();
    pods.iter()
        .filter_map(|pod| Some((pod, pod.spec().role.as_ref()?)))
        .flat_map(|(pod, role)| {
            pod.pod().addresses().both().map(|address| Door {
                role: role.clone(),
                pod: pod.name().to_owned(),
                address: SocketAddr::new(address, port(role)),
            })
        })
        .collect()
}

/// Those that answer the intruder with any byte.
async fn answering(shop: &Shop, doors: &[Door]) -> Result<Vec<Door>, Error> {
    let knocks = doors.to_vec();
    let answers = shop.intruder.run_async(move || async move {
        let knocks = knocks.into_iter().map(|door| async move { knock(door.address).await.then_some(door) });
        futures_util::future::join_all(knocks).await
    });
    Ok(answers.await?.into_iter().flatten().collect())
}

/// Connects, asks in plaintext, and says whether anything came back. A server that speaks first needs no question.
async fn knock(address: SocketAddr) -> bool {
    let conversation = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(b"GET /reviews HTTP/1.1\r\nHost: reviews\r\n\r\n").await.ok()?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()
    };
    matches!(tokio::time::timeout(PATIENCE, conversation).await, Ok(Some(_)))
}

fn list(doors: &[Door]) -> String {
    doors.iter().map(|door| format!("; {} answers on {}", door.pod, door.address)).collect()
}
