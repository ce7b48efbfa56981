//! From a tree to any serde type, with every problem found, not only the first.
//!
//! serde gives up at the first error. When it does, the place of the failure is noted and the document is
//! decoded again without that field, until nothing new fails: each round adds one problem.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};

use super::tree::{Entry, Node, Value};
use crate::path::{FieldPath, Step};
use crate::problem::Severity;
use crate::suggest;

/// Rounds per document: more mistakes than anyone mends in one go.
const MAX_ROUNDS: usize = 50;

/// What happens to fields that the type does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// A typing error must not be silently without effect: our own kinds and the Gateway API's.
    Refuse,
    /// Kubernetes' own kinds, of which newer versions have fields that we do not know.
    Warn,
}

/// A problem inside a document; the caller adds file and object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) path: FieldPath,
    pub(crate) value: String,
    pub(crate) why: String,
    pub(crate) hint: String,
    pub(crate) severity: Severity,
}

/// What could be decoded (without the fields that failed), and everything wrong with the document.
pub(crate) struct Decoded<T> {
    pub(crate) object: Option<T>,
    pub(crate) findings: Vec<Finding>,
    /// Fields that were left out of `object`; checks below them (and of lists that lost an element) would mislead.
    pub(crate) skipped: Vec<FieldPath>,
}

pub(crate) fn decode<T: DeserializeOwned>(root: &Node, strictness: Strictness) -> Decoded<T> {
    let context =
        Context { strictness, skipped: RefCell::default(), unknown: RefCell::default(), failed: RefCell::default() };
    let mut findings = Vec::new();
    let mut object = None;
    for _ in 0..MAX_ROUNDS {
        // Every round sees the same unknown fields again.
        context.unknown.borrow_mut().clear();
        match T::deserialize(Decoder { node: root, path: Path::Root, context: &context }) {
            Ok(decoded) => {
                object = Some(decoded);
                break;
            }
            Err(_) => match context.failed.borrow_mut().take() {
                // A parent that cannot do without the field that already failed is no news.
                Some(failure) => {
                    if !context.skipped.borrow().contains(&failure.finding.path) {
                        findings.push(failure.finding);
                    }
                    if failure.node.steps().is_empty() {
                        break;
                    }
                    context.skipped.borrow_mut().push(failure.node);
                }
                None => break,
            },
        }
    }
    findings.extend(context.unknown.into_inner());
    Decoded { object, findings, skipped: context.skipped.into_inner() }
}

struct Context {
    strictness: Strictness,
    skipped: RefCell<Vec<FieldPath>>,
    unknown: RefCell<Vec<Finding>>,
    failed: RefCell<Option<Failure>>,
}

struct Failure {
    finding: Finding,
    /// The node to leave out next time.
    node: FieldPath,
}

/// serde's error; the details are in [`Context::failed`] once `noted`.
#[derive(Debug)]
struct Error {
    message: String,
    missing: Option<&'static str>,
    noted: bool,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), missing: None, noted: false }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { message: "is missing".to_owned(), missing: Some(field), noted: false }
    }
}

/// The way from the root, on the stack: most paths are never needed.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl Path<'_> {
    fn owned(&self) -> FieldPath {
        let mut path = FieldPath::root();
        self.push_onto(path.steps_mut());
        path
    }

    fn push_onto(&self, steps: &mut Vec<Step>) {
        match self {
            Path::Root => {}
            Path::Key(parent, key) => {
                parent.push_onto(steps);
                steps.push(Step::Key((*key).to_owned().into()));
            }
            Path::Index(parent, index) => {
                parent.push_onto(steps);
                steps.push(Step::Index(*index));
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Decoder<'t> {
    node: &'t Node,
    path: Path<'t>,
    context: &'t Context,
}

impl<'t> Decoder<'t> {
    /// Notes the innermost error with this node's path; outer nodes pass it on.
    fn note<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| {
            if error.noted {
                return error;
            }
            let node = self.path.owned();
            let (path, value) = match error.missing {
                Some(field) => (node.key(field), String::new()),
                None => (node.clone(), self.node.text().unwrap_or_default().to_owned()),
            };
            let (why, hint) = match error.message.split_once(": write ") {
                // Our own types' errors end with the way out, and start with the value.
                Some((why, hint)) => {
                    let why = why.strip_prefix(&format!("{value:?} ")).unwrap_or(why);
                    (why.to_owned(), format!("write {hint}"))
                }
                None => (error.message.clone(), String::new()),
            };
            let finding = Finding { path, value, why, hint, severity: Severity::Error };
            *self.context.failed.borrow_mut() = Some(Failure { finding, node });
            Error { noted: true, ..error }
        })
    }

    fn wrong(&self, why: impl Into<String>, hint: impl Into<String>) -> Error {
        let node = self.path.owned();
        let finding = Finding {
            path: node.clone(),
            value: self.node.text().unwrap_or_default().to_owned(),
            why: why.into(),
            hint: hint.into(),
            severity: Severity::Error,
        };
        *self.context.failed.borrow_mut() = Some(Failure { finding, node });
        Error { message: String::new(), missing: None, noted: true }
    }

    fn expected(&self, what: &str) -> Error {
        self.wrong(format!("expected {what}, found {}", self.node.describe()), "")
    }

    fn is_skipped(&self, path: &Path<'_>) -> bool {
        let skipped = self.context.skipped.borrow();
        !skipped.is_empty() && skipped.contains(&path.owned())
    }

    fn integer(&self, least: i128, most: i128) -> Result<i128, Error> {
        let Value::Scalar { text, plain } = &self.node.value else {
            return Err(self.expected("a whole number"));
        };
        match parse_integer(text) {
            Some(number) if *plain && (least..=most).contains(&number) => Ok(number),
            Some(_) if !*plain => Err(self.wrong("expected a whole number, found a text", "remove the quotes")),
            Some(_) if least == 0 => Err(self.wrong(format!("is out of range: whole numbers from 0 to {most}"), "")),
            Some(_) => Err(self.wrong(format!("is out of range: {least} to {most}"), "")),
            None => Err(self.wrong("is not a whole number", "")),
        }
    }

    fn float(&self) -> Result<f64, Error> {
        match &self.node.value {
            Value::Scalar { text, plain: true } => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => Err(self.wrong("is not a number", "")),
            },
            Value::Scalar { .. } => Err(self.wrong("expected a number, found a text", "remove the quotes")),
            _ => Err(self.expected("a number")),
        }
    }

    fn string(&self) -> Result<&'t str, Error> {
        match &self.node.value {
            Value::Scalar { text, plain } => match scalar_type(text) {
                // Kubernetes refuses these too; quoting them is what the author means.
                _ if self.node.is_null() => Err(self.wrong("expected a text, found nothing", "")),
                Some(kind) if *plain => {
                    Err(self.wrong(format!("expected a text, found {kind}"), format!("write it in quotes: \"{text}\"")))
                }
                _ => Ok(text),
            },
            _ => Err(self.expected("a text")),
        }
    }
}

/// The variants without those that are only another spelling of the one before (serde lists aliases too).
fn listed(variants: &[&str]) -> String {
    let mut listed: Vec<&str> = Vec::with_capacity(variants.len());
    for variant in variants {
        match listed.iter_mut().find(|v| v.eq_ignore_ascii_case(variant)) {
            // The upper-case spelling is the documented one.
            Some(same) => *same = (*same).min(*variant),
            None => listed.push(variant),
        }
    }
    listed.join(", ")
}

/// YAML's typing of plain scalars (1.2 core schema).
fn scalar_type(text: &str) -> Option<&'static str> {
    match text {
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Some("true or false"),
        _ if parse_integer(text).is_some() => Some("a number"),
        // "nan", "inf" and hexadecimal digits parse as floats in Rust, but are words in YAML.
        _ if text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
            && text.parse::<f64>().is_ok_and(f64::is_finite) =>
        {
            Some("a number")
        }
        _ => None,
    }
}

fn parse_integer(text: &str) -> Option<i128> {
    if let Some(hex) = text.strip_prefix("0x") {
        return i128::from_str_radix(hex, 16).ok();
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return i128::from_str_radix(octal, 8).ok();
    }
    text.parse().ok()
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let number = self.integer(<$type>::MIN as i128, <$type>::MAX as i128)?;
            // `integer` checked the range.
            self.note(visitor.$visit(number as $type))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Decoder<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
            Value::Scalar { .. } if self.node.is_null() => self.note(visitor.visit_unit()),
            Value::Scalar { text, plain } => match scalar_type(text) {
                Some("true or false") if *plain => self.deserialize_bool(visitor),
                Some(_) if *plain && parse_integer(text).is_some() => self.deserialize_i64(visitor),
                Some(_) if *plain => self.deserialize_f64(visitor),
                _ => self.note(visitor.visit_str(text)),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node.text() {
            Some("true" | "True" | "TRUE") => self.note(visitor.visit_bool(true)),
            Some("false" | "False" | "FALSE") => self.note(visitor.visit_bool(false)),
            Some(_) => Err(self.wrong("is neither true nor false", "")),
            None => Err(self.expected("true or false")),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.float()?;
        self.note(visitor.visit_f64(number))
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.string()?;
        self.note(visitor.visit_str(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.is_null() { self.note(visitor.visit_unit()) } else { Err(self.expected("nothing")) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::List(items) = &self.node.value else {
            return Err(self
                .wrong(format!("expected a list, found {}", self.node.describe()), "start each element with \"- \""));
        };
        self.note(visitor.visit_seq(Elements { list: self, items, next: 0 }))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.expected("a mapping"));
        };
        self.note(visitor.visit_map(Entries { map: self, entries, next: 0, known: None }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.expected("a mapping"));
        };
        self.note(visitor.visit_map(Entries { map: self, entries, next: 0, known: Some(fields) }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Some(text) = self.node.text() else {
            return Err(self.expected(&format!("one of {}", listed(variants))));
        };
        if !variants.contains(&text) {
            let hint = match suggest::nearest(text, variants.iter().copied()) {
                Some(name) => format!("did you mean {name}?"),
                None => String::new(),
            };
            return Err(self.wrong(format!("is not one of {}", listed(variants)), hint));
        }
        self.note(visitor.visit_enum(text.into_deserializer()))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
}

struct Elements<'t> {
    list: Decoder<'t>,
    items: &'t [Node],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        while let Some(node) = self.items.get(self.next) {
            let path = Path::Index(&self.list.path, self.next);
            self.next += 1;
            if !self.list.is_skipped(&path) {
                let element = Decoder { node, path, context: self.list.context };
                return element.note(seed.deserialize(element)).map(Some);
            }
        }
        Ok(None)
    }
}

struct Entries<'t> {
    map: Decoder<'t>,
    entries: &'t [Entry],
    next: usize,
    /// The fields of a struct; `None` for a mapping with free keys.
    known: Option<&'static [&'static str]>,
}

impl Entries<'_> {
    fn is_known(&self, entry: &Entry, path: &Path<'_>) -> bool {
        let Some(fields) = self.known else {
            return true;
        };
        if fields.contains(&entry.key.as_str()) {
            return true;
        }
        let (why, severity) = match self.map.context.strictness {
            Strictness::Refuse => ("unknown field", Severity::Error),
            Strictness::Warn => ("unknown field, ignored", Severity::Warning),
        };
        self.map.context.unknown.borrow_mut().push(Finding {
            path: path.owned(),
            value: String::new(),
            why: why.to_owned(),
            hint: suggest::hint(&entry.key, fields),
            severity,
        });
        false
    }
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        while let Some(entry) = self.entries.get(self.next) {
            let path = Path::Key(&self.map.path, &entry.key);
            if self.is_known(entry, &path) && !self.map.is_skipped(&path) {
                let key: de::value::StrDeserializer<'_, Error> = entry.key.as_str().into_deserializer();
                return seed.deserialize(key).map(Some);
            }
            self.next += 1;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        // serde asks for a value only after `next_key_seed` found its key.
        let entry = &self.entries[self.next];
        self.next += 1;
        let path = Path::Key(&self.map.path, &entry.key);
        let value = Decoder { node: &entry.node, path, context: self.map.context };
        value.note(seed.deserialize(value))
    }
}
