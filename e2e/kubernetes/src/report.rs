//! Named tests, one after the other, and what became of them: lines for people, JUnit for machines.

use std::fmt::Write as _;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Context;

/// A test's work.
pub(crate) type Work<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

/// One test.
pub(crate) struct Test<T> {
    /// What it proves, as a sentence with underscores.
    pub(crate) name: &'static str,
    /// Whether nothing after it can work if it fails.
    pub(crate) essential: bool,
    /// How.
    pub(crate) work: for<'a> fn(&'a T) -> Work<'a>,
}

impl<T> Clone for Test<T> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

/// What became of the tests of a suite.
pub(crate) struct Report {
    suite: &'static str,
    entries: Vec<Entry>,
}

struct Entry {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

enum Outcome {
    Passed,
    /// With the reason.
    Failed(String),
    /// A test before it that it needs has failed.
    Skipped,
}

impl Report {
    /// Runs the tests in order, each for `limit` at most; `on_failure` is told which failed, to keep what explains it.
    pub(crate) async fn run<T>(
        suite: &'static str,
        tests: &[Test<T>],
        subject: &T,
        limit: Duration,
        on_failure: impl AsyncFn(&str),
    ) -> Self {
        let mut report = Self { suite, entries: Vec::new() };
        let mut broken = false;
        for test in tests {
            let started = Instant::now();
            let outcome = if broken {
                Outcome::Skipped
            } else {
                match tokio::time::timeout(limit, (test.work)(subject)).await {
                    Ok(Ok(())) => Outcome::Passed,
                    Ok(Err(error)) => Outcome::Failed(format!("{error:#}")),
                    Err(_) => Outcome::Failed(format!("did not end within {} s", limit.as_secs())),
                }
            };
            let entry = Entry { name: test.name, outcome, took: started.elapsed() };
            println!("{}", entry.line());
            if matches!(entry.outcome, Outcome::Failed(_)) {
                on_failure(test.name).await;
                broken |= test.essential;
            }
            report.entries.push(entry);
        }
        println!("{}", report.summary());
        report
    }

    /// Whether every test has passed, and there was one.
    pub(crate) fn passed(&self) -> bool {
        !self.entries.is_empty() && self.entries.iter().all(|entry| matches!(entry.outcome, Outcome::Passed))
    }

    /// Writes it as JUnit XML.
    pub(crate) fn write_junit(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        std::fs::write(path, self.junit()).with_context(|| format!("write {}", path.display()))
    }

    fn count(&self, wanted: impl Fn(&Outcome) -> bool) -> usize {
        self.entries.iter().filter(|entry| wanted(&entry.outcome)).count()
    }

    fn took(&self) -> Duration {
        self.entries.iter().map(|entry| entry.took).sum()
    }

    fn summary(&self) -> String {
        let passed = self.count(|outcome| matches!(outcome, Outcome::Passed));
        let failed = self.count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let skipped = self.count(|outcome| matches!(outcome, Outcome::Skipped));
        format!(
            "{}: {passed} passed, {failed} failed, {skipped} skipped in {:.0} s",
            self.suite,
            self.took().as_secs_f64()
        )
    }

    fn junit(&self) -> String {
        let failed = self.count(|outcome| matches!(outcome, Outcome::Failed(_)));
        let skipped = self.count(|outcome| matches!(outcome, Outcome::Skipped));
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\" time=\"{:.3}\">\n",
            escape(self.suite),
            self.entries.len(),
            self.took().as_secs_f64(),
        );
        for entry in &self.entries {
            let (name, took) = (escape(entry.name), entry.took.as_secs_f64());
            // Writing to a String cannot fail.
            let _ = match &entry.outcome {
                Outcome::Passed => {
                    writeln!(xml, "  <testcase classname=\"{}\" name=\"{name}\" time=\"{took:.3}\"/>", self.suite)
                }
                Outcome::Skipped => {
                    writeln!(xml, "  <testcase classname=\"{}\" name=\"{name}\"><skipped/></testcase>", self.suite)
                }
                Outcome::Failed(reason) => writeln!(
                    xml,
                    "  <testcase classname=\"{}\" name=\"{name}\" time=\"{took:.3}\"><failure message=\"{}\"/></testcase>",
                    self.suite,
                    escape(reason),
                ),
            };
        }
        xml.push_str("</testsuite>\n");
        xml
    }
}

impl Entry {
    fn line(&self) -> String {
        match &self.outcome {
            Outcome::Passed => format!("√ {} ({:.1} s)", self.name, self.took.as_secs_f64()),
            Outcome::Skipped => format!("- {}: skipped", self.name),
            Outcome::Failed(reason) => {
                format!("× {} ({:.1} s)\n    {}", self.name, self.took.as_secs_f64(), reason.replace('\n', "\n    "))
            }
        }
    }
}

/// For an attribute: XML 1.0 has no way to write most control characters.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\n' => "&#10;".to_owned(),
            c if c.is_control() => "\u{fffd}".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3600);

    fn tests() -> [Test<()>; 3] {
        [
            Test { name: "works", essential: false, work: |()| Box::pin(async { Ok(()) }) },
            Test {
                name: "needs <this>",
                essential: true,
                work: |()| Box::pin(async { Err(anyhow::anyhow!("cause").context("no \"luck\"")) }),
            },
            Test { name: "comes after", essential: false, work: |()| Box::pin(async { Ok(()) }) },
        ]
    }

    #[tokio::test]
    async fn skips_what_comes_after_an_essential_failure() {
        let report = Report::run("suite", &tests(), &(), LIMIT, async |_: &str| ()).await;
        assert!(!report.passed());
        let summary = report.summary();
        assert!(summary.starts_with("suite: 1 passed, 1 failed, 1 skipped in "), "{summary}");
        assert!(report.entries[1].line().ends_with("\n    no \"luck\": cause"), "{}", report.entries[1].line());
    }

    #[tokio::test]
    async fn writes_junit_with_reasons_escaped() {
        let report = Report::run("suite", &tests(), &(), LIMIT, async |_: &str| ()).await;
        let xml = report.junit();
        assert!(xml.contains(r#"<testsuite name="suite" tests="3" failures="1" skipped="1""#), "{xml}");
        assert!(xml.contains(r#"name="needs &lt;this&gt;""#), "{xml}");
        assert!(xml.contains(r#"<failure message="no &quot;luck&quot;: cause"/>"#), "{xml}");
        assert!(xml.contains(r#"name="comes after"><skipped/>"#), "{xml}");
    }

    #[tokio::test(start_paused = true)]
    async fn ends_a_test_that_hangs() {
        let tests = [Test { name: "hangs", essential: false, work: |()| Box::pin(std::future::pending()) }];
        let report = Report::run("suite", &tests, &(), LIMIT, async |_: &str| ()).await;
        assert!(matches!(&report.entries[0].outcome, Outcome::Failed(reason) if reason == "did not end within 3600 s"));
    }

    #[test]
    fn passes_only_with_a_test() {
        assert!(!Report { suite: "none", entries: Vec::new() }.passed());
    }
}
