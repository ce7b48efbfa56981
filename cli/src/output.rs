//! Tables, JSON, YAML, colour.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::command::Format;

/// Writes data to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("writing to standard output")
}

/// Writes a document in a format for programs, or what `table` makes of it.
pub(crate) fn document<T: Serialize>(
    format: Format,
    document: &T,
    table: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match format {
        Format::Table | Format::Wide => print(&table()),
        Format::Json => print(&(serde_json::to_string_pretty(document)? + "\n")),
        Format::Yaml => print(&serde_yaml_ng::to_string(document)?),
    }
}

/// An object as one of the documents of a YAML file.
pub(crate) fn yaml(object: &Value) -> anyhow::Result<String> {
    Ok(format!("---\n{}", serde_yaml_ng::to_string(object).context("writing YAML")?))
}

/// `1 pod`, `2 pods`.
pub(crate) fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A colour of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Green = 32,
    Yellow = 33,
    Red = 31,
}

/// Colours a text if standard output is a terminal and `NO_COLOR` (no-color.org) is not set.
pub(crate) fn paint(text: &str, colour: Colour) -> String {
    let plain = !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain { text.to_owned() } else { format!("\x1b[{}m{text}\x1b[0m", colour as u8) }
}

/// Rows under a head, columns aligned.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Whether columns that are not for everybody are shown.
    wide: bool,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()], wide: false }
    }

    /// With more columns behind the others, where they are asked for.
    pub(crate) fn more<const N: usize>(mut self, wide: bool, head: [&str; N]) -> Self {
        self.wide = wide;
        if wide {
            self.rows[0].extend(head.map(str::to_owned));
        }
        self
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// A row whose last cells are of columns that are not for everybody.
    pub(crate) fn row_and<const N: usize, const M: usize>(&mut self, cells: [String; N], more: [String; M]) {
        let more = more.into_iter().filter(|_| self.wide);
        self.rows.push(cells.into_iter().chain(more).collect());
    }

    /// The table under a title with the number of rows; what `none` says if there are none.
    pub(crate) fn titled(&self, title: &str, none: &str) -> String {
        match self.rows.len() - 1 {
            0 => format!("{title}: {none}\n"),
            rows => format!("{title} ({rows})\n{}", self.render()),
        }
    }

    /// The table without a title.
    pub(crate) fn lines(&self) -> String {
        self.render()
    }

    fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width =
            |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell: &String| visible(cell)).max();
        let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                // Writing to a String does not fail.
                let _ = write!(line, "  {cell}{}", " ".repeat(width - visible(cell)));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Characters that take a column: all but colours.
fn visible(text: &str) -> usize {
    let mut count = 0;
    let mut escape = false;
    for character in text.chars() {
        match character {
            '\x1b' => escape = true,
            'm' if escape => escape = false,
            _ if !escape => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_their_colour() {
        let mut table = Table::new(["NAME", "STATE", "NOTE"]);
        table.row(["a".into(), "\x1b[32mSYNCED\x1b[0m".into(), "x".into()]);
        table.row(["longer".into(), "NACK".into(), String::new()]);
        assert_eq!(
            table.titled("THINGS", "none"),
            "THINGS (2)\n  NAME    STATE   NOTE\n  a       \x1b[32mSYNCED\x1b[0m  x\n  longer  NACK\n"
        );
        let mut wide = Table::new(["A"]).more(true, ["B"]);
        wide.row_and(["1".into()], ["2".into()]);
        assert_eq!(wide.titled("THINGS", "none"), "THINGS (1)\n  A  B\n  1  2\n");
        let mut narrow = Table::new(["A"]).more(false, ["B"]);
        narrow.row_and(["1".into()], ["2".into()]);
        assert_eq!(narrow.titled("THINGS", "none"), "THINGS (1)\n  A\n  1\n");
        assert_eq!(Table::new(["A"]).titled("THINGS", "none yet"), "THINGS: none yet\n");
    }
}
