//! Lines: where a head or a trailer section ends, and its field lines.

use crate::http::{Fields, syntax};

use super::HeadError;

/// Finds the empty line that ends a section, looking at each byte once however often it is called,
/// and at the line ends on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SectionEnd {
    line_start: usize,
    scanned: usize,
}

impl SectionEnd {
    /// A section whose first line starts at `start`.
    pub(super) fn starting_at(start: usize) -> Self {
        Self { line_start: start, scanned: start }
    }

    /// The offset after the section's empty line, once `input` holds it. `input` starts with what
    /// earlier calls saw.
    pub(super) fn find(&mut self, input: &[u8]) -> Result<Option<usize>, HeadError> {
        while let Some(at) = memchr::memchr(b'\n', &input[self.scanned..]) {
            let line_feed = self.scanned + at;
            if line_feed == self.line_start || input[line_feed - 1] != b'\r' {
                return Err(HeadError::BareLineFeed);
            }
            self.scanned = line_feed + 1;
            if line_feed - 1 == self.line_start {
                return Ok(Some(line_feed + 1));
            }
            self.line_start = line_feed + 1;
        }
        self.scanned = input.len();
        Ok(None)
    }

    /// Where the line begins whose end has not been seen.
    pub(super) fn line_start(&self) -> usize {
        self.line_start
    }
}

/// What the fields say about the message and the connection that carries it.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) hosts: usize,
    pub(super) content_length: Option<u64>,
    pub(super) transfer_encoding: Option<TransferEncoding>,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    /// `Connection: upgrade`.
    pub(super) connection_upgrade: bool,
    /// A non-empty Upgrade field.
    pub(super) upgrade: bool,
    pub(super) expect_continue: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferEncoding {
    /// Exactly `chunked`, in any letter case.
    Chunked,
    /// Other codings, then `chunked`: well-formed, but not for us.
    Unknown,
    /// Anything whose end is not certain.
    Malformed,
}

/// Parses `block`, complete field lines without the empty line after them, into `fields`.
pub(super) fn parse_fields(
    block: &[u8],
    max_fields: usize,
    fields: &mut Fields,
    facts: &mut Facts,
) -> Result<(), HeadError> {
    let base = fields.adopt(block);
    let mut line = 0;
    // Each line ends with CRLF, of which neither byte belongs to a token or a value: no index below
    // can pass the block's end.
    while line < block.len() {
        if fields.len() == max_fields {
            return Err(HeadError::TooManyFields { limit: max_fields });
        }
        let name = syntax::token_len(&block[line..]);
        match block[line + name] {
            b':' if name > 0 => {}
            b' ' | b'\t' if name == 0 => return Err(HeadError::ObsFold),
            b' ' | b'\t' => return Err(HeadError::SpaceBeforeColon),
            _ => return Err(HeadError::FieldName),
        }
        let mut start = line + name + 1;
        while matches!(block[start], b' ' | b'\t') {
            start += 1;
        }
        let end = start + syntax::field_value_len(&block[start..]);
        match block[end..] {
            [b'\r', b'\n', ..] => {}
            [b'\r', ..] => return Err(HeadError::BareCarriageReturn),
            _ => return Err(HeadError::FieldValue),
        }
        let value = syntax::trim_ows(&block[start..end]);
        facts.note(&block[line..line + name], value)?;
        fields.push_adopted(base + line, name, base + start, value.len(), base + end + 2);
        line = end + 2;
    }
    Ok(())
}

impl Facts {
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        // By length first: most names are told apart without looking at them.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade |= !value.is_empty(),
            10 if name.eq_ignore_ascii_case(b"connection") => self.note_connection(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.content_length.is_some() || memchr::memchr(b',', value).is_some() {
                    return Err(HeadError::RepeatedContentLength);
                }
                let length = syntax::parse_length(value).ok_or(HeadError::InvalidContentLength)?;
                self.content_length = Some(length);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.transfer_encoding = Some(match self.transfer_encoding {
                    None => TransferEncoding::parse(value),
                    Some(_) => TransferEncoding::Malformed,
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in syntax::list_members(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

impl TransferEncoding {
    fn parse(value: &[u8]) -> Self {
        if value.eq_ignore_ascii_case(b"chunked") {
            return Self::Chunked;
        }
        let mut members = value.split(|b| *b == b',').map(syntax::trim_ows).rev();
        let last_is_chunked = members.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
        let others_are_codings = members.all(|member| {
            let name = &member[..syntax::token_len(member)];
            let parameters = syntax::trim_ows(&member[name.len()..]);
            !name.is_empty()
                && !name.eq_ignore_ascii_case(b"chunked")
                && (parameters.is_empty() || parameters[0] == b';')
        });
        if last_is_chunked && others_are_codings { Self::Unknown } else { Self::Malformed }
    }
}
