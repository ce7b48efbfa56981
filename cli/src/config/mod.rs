//! `weft config`: what one proxy knows, from its `/config_dump` (in Envoy's shape, so an Envoy can be asked too).

mod certificates;
mod clusters;
pub(crate) mod dump;
mod endpoints;
mod listeners;
mod routes;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use anyhow::bail;
use serde_json::{Value, json};

use self::dump::Dump;
use crate::ask::Address;
use crate::cluster::{Cluster, PodName};
use crate::command::{ConfigArgs, Format, IdentityArgs, Part, What};
use crate::{ask, output};

/// What an empty part says.
const NONE: &str = "none known";

/// The proxy's admin port, on its pod's loopback.
const ADMIN_PORT: u16 = 15000;

pub(crate) async fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let part = args.what.iter().find_map(|what| match what {
        What::Part(part) => Some(*part),
        What::Pod(_) => None,
    });
    let pod = args.what.iter().find_map(|what| match what {
        What::Pod(pod) => Some(pod),
        What::Part(_) => None,
    });
    let part = part.unwrap_or(Part::All);
    match pod {
        Some(pod) => of_pod(&args.cluster, pod, part, args.output).await,
        None if args.cluster.is_named() => bail!("whose configuration in the cluster? name a pod: pod/NAME.NAMESPACE"),
        None => show(&args.proxy, part, args.output).await,
    }
}

/// `weft identity`.
pub(crate) async fn identity(args: IdentityArgs) -> anyhow::Result<ExitCode> {
    of_pod(&args.cluster, &args.pod, Part::Certificates, args.output).await
}

async fn of_pod(cluster: &Cluster, pod: &PodName, part: Part, format: Format) -> anyhow::Result<ExitCode> {
    let forward = cluster.forward(pod, ADMIN_PORT).await?;
    show(&Address::Tcp(forward.address), part, format).await
}

async fn show(proxy: &Address, asked: Part, format: Format) -> anyhow::Result<ExitCode> {
    let get = async |path| ask::json::<Value>(proxy, path, "proxy", "--proxy").await;
    let wants = |part| asked == part || asked == Part::All;

    let mut answer = json!({});
    if asked != Part::Certificates {
        // Endpoints are in the dump only on request, as in Envoy.
        answer = get("/config_dump?include_eds").await?;
    }
    let certificates = if wants(Part::Certificates) { Some(get("/certs").await?) } else { None };

    if format.is_table() {
        let wide = format == Format::Wide;
        let dump = Dump::new(&answer);
        let mut parts = Vec::new();
        if wants(Part::Listeners) {
            parts.push(listeners::table(&dump));
        }
        if wants(Part::Routes) {
            parts.push(routes::table(&dump, wide));
        }
        if wants(Part::Clusters) {
            parts.push(clusters::table(&dump, wide));
        }
        if wants(Part::Endpoints) {
            parts.push(endpoints::table(&dump, wide));
        }
        parts.extend(certificates.as_ref().map(certificates::table));
        output::print(&parts.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let document = match (asked, certificates) {
        (Part::Certificates, certificates) => certificates.unwrap_or_default(),
        (Part::All, Some(certificates)) => {
            answer["certificates"] = certificates["certificates"].clone();
            answer
        }
        (part, _) => Dump::new(&answer).part(part),
    };
    output::document(format, &document, String::new)?;
    Ok(ExitCode::SUCCESS)
}
