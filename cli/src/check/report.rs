//! Verdicts, printed.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::{Value, json};

use super::{Made, Verdict, page};
use crate::command::CheckFormat;
use crate::output::{Colour, paint};

pub(super) fn text(format: CheckFormat, made: &[Made]) -> anyhow::Result<String> {
    match format {
        CheckFormat::Table => Ok(table(made, |_| true)),
        CheckFormat::Short => Ok(table(made, |verdict| matches!(verdict, Verdict::Warning(_) | Verdict::Failure(_)))),
        CheckFormat::Json => {
            let all: Vec<_> = made.iter().map(document).collect();
            Ok(serde_json::to_string_pretty(&all).context("writing JSON")? + "\n")
        }
    }
}

fn table(made: &[Made], shown: impl Fn(&Verdict) -> bool) -> String {
    let mut text = String::new();
    let mut category = "";
    for one in made.iter().filter(|one| shown(&one.verdict)) {
        if one.category != category {
            category = one.category;
            let gap = if text.is_empty() { "" } else { "\n" };
            // Writing to a String does not fail.
            let _ = writeln!(text, "{gap}{category}");
        }
        let (mark, words) = match &one.verdict {
            Verdict::Good(words) => (paint("√", Colour::Green), words),
            Verdict::Warning(words) => (paint("‼", Colour::Yellow), words),
            Verdict::Failure(words) => (paint("×", Colour::Red), words),
            Verdict::Skipped(words) => ("-".to_owned(), words),
        };
        let words = match (&one.verdict, words.as_str()) {
            (_, "") => String::new(),
            (Verdict::Skipped(_), words) => format!(": not checked, {words}"),
            (Verdict::Good(_), words) => format!(" ({words})"),
            (_, words) => format!(": {words}"),
        };
        let _ = writeln!(text, "  {mark} {}{words}", one.check.title);
        if matches!(one.verdict, Verdict::Warning(_) | Verdict::Failure(_)) {
            let _ = writeln!(text, "      see {}", page(one.check));
        }
    }
    let count = |is: fn(&Verdict) -> bool| made.iter().filter(|one| is(&one.verdict)).count();
    let (failed, warned) = (
        count(|verdict| matches!(verdict, Verdict::Failure(_))),
        count(|verdict| matches!(verdict, Verdict::Warning(_))),
    );
    let gap = if text.is_empty() { "" } else { "\n" };
    let _ = writeln!(text, "{gap}{} checks: {failed} failed, {warned} to look at", made.len());
    text
}

fn document(one: &Made) -> Value {
    let (verdict, words) = match &one.verdict {
        Verdict::Good(words) => ("good", words),
        Verdict::Warning(words) => ("warning", words),
        Verdict::Failure(words) => ("failure", words),
        Verdict::Skipped(words) => ("skipped", words),
    };
    json!({
        "category": one.category,
        "name": one.check.name,
        "title": one.check.title,
        "verdict": verdict,
        "message": words,
        "page": page(one.check),
    })
}
