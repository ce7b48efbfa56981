//! A YAML document as a tree whose nodes know their line.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use crate::path::{FieldPath, Step};

/// Deeper nesting than any object of ours has; bounds recursion in everything that walks a tree.
const MAX_DEPTH: usize = 64;
/// Nodes per file, aliases expanded: bounds what a "billion laughs" file can cost.
const MAX_NODES: usize = 500_000;

/// A value and the line on which it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// `plain` scalars (not quoted, not a block) are subject to YAML's typing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// In the order written. Keys are unique.
    Map(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u32,
    pub(crate) node: Node,
}

/// Text that is not YAML, or YAML that no object can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: u32,
    pub(crate) why: String,
    pub(crate) hint: &'static str,
}

impl Node {
    /// The line of the field at `path`, or of its nearest parent that is written.
    #[must_use]
    pub(crate) fn line_of(&self, path: &FieldPath) -> u32 {
        let mut line = self.line;
        let mut node = self;
        for step in path.steps() {
            match (step, &node.value) {
                (Step::Key(key), Value::Map(entries)) => {
                    let Some(entry) = entries.iter().find(|e| e.key == *key) else {
                        return line;
                    };
                    line = entry.line;
                    node = &entry.node;
                }
                (Step::Index(index), Value::List(items)) => {
                    let Some(item) = items.get(*index) else {
                        return line;
                    };
                    line = item.line;
                    node = item;
                }
                _ => return line,
            }
        }
        line
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// The text of a scalar that is a string.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// How the value is called in messages.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Node::count).sum(),
            Value::Map(entries) => entries.iter().map(|e| e.node.count()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Node::depth).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|e| e.node.depth()).max().unwrap_or(0),
        }
    }
}

/// The documents of a YAML stream, up to the first syntax error. Empty documents (a lone `---`, comments only) are left out.
pub(crate) fn documents(text: &str) -> (Vec<Node>, Option<SyntaxError>) {
    let mut builder = Builder::default();
    for next in Parser::new_from_str(text) {
        let step = match next {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(SyntaxError {
                line: line(error.marker().line()),
                why: format!("not YAML: {}", error.info()),
                hint: "check indentation and quotes on this line and the one above",
            }),
        };
        if let Err(error) = step {
            return (builder.documents, Some(error));
        }
    }
    (builder.documents, None)
}

#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

/// A list or mapping whose end has not been seen yet.
struct Open {
    node: Node,
    anchor: usize,
    /// In a mapping: the key whose value comes next.
    key: Option<(String, u32)>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), SyntaxError> {
        let line = line(span.start.line());
        match event {
            Event::Scalar(text, style, anchor, _tag) => {
                let plain = style == ScalarStyle::Plain;
                let node = Node { line, value: Value::Scalar { text: text.into_owned(), plain } };
                self.complete(node, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(line, Value::List(Vec::new()), anchor),
            Event::MappingStart(_, anchor, _) => self.open(line, Value::Map(Vec::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => self.complete(open.node, open.anchor),
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let node = Node { line, ..node.clone() };
                    if self.open.len() + node.depth() > MAX_DEPTH {
                        return Err(too_deep(line));
                    }
                    // The clone's children count too; the node itself is counted by `complete`.
                    self.nodes += node.count() - 1;
                    self.complete(node, 0)
                }
                None => Err(SyntaxError {
                    line,
                    why: "the alias names no anchor that is complete here".to_owned(),
                    hint: "define the anchor (&name) before its alias (*name)",
                }),
            },
            Event::DocumentStart(..) => {
                // Anchors end with their document (YAML 1.2 §3.2.2.2).
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, line: u32, value: Value, anchor: usize) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep(line));
        }
        self.open.push(Open { node: Node { line, value }, anchor, key: None });
        Ok(())
    }

    /// A node is whole: it becomes its parent's key, value or element, or the document.
    fn complete(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(SyntaxError {
                line: node.line,
                why: format!("the file holds more than {MAX_NODES} values (aliases counted each time)"),
                hint: "split it into several files, or use fewer aliases",
            });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            if !node.is_null() {
                self.documents.push(node);
            }
            return Ok(());
        };
        match (&mut parent.node.value, parent.key.take()) {
            (Value::List(items), _) => items.push(node),
            (Value::Map(entries), Some((key, line))) => {
                if let Some(first) = entries.iter().find(|e| e.key == key) {
                    return Err(SyntaxError {
                        line,
                        why: format!("{key:?} is written twice in one mapping, first on line {}", first.line),
                        hint: "keep one of the two",
                    });
                }
                entries.push(Entry { key, line, node });
            }
            (Value::Map(_), None) => match node.value {
                Value::Scalar { text, .. } => parent.key = Some((text, node.line)),
                _ => {
                    return Err(SyntaxError {
                        line: node.line,
                        why: "a mapping's key has to be a single value".to_owned(),
                        hint: "write keys as plain names",
                    });
                }
            },
            (Value::Scalar { .. }, _) => {}
        }
        Ok(())
    }
}

fn too_deep(line: u32) -> SyntaxError {
    SyntaxError {
        line,
        why: format!("nested more than {MAX_DEPTH} levels deep"),
        hint: "no kind needs that; check the indentation",
    }
}

fn line(parser_line: usize) -> u32 {
    u32::try_from(parser_line).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> SyntaxError {
        documents(text).1.unwrap()
    }

    #[test]
    fn knows_the_line_of_each_field() {
        let (docs, error) = documents("# head\na: 1\nb:\n  - x\n  - y: 2\n    z: 3\n---\n---\nc: 4\n");
        assert_eq!(error, None);
        assert_eq!(docs.len(), 2);
        let root = FieldPath::root();
        assert_eq!(docs[0].line_of(&root.key("b")), 3);
        assert_eq!(docs[0].line_of(&root.key("b").index(0)), 4);
        assert_eq!(docs[0].line_of(&root.key("b").index(1).key("z")), 6);
        assert_eq!(docs[0].line_of(&root.key("b").index(1).key("missing")), 5);
        assert_eq!(docs[1].line_of(&root.key("c")), 9);
    }

    #[test]
    fn refuses_a_key_written_twice() {
        let error = error("a: 1\nb: 2\na: 3\n");
        assert_eq!(error.line, 3);
        assert!(error.why.contains("first on line 1"), "{}", error.why);
    }

    #[test]
    fn keeps_the_documents_before_a_syntax_error() {
        let (docs, error) = documents("a: 1\n---\nb: [1, 2\n");
        assert_eq!(docs.len(), 1);
        assert!(error.unwrap().line >= 3);
    }

    #[test]
    fn expands_aliases_within_a_budget() {
        let (docs, error) = documents("a: &x {k: v}\nb: *x\n");
        assert_eq!(error, None);
        assert_eq!(docs[0].get("b").and_then(|b| b.get("k")).and_then(Node::text), Some("v"));

        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let row = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{row}]\n"));
        }
        assert!(documents(&bomb).1.unwrap().why.contains("values"));
    }

    #[test]
    fn bounds_nesting() {
        assert!(error(&format!("{}x", "- ".repeat(100))).why.contains("levels"));
        assert!(error("&a [*a]").why.contains("alias"));
    }
}
