//! `weft config`: what one proxy knows, from its `/config_dump` (in Envoy's shape, so an Envoy can be asked too).

mod certificates;
mod clusters;
mod dump;
mod endpoints;
mod listeners;
mod routes;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use serde_json::{Value, json};

use self::dump::Dump;
use crate::command::{ConfigArgs, Format, Part};
use crate::{ask, output};

/// What an empty part says.
const NONE: &str = "none known";

pub(crate) async fn run(args: ConfigArgs) -> anyhow::Result<ExitCode> {
    let get = async |path| ask::json::<Value>(&args.proxy, path, "proxy", "--proxy").await;
    let wants = |part| args.part == part || args.part == Part::All;

    let mut answer = json!({});
    if args.part != Part::Certificates {
        // Endpoints are in the dump only on request, as in Envoy.
        answer = get("/config_dump?include_eds").await?;
    }
    let certificates = if wants(Part::Certificates) { Some(get("/certs").await?) } else { None };

    if args.output == Format::Table {
        let dump = Dump::new(&answer);
        let mut parts = Vec::new();
        if wants(Part::Listeners) {
            parts.push(listeners::table(&dump));
        }
        if wants(Part::Routes) {
            parts.push(routes::table(&dump));
        }
        if wants(Part::Clusters) {
            parts.push(clusters::table(&dump));
        }
        if wants(Part::Endpoints) {
            parts.push(endpoints::table(&dump));
        }
        parts.extend(certificates.as_ref().map(certificates::table));
        output::print(&parts.join("\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let document = match (args.part, certificates) {
        (Part::Certificates, certificates) => certificates.unwrap_or_default(),
        (Part::All, Some(certificates)) => {
            answer["certificates"] = certificates["certificates"].clone();
            answer
        }
        (part, _) => Dump::new(&answer).part(part),
    };
    output::document(args.output, &document, String::new)?;
    Ok(ExitCode::SUCCESS)
}
