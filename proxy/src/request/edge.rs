//! What `HttpConnectionManager` says about a request's head before anything is decided by it.

use super::local::{Flag, LocalReply};
use crate::http::{RequestHead, Version};
use crate::snapshot::HttpChain;
use crate::snapshot::chain::UnderscoreAction;

/// Completes a head by the chain's settings.
///
/// # Errors
/// The answer to a request that the settings refuse.
pub(super) fn admit(chain: &HttpChain, request: &mut RequestHead) -> Result<(), LocalReply> {
    if let (Version::Http10, b"", Some(host)) = (request.version, request.authority(), &chain.default_host_for_http_10)
    {
        request.set_authority(host.as_bytes());
    }
    match chain.underscores {
        UnderscoreAction::Allow => {}
        UnderscoreAction::DropHeader => request.fields.retain(|name, _| !name.contains(&b'_')),
        UnderscoreAction::RejectRequest => {
            if let Some((name, _)) = request.fields.iter().find(|(name, _)| name.contains(&b'_')) {
                let name = String::from_utf8_lossy(name).into_owned();
                let text = format!("field {name} is refused for its underscore (headers_with_underscores_action)\n");
                return Err(LocalReply::new(400, Flag::Malformed, text));
            }
        }
    }
    Ok(())
}
