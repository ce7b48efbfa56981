//! Every YAML snippet in the documentation is valid, to the last field.
#![allow(clippy::unwrap_used)] // Helpers of tests: a panic is a failed test.

use std::path::{Path, PathBuf};

use weft_api::parse;

#[test]
fn every_yaml_block_in_the_docs_is_valid() {
    // Tests run in their package's folder. A path built in would be that of the clone that built them.
    let root = Path::new("..");
    let mut pages = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    collect(&root.join("docs"), &mut pages);
    let mut blocks = 0;
    for page in pages.iter().filter(|page| page.exists()) {
        for (line, text) in yaml_blocks(&std::fs::read_to_string(page).unwrap()) {
            // Blank lines in front, so that problems name the page's own lines.
            let manifest = parse(&page.display().to_string(), &format!("{}{text}", "\n".repeat(line)));
            let problems: Vec<_> = manifest.problems.iter().map(ToString::to_string).collect();
            assert_eq!(problems, Vec::<String>::new());
            blocks += 1;
        }
    }
    assert!(blocks >= 10, "found only {blocks} blocks: is the path right?");
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, pages);
        } else if path.extension().is_some_and(|e| e == "md") {
            pages.push(path);
        }
    }
}

/// Blocks that are Weft's: those with an `apiVersion`, each with the number of lines before it.
fn yaml_blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.trim()) {
            (None, "```yaml") => open = Some((number + 1, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, text)), _) => {
                text.push_str(line);
                text.push('\n');
            }
            _ => {}
        }
    }
    blocks.retain(|(_, text)| text.contains("apiVersion:"));
    blocks
}
