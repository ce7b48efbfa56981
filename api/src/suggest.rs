//! "Did you mean": the known name nearest to what was written.

/// The candidate that `written` most probably stands for, if any is near enough: same letters in another
/// case, an edit distance of at most a third of the longer word, or a part of it (`Prefix` for `PathPrefix`).
#[must_use]
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const SHORTEST_PART: usize = 4;
    let lower = written.to_lowercase();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let known = candidate.to_lowercase();
            let edits = distance(&lower, &known);
            let is_part = lower.len() >= SHORTEST_PART && known.contains(&lower);
            (is_part || edits * 3 <= candidate.len().max(written.len())).then_some((edits, candidate))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// `did you mean X?`, or else the whole list of what may stand there.
pub(crate) fn hint(written: &str, candidates: &[&str]) -> String {
    match nearest(written, candidates.iter().copied()) {
        Some(name) => format!("did you mean {name}?"),
        None if candidates.is_empty() => "remove it".to_owned(),
        None => format!("known here: {}", candidates.join(", ")),
    }
}

/// Levenshtein distance over characters, where swapping two neighbours counts as one edit.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + change);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typing_errors_and_leaves_strangers_alone() {
        let fields = ["backendRefs", "filters", "matches", "timeouts"];
        assert_eq!(nearest("backendRef", fields), Some("backendRefs"));
        assert_eq!(nearest("mathces", fields), Some("matches"));
        assert_eq!(nearest("TIMEOUTS", fields), Some("timeouts"));
        assert_eq!(nearest("mirrors", fields), None);
    }
}
