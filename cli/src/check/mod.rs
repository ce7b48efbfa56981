//! `weft check`: whether a cluster is ready for Weft, and whether Weft is well in it.
//!
//! | module | job |
//! |---|---|
//! | [`facts`] | what the cluster says, asked once |
//! | `cluster`, `installation`, `proxies` | facts → verdicts, one function for each check; no IO |
//! | `report` | verdicts as a table, JSON, or only what is wrong |

mod cluster;
mod facts;
mod installation;
mod proxies;
mod report;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use self::facts::Facts;
use crate::command::{CheckArgs, exit};
use crate::output;

/// How soon a check that failed is made again with `--wait`.
const AGAIN: Duration = Duration::from_secs(2);

/// What a check finds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// All is well, and how.
    Good(String),
    /// It works, but somebody should look.
    Warning(String),
    /// It does not work.
    Failure(String),
    /// There is nothing to check, or no way to.
    Skipped(String),
}

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Only before an installation.
    Before,
    /// Before and after.
    Always,
    /// Only after.
    After,
}

/// One check.
struct Check {
    /// Stable: it is the check's page in docs/reference/checks.
    name: &'static str,
    /// What is well if it is.
    title: &'static str,
    when: When,
    /// What it looks at, and what to do when it fails.
    help: &'static str,
    look: fn(&Facts) -> Verdict,
}

/// Checks that belong together.
struct Category {
    name: &'static str,
    checks: &'static [Check],
}

const CATEGORIES: [Category; 3] = [cluster::CATEGORY, installation::CATEGORY, proxies::CATEGORY];

/// A check that was made.
struct Made {
    category: &'static str,
    check: &'static Check,
    verdict: Verdict,
}

pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let until = args.wait.map(|wait| Instant::now() + wait.0);
    let made = loop {
        let facts = Facts::gather(&args.cluster, args.pre).await;
        let made = make(&facts, args.pre);
        let failed = made.iter().any(|made| matches!(made.verdict, Verdict::Failure(_)));
        match until {
            Some(until) if failed && Instant::now() < until => tokio::time::sleep(AGAIN).await,
            _ => break made,
        }
    };
    output::print(&report::text(args.output, &made)?)?;
    let failed = made.iter().any(|made| matches!(made.verdict, Verdict::Failure(_)));
    Ok(ExitCode::from(if failed { exit::BAD_NEWS } else { 0 }))
}

fn make(facts: &Facts, pre: bool) -> Vec<Made> {
    let wanted = if pre { When::Before } else { When::After };
    let mut all = Vec::new();
    for category in &CATEGORIES {
        let checks = category.checks.iter().filter(|check| check.when == wanted || check.when == When::Always);
        all.extend(checks.map(|check| Made { category: category.name, check, verdict: (check.look)(facts) }));
    }
    all
}

/// docs/reference/checks.md: their list.
pub(crate) fn markdown() -> String {
    let mut text = String::from(
        "# Checks\n\n\
         <!-- Made from the program by `weft reference checks --into docs/reference/checks > docs/reference/checks.md`; a test compares. -->\n\n\
         `weft check --pre` looks at a cluster before Weft is installed, `weft check` afterwards; `--wait 2m` repeats the checks while one\n\
         fails, for that long. Everything is asked through `kubectl`, with your rights, and nothing is changed. √ is well, ‼ works but wants a look, × does\n\
         not work, and only × makes the exit code 1.\n",
    );
    for category in &CATEGORIES {
        // Writing to a String does not fail.
        let _ = write!(text, "\n## {}\n\n| check | is well if | made |\n|---|---|---|\n", category.name);
        for check in category.checks {
            let name = check.name;
            let _ = writeln!(text, "| [{name}](checks/{name}.md) | {} | {} |", check.title, check.when.words());
        }
    }
    text
}

/// A page for each check, by its name.
fn pages() -> impl Iterator<Item = (&'static str, String)> {
    let of =
        |category: &'static Category| category.checks.iter().map(move |check| (check.name, check.page(category.name)));
    CATEGORIES.iter().flat_map(of)
}

/// Where [`report`] says that a check is explained.
fn page(check: &Check) -> String {
    format!("docs/reference/checks/{}.md", check.name)
}

/// Writes a page for each check into a folder, and takes out those of checks that are no more.
pub(crate) fn write_pages(folder: &Path) -> anyhow::Result<()> {
    let context = || format!("writing the checks' pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(context)?;
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            std::fs::remove_file(path).with_context(context)?;
        }
    }
    for (name, text) in pages() {
        std::fs::write(folder.join(name).with_extension("md"), text).with_context(context)?;
    }
    Ok(())
}

impl Check {
    fn page(&self, category: &str) -> String {
        format!(
            "# {}\n\n<!-- Made from the program; see ../checks.md. -->\n\n{}.\n\nOne of the [checks](../checks.md) of {category}, made {}.\n\n{}\n",
            self.name,
            capital(self.title),
            self.when.words(),
            self.help
        )
    }
}

impl When {
    fn words(self) -> &'static str {
        match self {
            Self::Before => "before an installation",
            Self::Always => "before and after an installation",
            Self::After => "after an installation",
        }
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
