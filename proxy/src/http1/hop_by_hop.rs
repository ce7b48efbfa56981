//! Fields that end at this hop (RFC 9110 §7.6.1).

use smallvec::SmallVec;

use crate::http::{Fields, syntax};

/// Removes the fields meant for this connection only: Connection and those it names, Keep-Alive, Proxy-Connection,
/// HTTP2-Settings, TE and Upgrade.
///
/// - `TE: trailers` stays (gRPC insists on it), with the Connection option it needs.
/// - With `keep_upgrade`, Upgrade stays too, likewise.
/// - Host, Content-Length, Transfer-Encoding and Trailer stay even if Connection names them: a peer must not
///   be able to take a message's framing or address away. The encoder makes the framing's fields true.
pub fn strip_hop_by_hop(fields: &mut Fields, keep_upgrade: bool) {
    if !fields.iter().any(|(name, _)| is_hop_by_hop(name)) {
        return;
    }
    // One list of all that Connection names; on the stack for any usual size.
    let mut named: SmallVec<[u8; 128]> = SmallVec::new();
    for value in fields.get_all("connection") {
        named.extend_from_slice(value);
        named.push(b',');
    }
    let te = fields.list_contains("te", "trailers");
    let upgrade = keep_upgrade && fields.contains("upgrade");
    fields.retain(|name, _| {
        let kept = (upgrade && name.eq_ignore_ascii_case(b"upgrade"))
            || (te && name.eq_ignore_ascii_case(b"te"))
            || (te || upgrade) && name.eq_ignore_ascii_case(b"connection")
            || is_untouchable(name);
        kept || !(is_hop_by_hop(name) || syntax::list_members(&named).any(|option| option.eq_ignore_ascii_case(name)))
    });
    if te && fields.get("te") != Some(b"trailers") {
        fields.insert(b"TE", b"trailers");
    }
    let connection: &[u8] = match (upgrade, te) {
        (true, true) => b"Upgrade, TE",
        (true, false) => b"Upgrade",
        (false, true) => b"TE",
        (false, false) => return,
    };
    fields.insert(b"Connection", connection);
}

fn is_hop_by_hop(name: &[u8]) -> bool {
    let names: &[&[u8]] = match name.len() {
        2 => &[b"te"],
        7 => &[b"upgrade"],
        10 => &[b"connection", b"keep-alive"],
        14 => &[b"http2-settings"],
        16 => &[b"proxy-connection"],
        _ => &[],
    };
    names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

fn is_untouchable(name: &[u8]) -> bool {
    let untouchable: &[u8] = match name.len() {
        4 => b"host",
        7 => b"trailer",
        14 => b"content-length",
        17 => b"transfer-encoding",
        _ => return false,
    };
    untouchable.eq_ignore_ascii_case(name)
}
