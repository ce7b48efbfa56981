//! Prometheus text, parsed and summed.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Sample>);

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// A label's value; empty if absent.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }
}

impl Samples {
    /// Reads the text exposition format. Lines that are none are skipped.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(parse_line).collect())
    }

    /// All samples of a metric that have these labels.
    pub fn of<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|have| have == value))
        })
    }

    /// The sum of a metric's samples that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        // From 0: the standard library's sum of nothing is -0, and would be shown so.
        self.of(name, labels).fold(0.0, |sum, sample| sum + sample.value)
    }
}

fn parse_line(line: &str) -> Option<Sample> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    if let Some(mut left) = rest.strip_prefix('{') {
        rest = loop {
            left = left.trim_start_matches([',', ' ']);
            if let Some(after) = left.strip_prefix('}') {
                break after;
            }
            let (label, after) = left.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(label.to_owned(), value);
            left = after;
        };
    }
    // A time stamp may follow.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_labels_values_and_escapes() {
        let samples = Samples::parse(
            "# TYPE weft_requests counter\n\
             weft_requests_total{direction=\"outbound\",peer=\"a\\\"b\"} 3\n\
             weft_requests_total{direction=\"inbound\",peer=\"\"} 4 1700000000\n\
             weft_up 1\n\
             nonsense\n",
        );
        assert_eq!(samples.sum("weft_requests_total", &[]), 7.0);
        assert_eq!(samples.sum("weft_requests_total", &[("direction", "inbound")]), 4.0);
        assert_eq!(samples.sum("weft_requests_total", &[("peer", "a\"b")]), 3.0);
        assert_eq!(samples.sum("weft_requests_total", &[("nobody", "")]), 0.0);
        assert_eq!(samples.sum("weft_nothing", &[]).to_string(), "0", "and not -0");
        assert_eq!(samples.sum("weft_up", &[]), 1.0);
    }
}
