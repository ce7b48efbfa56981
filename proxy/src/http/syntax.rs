//! Byte classes of RFC 9110 §5.6 and RFC 9112, as lookup tables.

const TOKEN: u8 = 1;
const VALUE: u8 = 2;
const TARGET: u8 = 4;
const AUTHORITY: u8 = 8;

static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        let mut class = 0;
        // RFC 9110 §5.6.2: tchar.
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            )
        {
            class |= TOKEN;
        }
        // RFC 9110 §5.5: field-vchar (VCHAR and obs-text), SP and HTAB.
        if b == b'\t' || (b >= b' ' && b != 0x7f) {
            class |= VALUE;
        }
        // Wider than RFC 3986 on purpose: applications send raw UTF-8, `<`, `|` and the like, and
        // paths travel byte for byte. Only what could end the target or the line is excluded.
        if b > b' ' && b != 0x7f {
            class |= TARGET;
        }
        // RFC 3986 §3.2 without user information, which RFC 9110 §4.2.4 says to treat as an error.
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'['
                    | b']'
            )
        {
            class |= AUTHORITY;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|b| CLASS[usize::from(*b)] & class != 0)
}

/// Whether `bytes` is a token (RFC 9110 §5.6.2): a method or a field name. Never empty.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Whether `bytes` may stand in a field value: no control character but HTAB.
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
    all(bytes, VALUE)
}

/// Whether `bytes` may stand in a request target: no whitespace, no control character. Never empty.
pub(crate) fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TARGET)
}

/// Whether `bytes` may stand in an authority (host and optional port), of which it may be empty.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    all(bytes, AUTHORITY)
}

/// `bytes` without the optional whitespace (SP and HTAB) around it.
pub(crate) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list (RFC 9110 §5.6.1), trimmed, empty ones left out.
pub(crate) fn list_members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(trim_ows).filter(|member| !member.is_empty())
}

/// How many bytes at the start of `bytes` are of a token.
pub(crate) fn token_len(bytes: &[u8]) -> usize {
    leading(bytes, TOKEN)
}

/// How many bytes at the start of `bytes` may stand in a field value.
pub(crate) fn field_value_len(bytes: &[u8]) -> usize {
    leading(bytes, VALUE)
}

fn leading(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|b| CLASS[usize::from(*b)] & class == 0).unwrap_or(bytes.len())
}

/// Whether `bytes` is `host [":" port]` (RFC 9110 §7.2), the host possibly empty, without user
/// information, the port at most 65535.
pub(crate) fn is_host_and_port(bytes: &[u8]) -> bool {
    split_host_and_port(bytes).is_some()
}

/// Host (brackets kept) and port digits of an authority, `None` where it is malformed.
pub(crate) fn split_host_and_port(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    if !is_authority(bytes) {
        return None;
    }
    let host_len = if bytes.first() == Some(&b'[') {
        let end = memchr::memchr(b']', bytes)?;
        let address = std::str::from_utf8(&bytes[1..end]).ok()?;
        address.parse::<std::net::Ipv6Addr>().ok()?;
        end + 1
    } else {
        memchr::memchr(b':', bytes).unwrap_or(bytes.len())
    };
    let (host, rest) = bytes.split_at(host_len);
    if host.first() != Some(&b'[') && host.iter().any(|b| matches!(b, b'[' | b']')) {
        return None;
    }
    match rest {
        [] => Some((host, None)),
        [b':', port @ ..] if is_port(port) => Some((host, Some(port))),
        _ => None,
    }
}

/// An empty port means the scheme's default (RFC 3986 §3.2.3).
fn is_port(digits: &[u8]) -> bool {
    digits.iter().all(u8::is_ascii_digit)
        && (digits.is_empty() || std::str::from_utf8(digits).is_ok_and(|text| text.parse::<u16>().is_ok()))
}

/// A Content-Length (RFC 9110 §8.6): `1*DIGIT` below 2^63; no sign, no whitespace. Many readers keep lengths in signed 64 bits, where a larger one
/// turns negative.
pub(crate) fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let length = text.iter().try_fold(0u64, |number, digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })?;
    i64::try_from(length).is_ok().then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_a_host_and_a_port() {
        for good in ["", "a", "a:80", "a.b-c_d:", "10.0.0.1:65535", "[::1]", "[fd00::a]:8080", "%41", "a,b"] {
            assert!(is_host_and_port(good.as_bytes()), "{good}");
        }
        for bad in [
            "u@a", "a:b", "a:65536", "a:80:80", "a/b", "a b", "::1", "[::1", "[a]", "[::1]x", "a]", "a?b", "a#b",
            "a\"", "é", "a:+1", "a\\b",
        ] {
            assert!(!is_host_and_port(bad.as_bytes()), "{bad}");
        }
    }
}
