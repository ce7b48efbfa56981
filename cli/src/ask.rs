//! HTTP questions to a control plane or a proxy.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use weft_local_mesh::client::Call;

/// Where an admin server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.strip_prefix("//").unwrap_or(path).into()));
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let address = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        address
            .replace("localhost", "127.0.0.1")
            .parse()
            .map(Self::Tcp)
            .map_err(|_| "is no address; write 127.0.0.1:15000, [::1]:15000, or unix:/path/to/admin.sock".to_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Gets a JSON document. `who` and `flag` are for the error: whom we asked, and how to name another address.
pub(crate) async fn json<T: DeserializeOwned>(
    address: &Address,
    path: &str,
    who: &str,
    flag: &str,
) -> anyhow::Result<T> {
    let answer = match address {
        Address::Tcp(to) => Call::get(path).tcp(*to).await,
        Address::Unix(to) => Call::get(path).unix(to).await,
    };
    let answer = answer.with_context(|| {
        format!("cannot ask the {who} at {address}; is it running there? Name its admin address with {flag}")
    })?;
    if answer.status != 200 {
        bail!(
            "the {who} at {address} answered {} to {path}: {}; is this the admin address ({flag}) of a {who}?",
            answer.status,
            answer.body.lines().next().unwrap_or_default()
        );
    }
    serde_json::from_str(&answer.body).with_context(|| {
        format!(
            "what answers at {address} does not look like a {who} of this version; name its admin address with {flag}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        for (text, expected) in [
            ("127.0.0.1:15000", tcp("127.0.0.1:15000")),
            ("localhost:15000", tcp("127.0.0.1:15000")),
            ("http://127.0.0.1:15000/", tcp("127.0.0.1:15000")),
            ("[::1]:80", tcp("[::1]:80")),
            ("unix:/run/a.sock", Address::Unix("/run/a.sock".into())),
            ("unix:///run/a.sock", Address::Unix("/run/a.sock".into())),
            ("/run/a.sock", Address::Unix("/run/a.sock".into())),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        assert!("web-0".parse::<Address>().unwrap_err().contains("unix:"));
    }
}
