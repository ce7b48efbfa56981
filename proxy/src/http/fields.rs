//! A message's fields: one buffer of bytes and where each field lies in it.

use std::fmt;

use super::syntax;

/// The fields of a head or a trailer section, in order, as they were received.
///
/// Every field is kept as the line `name: value CRLF` in one buffer, so that a run of untouched
/// fields goes to the wire with one copy. Names compare without regard to case, and keep theirs.
///
/// ```
/// use weft_proxy::http::Fields;
///
/// let mut fields = Fields::new();
/// fields.append(b"X-Trace", b"1");
/// fields.append(b"x-trace", b"2");
/// assert_eq!(fields.get("X-TRACE"), Some(&b"1"[..]));
/// assert_eq!(fields.remove("x-trace"), 2);
/// ```
#[derive(Default)]
pub struct Fields {
    /// Lines; those of removed fields stay until `clear`.
    lines: Vec<u8>,
    spans: Vec<Span>,
}

/// Where a field's line starts in `lines`: `name`, `: `, `value`, CRLF.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    name: u32,
    value: u32,
}

const SEPARATOR: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";

impl Span {
    fn value_start(self) -> usize {
        self.start as usize + self.name as usize + SEPARATOR.len()
    }

    fn end(self) -> usize {
        self.value_start() + self.value as usize + LINE_END.len()
    }
}

impl Fields {
    /// No fields, no allocation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.spans.clear();
    }

    /// How many fields there are, duplicates counted.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> + ExactSizeIterator {
        self.spans.iter().map(|span| (self.name(*span), self.value(*span)))
    }

    /// The first value under `name`.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// All values under `name`, in order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.spans
            .iter()
            .filter(move |span| self.name(**span).eq_ignore_ascii_case(name.as_bytes()))
            .map(|span| self.value(*span))
    }

    /// Whether there is a field `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether a list field `name` holds `member` in any of its lines (`Connection: close` and the
    /// like), without regard to case.
    pub fn list_contains(&self, name: &str, member: &str) -> bool {
        self.get_all(name).any(|value| syntax::list_members(value).any(|m| m.eq_ignore_ascii_case(member.as_bytes())))
    }

    /// Adds a field at the end. Whitespace around the value is left out, and control characters in it
    /// become spaces (RFC 9110 §5.5), so that no value can end its line.
    ///
    /// Returns `false`, and adds nothing, where `name` is not a token (RFC 9110 §5.1).
    pub fn append(&mut self, name: &[u8], value: &[u8]) -> bool {
        if !syntax::is_token(name) {
            return false;
        }
        let span = self.write_line(name, value);
        self.spans.push(span);
        true
    }

    /// Replaces all fields `name` by this one, at the place of the first of them or else at the end.
    /// The value is treated as by [`append`](Self::append), as is a name that is not a token.
    pub fn insert(&mut self, name: &[u8], value: &[u8]) -> bool {
        if !syntax::is_token(name) {
            return false;
        }
        let new = self.write_line(name, value);
        let lines = &self.lines;
        let mut placed = false;
        self.spans.retain_mut(|span| {
            let start = span.start as usize;
            if !lines[start..start + span.name as usize].eq_ignore_ascii_case(name) {
                return true;
            }
            *span = new;
            !std::mem::replace(&mut placed, true)
        });
        if !placed {
            self.spans.push(new);
        }
        true
    }

    /// Removes all fields `name` and says how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.len();
        self.retain(|n, _| !n.eq_ignore_ascii_case(name.as_bytes()));
        before - self.len()
    }

    /// Keeps the fields for which `keep(name, value)` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let lines = &self.lines;
        self.spans.retain(|span| {
            let start = span.start as usize;
            let value = span.value_start();
            keep(&lines[start..start + span.name as usize], &lines[value..value + span.value as usize])
        });
    }

    /// Size in bytes of all fields as HTTP/1.1 lines, line ends counted.
    pub fn bytes_len(&self) -> usize {
        self.spans.iter().map(|span| span.end() - span.start as usize).sum()
    }

    /// Appends all fields as HTTP/1.1 lines to `out`, runs of untouched ones with one copy each.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>) {
        let mut spans = self.spans.iter();
        let Some(first) = spans.next() else { return };
        let mut run = first.start as usize..first.end();
        for span in spans {
            if span.start as usize == run.end {
                run.end = span.end();
            } else {
                out.extend_from_slice(&self.lines[run]);
                run = span.start as usize..span.end();
            }
        }
        out.extend_from_slice(&self.lines[run]);
    }

    /// Takes over a block of complete lines, to which [`push_adopted`](Self::push_adopted) then
    /// points. Returns where the block starts. The codec's way in: one copy for all fields.
    pub(crate) fn adopt(&mut self, block: &[u8]) -> usize {
        let start = self.lines.len();
        self.lines.extend_from_slice(block);
        start
    }

    /// Adds the field whose line starts at `start` of the buffer, with `name` bytes of name, already
    /// checked to be a token, and `value` bytes at `value_start`, already checked and trimmed. A line that is
    /// not exactly `name: value CRLF` is written anew, so that odd spacing is not forwarded.
    pub(crate) fn push_adopted(
        &mut self,
        start: usize,
        name: usize,
        value_start: usize,
        value: usize,
        line_end: usize,
    ) {
        let canonical = value_start == start + name + SEPARATOR.len()
            && self.lines[start + name + 1] == b' '
            && line_end == value_start + value + LINE_END.len();
        let span = if canonical {
            Span { start: offset(start), name: offset(name), value: offset(value) }
        } else {
            let new = self.lines.len();
            self.lines.extend_from_within(start..start + name);
            self.lines.extend_from_slice(SEPARATOR);
            self.lines.extend_from_within(value_start..value_start + value);
            self.lines.extend_from_slice(LINE_END);
            Span { start: offset(new), name: offset(name), value: offset(value) }
        };
        self.spans.push(span);
    }

    fn write_line(&mut self, name: &[u8], value: &[u8]) -> Span {
        let value = syntax::trim_ows(value);
        let start = self.lines.len();
        self.lines.extend_from_slice(name);
        self.lines.extend_from_slice(SEPARATOR);
        let value_start = self.lines.len();
        self.lines.extend_from_slice(value);
        if !syntax::is_field_value(value) {
            for byte in &mut self.lines[value_start..] {
                if !syntax::is_field_value(&[*byte]) {
                    *byte = b' ';
                }
            }
        }
        self.lines.extend_from_slice(LINE_END);
        Span { start: offset(start), name: offset(name.len()), value: offset(value.len()) }
    }

    fn name(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        &self.lines[start..start + span.name as usize]
    }

    fn value(&self, span: Span) -> &[u8] {
        let start = span.value_start();
        &self.lines[start..start + span.value as usize]
    }
}

/// Offsets are 32 bits to keep a span at 12 bytes.
///
/// # Panics
/// With more than 4 GiB of fields; heads are limited to far less by the codecs.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a head is limited to far less than 4 GiB")
}

impl Clone for Fields {
    /// Copies the fields that are left, not the room of removed ones.
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.clone_from(self);
        copy
    }

    /// Copies into memory already held.
    fn clone_from(&mut self, source: &Self) {
        self.clear();
        self.lines.reserve(source.bytes_len());
        self.spans.reserve(source.len());
        source.write_lines(&mut self.lines);
        let mut start = 0;
        for span in &source.spans {
            let copy = Span { start, ..*span };
            start = offset(copy.end());
            self.spans.push(copy);
        }
    }
}

/// Equal when the same names, letter case included, and values stand in the same order.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter().map(|(name, value)| (name.escape_ascii().to_string(), value.escape_ascii().to_string())),
            )
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            assert!(fields.append(name.as_bytes(), value.as_bytes()));
        }
        fields
    }

    fn text(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_lines(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn keeps_order_case_and_duplicates() {
        let fields = fields(&[("Host", "a"), ("x-B", "1"), ("HOST", "b"), ("X-b", "2")]);
        assert_eq!(text(&fields), "Host: a\r\nx-B: 1\r\nHOST: b\r\nX-b: 2\r\n");
        assert_eq!(fields.bytes_len(), text(&fields).len());
        assert_eq!(fields.get("x-b"), Some(&b"1"[..]));
        assert_eq!(fields.get_all("host").count(), 2);
    }

    #[test]
    fn insert_takes_the_place_of_the_first_and_drops_the_rest() {
        let mut fields = fields(&[("a", "1"), ("B", "2"), ("A", "3"), ("c", "4")]);
        fields.insert(b"A", b"new");
        assert_eq!(text(&fields), "A: new\r\nB: 2\r\nc: 4\r\n");
        fields.insert(b"d", b"5");
        assert_eq!(text(&fields), "A: new\r\nB: 2\r\nc: 4\r\nd: 5\r\n");
    }

    #[test]
    fn removing_leaves_the_others_in_order() {
        let mut fields = fields(&[("a", "1"), ("B", "2"), ("A", "3"), ("c", "4")]);
        assert_eq!(fields.remove("a"), 2);
        assert_eq!(fields.remove("a"), 0);
        assert_eq!(text(&fields), "B: 2\r\nc: 4\r\n");
        assert_eq!(text(&fields.clone()), text(&fields));
        assert_eq!(fields.bytes_len(), text(&fields).len());
    }

    #[test]
    fn no_value_can_end_its_line() {
        let mut fields = Fields::new();
        fields.append(b"a", b"1\r\nevil: \x002\n");
        assert_eq!(text(&fields), "a: 1  evil:  2 \r\n");
        assert!(!fields.append(b"b: c\r\nd", b"1"));
        assert!(!fields.append(b"", b"1"));
        assert!(!fields.insert(b"a b", b"1"));
        assert_eq!(fields.len(), 1);
    }

    #[test]
    fn list_members_are_found_in_any_line() {
        let fields = fields(&[("Connection", "a, KEEP-alive"), ("connection", " Close ,")]);
        assert!(fields.list_contains("connection", "close"));
        assert!(fields.list_contains("connection", "keep-alive"));
        assert!(!fields.list_contains("connection", "keep"));
    }

    #[test]
    fn clone_from_leaves_removed_fields_behind() {
        let mut source = fields(&[("a", "1"), ("b", "2")]);
        source.insert(b"a", b"3");
        let mut copy = fields(&[("z", "9")]);
        copy.clone_from(&source);
        assert_eq!(copy, source);
        assert_eq!(copy.lines.len(), copy.bytes_len());
    }
}
