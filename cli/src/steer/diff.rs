//! What differs between two texts, line by line, in the unified format.

use std::fmt::Write as _;

use crate::output::Colour;

/// Lines that are shown around a change.
const CONTEXT: usize = 3;

/// A line of either text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'t> {
    Kept(&'t str),
    Gone(&'t str),
    New(&'t str),
}

/// The changes from one text to another under the name of the place; empty where the two are equal.
pub(super) fn unified(place: &str, before: &str, after: &str, paint: impl Fn(&str, Colour) -> String) -> String {
    if before == after {
        return String::new();
    }
    let lines = compare(before, after);
    let is_change = |line: &Line<'_>| !matches!(line, Line::Kept(_));
    let mut text = format!("--- {place}\n+++ {place}\n");
    let mut at = 0;
    let (mut old, mut new) = (1, 1);
    while let Some(first) = lines[at..].iter().position(is_change).map(|offset| at + offset) {
        let start = first.saturating_sub(CONTEXT).max(at);
        // A hunk goes on while the next change is so near that the lines around the two would meet.
        let mut end = first;
        while let Some(next) = lines[end..].iter().position(is_change).filter(|gap| *gap <= 2 * CONTEXT) {
            end += next + 1;
        }
        let end = (end + CONTEXT).min(lines.len());
        advance(&lines[at..start], &mut old, &mut new);
        let (mut old_end, mut new_end) = (old, new);
        advance(&lines[start..end], &mut old_end, &mut new_end);
        // Writing to a String does not fail.
        let _ = writeln!(text, "@@ -{},{} +{},{} @@", old, old_end - old, new, new_end - new);
        for line in &lines[start..end] {
            let line = match line {
                Line::Kept(line) => format!(" {line}"),
                Line::Gone(line) => paint(&format!("-{line}"), Colour::Red),
                Line::New(line) => paint(&format!("+{line}"), Colour::Green),
            };
            let _ = writeln!(text, "{line}");
        }
        (old, new) = (old_end, new_end);
        at = end;
    }
    text
}

fn advance(lines: &[Line<'_>], old: &mut usize, new: &mut usize) {
    for line in lines {
        *old += usize::from(!matches!(line, Line::New(_)));
        *new += usize::from(!matches!(line, Line::Gone(_)));
    }
}

/// The lines of both texts, by their longest common subsequence. Objects are short: a table of all pairs of the lines that differ is small.
fn compare<'t>(before: &'t str, after: &'t str) -> Vec<Line<'t>> {
    let (a, b): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (x, y) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let mut common = vec![vec![0_u32; y.len() + 1]; x.len() + 1];
    for i in (0..x.len()).rev() {
        for j in (0..y.len()).rev() {
            common[i][j] = if x[i] == y[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let mut lines: Vec<_> = a[..head].iter().map(|line| Line::Kept(line)).collect();
    let (mut i, mut j) = (0, 0);
    while i < x.len() || j < y.len() {
        if i < x.len() && j < y.len() && x[i] == y[j] {
            lines.push(Line::Kept(x[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == y.len() || (i < x.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(Line::Gone(x[i]));
            i += 1;
        } else {
            lines.push(Line::New(y[j]));
            j += 1;
        }
    }
    lines.extend(a[a.len() - tail..].iter().map(|line| Line::Kept(line)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(before: &str, after: &str) -> String {
        unified("f", before, after, |text, _| text.to_owned())
    }

    #[test]
    fn a_change_is_shown_with_the_lines_around_it() {
        let before: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let after = before.replace("10\n", "ten\n").replace("20\n", "");
        assert_eq!(
            plain(&before, &after),
            "--- f\n+++ f\n@@ -7,7 +7,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n@@ -17,4 +17,3 @@\n 17\n 18\n 19\n-20\n"
        );
    }

    #[test]
    fn changes_near_each_other_are_shown_together() {
        let diff = plain("a\nb\nc\nd\n", "a\nB\nc\nD\n");
        assert_eq!(diff, "--- f\n+++ f\n@@ -1,4 +1,4 @@\n a\n-b\n+B\n c\n-d\n+D\n");
        assert_eq!(plain("", "a\n"), "--- f\n+++ f\n@@ -1,0 +1,1 @@\n+a\n");
        assert_eq!(plain("a\n", "a\n"), "");
    }
}
