//! Files of the repository that are made from the tables and the dashboards say what those say.
//!
//! After a change: `WEFT_WRITE_REFERENCE=1 cargo test -p weft-telemetry --test generated`.
// Clippy knows only functions that are tests themselves as tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

const AGAIN: &str = "run WEFT_WRITE_REFERENCE=1 cargo test -p weft-telemetry --test generated";

const DASHBOARDS: &str = "../manifests/grafana/dashboards";

#[test]
fn the_page_of_metrics_is_up_to_date() {
    compare("../docs/reference/metrics.md".as_ref(), &weft_telemetry::page::markdown());
}

#[test]
fn the_dashboards_are_up_to_date() {
    let mut made = BTreeSet::new();
    for (name, text) in weft_telemetry::dashboards::files() {
        compare(&Path::new(DASHBOARDS).join(&name), &text);
        made.insert(name);
    }
    let there = std::fs::read_dir(DASHBOARDS).unwrap();
    let there: BTreeSet<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, made, "and nothing else is there");
}

fn compare(path: &Path, text: &str) {
    if std::env::var_os("WEFT_WRITE_REFERENCE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == text, "{} is out of date: {AGAIN}", path.display());
}
