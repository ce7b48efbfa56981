//! Headers that routes add, overwrite and remove.

use weft_xds::FieldError;

use crate::proto::{core, refuse};

/// Header edits in the order in which they apply. Build one list per direction and route; [`apply`](Self::apply) it to a head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMutations {
    edits: Vec<HeaderMutation>,
}

/// One edit. Names are lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderMutation {
    /// Remove every field of this name.
    Remove(String),
    /// Add a field, beside any that exists.
    Append(String, Vec<u8>),
    /// Add a field unless one exists.
    AddIfAbsent(String, Vec<u8>),
    /// Replace every field of this name by one, or add it.
    Overwrite(String, Vec<u8>),
    /// Replace every field of this name by one; do nothing if there is none.
    OverwriteIfExists(String, Vec<u8>),
}

/// A head that can be edited. Implemented by the proxy's head type.
pub trait HeaderEdit {
    /// Whether a field of this lower-case name exists.
    fn contains(&self, name: &str) -> bool;
    /// Removes every field of this name.
    fn remove(&mut self, name: &str);
    /// Adds a field at the end.
    fn append(&mut self, name: &str, value: &[u8]);
}

impl HeaderMutations {
    /// Compiles one level's `*_headers_to_add` and `*_headers_to_remove`. `path` is the path of the message that holds them, `which` is
    /// `request` or `response`. Removal comes first, as in Envoy.
    pub(crate) fn compile(
        add: &[core::HeaderValueOption],
        remove: &[String],
        path: &str,
        which: &str,
    ) -> Result<Self, FieldError> {
        let mut edits = Vec::with_capacity(add.len() + remove.len());
        for (i, name) in remove.iter().enumerate() {
            let path = format!("{path}.{which}_headers_to_remove[{i}]");
            edits.push(HeaderMutation::Remove(header_name(name, &path)?));
        }
        for (i, option) in add.iter().enumerate() {
            edits.extend(addition(option, &format!("{path}.{which}_headers_to_add[{i}]"))?);
        }
        Ok(Self { edits })
    }

    /// The edits of several levels, in the order given.
    pub(crate) fn concat<'a>(levels: impl IntoIterator<Item = &'a Self>) -> Self {
        Self { edits: levels.into_iter().flat_map(|level| level.edits.iter().cloned()).collect() }
    }

    /// Performs the edits.
    pub fn apply(&self, head: &mut impl HeaderEdit) {
        for edit in &self.edits {
            match edit {
                HeaderMutation::Remove(name) => head.remove(name),
                HeaderMutation::Append(name, value) => head.append(name, value),
                HeaderMutation::AddIfAbsent(name, value) => {
                    if !head.contains(name) {
                        head.append(name, value);
                    }
                }
                HeaderMutation::Overwrite(name, value) => {
                    head.remove(name);
                    head.append(name, value);
                }
                HeaderMutation::OverwriteIfExists(name, value) => {
                    if head.contains(name) {
                        head.remove(name);
                        head.append(name, value);
                    }
                }
            }
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }

    /// The edits, in order.
    pub fn edits(&self) -> &[HeaderMutation] {
        &self.edits
    }
}

fn addition(option: &core::HeaderValueOption, path: &str) -> Result<Option<HeaderMutation>, FieldError> {
    use core::header_value_option::HeaderAppendAction as Action;
    let header =
        option.header.as_ref().ok_or_else(|| refuse(&format!("{path}.header"), "missing; give key and value"))?;
    let name = header_name(&header.key, &format!("{path}.header.key"))?;
    let value = match (header.value.as_str(), header.raw_value.as_slice()) {
        (text, []) => literal(text, &format!("{path}.header.value"))?,
        ("", raw) => raw.to_vec(),
        _ => {
            return Err(refuse(&format!("{path}.header"), "both value and raw_value are set; keep one"));
        }
    };
    if value.iter().any(|&byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(refuse(&format!("{path}.header.value"), "holds CR, LF or NUL, which no header value may hold"));
    }
    if value.is_empty() && !option.keep_empty_value {
        return Ok(None);
    }
    #[allow(deprecated)]
    let action = match &option.append {
        Some(append) if option.append_action != 0 => {
            return Err(refuse(
                &format!("{path}.append"),
                format!("set to {} beside append_action; keep append_action", append.value),
            ));
        }
        Some(append) if !append.value => Action::OverwriteIfExistsOrAdd,
        _ => Action::try_from(option.append_action)
            .map_err(|_| refuse(&format!("{path}.append_action"), format!("unknown value {}", option.append_action)))?,
    };
    Ok(Some(match action {
        Action::AppendIfExistsOrAdd => HeaderMutation::Append(name, value),
        Action::AddIfAbsent => HeaderMutation::AddIfAbsent(name, value),
        Action::OverwriteIfExistsOrAdd => HeaderMutation::Overwrite(name, value),
        Action::OverwriteIfExists => HeaderMutation::OverwriteIfExists(name, value),
    }))
}

/// Pseudo-headers, Host and what frames the message are not a route's to change.
fn header_name(name: &str, path: &str) -> Result<String, FieldError> {
    const FRAMING: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te"];
    let name = name.to_ascii_lowercase();
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(refuse(
            path,
            format!("{name:?} is not a header's name (RFC 9110 §5.1); use letters, digits and hyphens"),
        ));
    }
    if FRAMING.contains(&name.as_str()) {
        return Err(refuse(
            path,
            format!(
                "{name} frames or addresses the message and cannot be edited by a route; for the host use host_rewrite_literal"
            ),
        ));
    }
    Ok(name)
}

/// Envoy expands `%COMMAND%`; `%%` is a percent sign. No command is implemented.
fn literal(text: &str, path: &str) -> Result<Vec<u8>, FieldError> {
    let plain = text.replace("%%", "");
    if plain.contains('%') {
        return Err(refuse(
            path,
            format!("{text:?} holds a format command, none of which is supported; write %% for a percent sign"),
        ));
    }
    Ok(text.replace("%%", "%").into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Head(Vec<(String, String)>);

    impl HeaderEdit for Head {
        fn contains(&self, name: &str) -> bool {
            self.0.iter().any(|(n, _)| n == name)
        }
        fn remove(&mut self, name: &str) {
            self.0.retain(|(n, _)| n != name);
        }
        fn append(&mut self, name: &str, value: &[u8]) {
            self.0.push((name.into(), String::from_utf8_lossy(value).into()));
        }
    }

    fn option(name: &str, value: &str, action: i32) -> core::HeaderValueOption {
        core::HeaderValueOption {
            header: Some(core::HeaderValue { key: name.into(), value: value.into(), raw_value: vec![] }),
            append_action: action,
            ..Default::default()
        }
    }

    #[test]
    fn removes_first_then_follows_each_append_action() {
        let add = [
            option("A", "2", 0),
            option("b", "2", 1),
            option("c", "2", 2),
            option("d", "2", 3),
            option("e", "50%%", 1),
        ];
        let mutations = HeaderMutations::compile(&add, &["A".into()], "r", "request").unwrap();
        let mut head = Head(["a", "b", "c", "d"].map(|name| (name.into(), "1".into())).into());
        mutations.apply(&mut head);
        let text: Vec<_> = head.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(text, ["b=1", "a=2", "c=2", "d=2", "e=50%"]);
    }

    #[test]
    fn an_empty_value_is_dropped_unless_kept() {
        let kept = core::HeaderValueOption { keep_empty_value: true, ..option("a", "", 0) };
        assert!(HeaderMutations::compile(&[option("a", "", 0)], &[], "r", "request").unwrap().is_empty());
        assert!(!HeaderMutations::compile(&[kept], &[], "r", "request").unwrap().is_empty());
    }

    #[test]
    fn refuses_what_would_break_the_message_and_names_the_field() {
        for (name, value, at) in [
            ("Host", "x", "header.key"),
            (":path", "x", "header.key"),
            ("transfer-encoding", "chunked", "header.key"),
            ("a b", "x", "header.key"),
            ("a", "x\r\ny: z", "header.value"),
            ("a", "%REQ(x)%", "header.value"),
        ] {
            let error = HeaderMutations::compile(&[option(name, value, 0)], &[], "r", "response").unwrap_err();
            assert_eq!(error.path, format!("r.response_headers_to_add[0].{at}"));
        }
    }
}
