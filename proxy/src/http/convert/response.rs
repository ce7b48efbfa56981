//! Responses.

use http::{Response, StatusCode};

use super::{ConvertError, copy_to_h2, websocket};
use crate::http::{RequestHead, ResponseHead, Version};

/// Fills `head`, cleared first, from an HTTP/2 response, with the reason that HTTP/1.1 clients expect.
///
/// `upgrade` is the request, where it was sent as an extended CONNECT: a 2xx to it becomes 101 with Upgrade and,
/// for a WebSocket, the proof for the request's key (RFC 8441 §5).
pub fn response_from_h2(parts: &http::response::Parts, upgrade: Option<&RequestHead>, head: &mut ResponseHead) {
    head.clear();
    head.version = Version::Http2;
    let upgraded = upgrade.filter(|_| parts.status.is_success());
    let status = if upgraded.is_some() { StatusCode::SWITCHING_PROTOCOLS } else { parts.status };
    head.set_status(status.as_u16());
    head.set_reason(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in &parts.headers {
        head.fields.append(name.as_str().as_bytes(), value.as_bytes());
    }
    if let Some(request) = upgraded {
        head.fields.append(b"Connection", b"Upgrade");
        if let Some(protocol) = request.fields.get("upgrade") {
            head.fields.append(b"Upgrade", protocol);
        }
        if let Some(key) = request.fields.get(websocket::KEY) {
            head.fields.insert(websocket::ACCEPT.as_bytes(), websocket::accept(key).as_bytes());
        }
        // The tunnel's bytes are no body.
        head.fields.remove("content-length");
    }
}

/// An HTTP/2 response from `head`, without the fields that HTTP/2 has no place for. A 101 becomes the 200 that answers an
/// extended CONNECT.
///
/// # Errors
/// The response cannot be said in HTTP/2; the answer is 502.
pub fn response_to_h2(head: &ResponseHead) -> Result<Response<()>, ConvertError> {
    let upgraded = head.status() == StatusCode::SWITCHING_PROTOCOLS.as_u16();
    let mut response = Response::new(());
    *response.version_mut() = http::Version::HTTP_2;
    *response.status_mut() = if upgraded {
        StatusCode::OK
    } else {
        StatusCode::from_u16(head.status()).map_err(|_| ConvertError::Status(head.status()))?
    };
    let skip = |name: &[u8]| upgraded && name.eq_ignore_ascii_case(websocket::ACCEPT.as_bytes());
    copy_to_h2(&head.fields, response.headers_mut(), skip)?;
    Ok(response)
}
