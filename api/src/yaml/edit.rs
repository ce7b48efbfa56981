//! Changes single values in the text of a document, and leaves everything else as its author wrote it: comments, order, style.

use granit_parser::{Event, Parser, ScalarStyle};

use crate::path::{FieldPath, Step};

/// The text of one document with the values at these paths replaced by other texts, which have to be YAML themselves.
///
/// `None` where that cannot be done in place: a path leads to no single value, the value is a block over several lines, or the document
/// has anchors, by which one place in the text stands for several in the object.
#[must_use]
pub fn replace_values(document: &str, edits: &[(FieldPath, String)]) -> Option<String> {
    let mut spans = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    for next in Parser::new_from_str(document) {
        let (event, span) = next.ok()?;
        match event {
            Event::Scalar(text, style, anchor, _) => {
                if anchor != 0 {
                    return None;
                }
                if let Some(Open::Map { key: key @ None, .. }) = open.last_mut() {
                    *key = Some(text.into_owned());
                    continue;
                }
                let path = path(&open);
                if let Some((_, new)) = edits.iter().find(|(at, _)| *at == path) {
                    if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
                        return None;
                    }
                    spans.push((span.byte_range()?, new));
                }
                complete(&mut open);
            }
            Event::MappingStart(_, anchor, _) | Event::SequenceStart(_, anchor, _) if anchor != 0 => return None,
            Event::MappingStart(..) => open.push(Open::Map { key: None }),
            Event::SequenceStart(..) => open.push(Open::List { next: 0 }),
            Event::MappingEnd | Event::SequenceEnd => {
                open.pop();
                complete(&mut open);
            }
            Event::Alias(_) => return None,
            _ => {}
        }
    }
    if spans.len() != edits.len() {
        return None;
    }
    let mut text = String::with_capacity(document.len());
    let mut done = 0;
    for (range, new) in spans {
        text.push_str(document.get(done..range.start)?);
        text.push_str(new);
        done = range.end;
    }
    text.push_str(document.get(done..)?);
    Some(text)
}

/// A mapping or list that has begun, and where in it the parser is.
enum Open {
    Map { key: Option<String> },
    List { next: usize },
}

fn path(open: &[Open]) -> FieldPath {
    let steps = open.iter().filter_map(|open| match open {
        Open::Map { key } => key.clone().map(|key| Step::Key(key.into())),
        Open::List { next } => Some(Step::Index(*next)),
    });
    steps.fold(FieldPath::root(), |path, step| path.then(step))
}

/// A value has ended, which was the innermost open one's.
fn complete(open: &mut [Open]) {
    match open.last_mut() {
        Some(Open::Map { key }) => *key = None,
        Some(Open::List { next }) => *next += 1,
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(rule: usize, backend: usize) -> FieldPath {
        let backends = FieldPath::root().key("spec").key("rules").index(rule).key("backendRefs");
        backends.index(backend).key("weight")
    }

    #[test]
    fn replaces_values_and_leaves_the_rest_as_it_was_written() {
        let text = "# ä canary\nspec:\n  rules:   # all\n  - {name: x}\n  - backendRefs:\n      - { name: \"v1\", weight: 90 } # old\n      \
                    - { name: v2, weight: '10' }\n";
        let edits = [(weight(1, 0), "50".to_owned()), (weight(1, 1), "50".to_owned())];
        let expected = text.replace("90", "50").replace("'10'", "50");
        assert_eq!(replace_values(text, &edits), Some(expected));
    }

    #[test]
    fn does_nothing_where_one_place_is_not_one_value() {
        let edit = |text: &str| replace_values(text, &[(FieldPath::root().key("a"), "1".to_owned())]);
        assert_eq!(edit("a: 2\n").as_deref(), Some("a: 1\n"));
        for text in ["b: 2\n", "a: [2]\n", "a: |\n  2\n", "a: &x 2\nb: *x\n", "a: 2\nb: &x {c: 1}\n", "a: [1\n"] {
            assert_eq!(edit(text), None, "{text}");
        }
    }
}
