//! The answer for people.

use std::fmt::Write as _;

use super::decide::{Answer, Origin};
use crate::output::{Colour, Table, paint};

/// One line for each decision, with the object that it came from.
pub(super) fn text(answer: &Answer) -> String {
    let from = answer.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    let mut text = format!("{} to {}{from}: {}\n", answer.request, answer.to, verdict(answer));
    let mut table = Table::new(["DECISION", "", "BECAUSE OF"]);
    for decision in &answer.decisions {
        let says = if decision.refuses { paint(&decision.says, Colour::Red) } else { decision.says.clone() };
        table.row([decision.about.to_owned(), says, because(decision.from.as_ref())]);
        if decision.about == "rule" {
            backends(answer, &mut table);
        }
    }
    text.push_str(&table.lines());
    for note in &answer.notes {
        // Writing to a String does not fail.
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn backends(answer: &Answer, table: &mut Table) {
    for backend in &answer.backends {
        let identity = match &backend.identities[..] {
            [] => "plaintext".to_owned(),
            all => format!("as {}", all.join(" or ")),
        };
        let balancer = backend.balancer.as_deref().map(|balancer| format!(", {balancer}")).unwrap_or_default();
        let says = format!(
            "{} % to {} ({} of {} endpoints{balancer}, {identity})",
            (backend.share * 100.0).round() / 100.0,
            backend.cluster,
            backend.ready,
            backend.endpoints,
        );
        let says = if backend.ready == 0 { paint(&says, Colour::Yellow) } else { says };
        table.row(["backend".to_owned(), says, because(backend.from.as_ref())]);
    }
}

fn verdict(answer: &Answer) -> String {
    let refused = answer.decisions.iter().any(|decision| decision.refuses);
    let (word, colour) = match (answer.outcome, refused) {
        ("forwarded", true) => ("refused where it arrives", Colour::Red),
        (outcome, true) => (outcome, Colour::Red),
        (outcome, false) => (outcome, Colour::Green),
    };
    paint(word, colour)
}

fn because(from: Option<&Origin>) -> String {
    match from {
        Some(from) => format!("{} {} {}", from.kind, from.name, from.field),
        None => "-".to_owned(),
    }
}
