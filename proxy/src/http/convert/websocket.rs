//! WebSocket's handshake on HTTP/1.1 proves by a key that the server meant it (RFC 6455 §4.2.2); on HTTP/2
//! there is none (RFC 8441 §5). Where the two sides differ the proxy stands in for the one that is missing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::http::RequestHead;

/// The client's key.
pub const KEY: &str = "Sec-WebSocket-Key";
/// The server's proof.
pub const ACCEPT: &str = "Sec-WebSocket-Accept";

/// RFC 6455 §1.3.
const SALT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The proof for `key`.
pub fn accept(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(SALT);
    STANDARD.encode(hash.finalize())
}

/// Gives a WebSocket request that came over HTTP/2 the key that a server on HTTP/1.1 asks for. `random` need
/// not be secret. Does nothing to any other request, or where there is a key.
pub fn ensure_key(head: &mut RequestHead, random: [u8; 16]) {
    let websocket = head.fields.get("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    if websocket && !head.fields.contains(KEY) {
        head.fields.append(KEY.as_bytes(), STANDARD.encode(random).as_bytes());
    }
}
