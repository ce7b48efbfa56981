//! WebSocket messages and their echoes.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, header};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, handshake};

use super::http as plain;
use super::{Extras, Failure, Outcome, Target};

/// The class of failure of a call whose server has closed the connection because it ends.
const GONE_AWAY: &str = "gone_away";

pub(super) struct Client {
    target: Target,
    extras: Extras,
    socket: Option<WebSocketStream<TcpStream>>,
    sent: u64,
}

impl Client {
    pub(super) fn new(target: Target, extras: Extras) -> Self {
        Self { target, extras, socket: None, sent: 0 }
    }

    pub(super) async fn call(&mut self) -> Outcome {
        let kept = self.socket.is_some();
        let mut outcome = self.echo().await;
        // As any WebSocket client: a connection whose server has gone away meanwhile is replaced.
        if kept && outcome.failure.as_ref().is_some_and(|failure| failure.class == GONE_AWAY) {
            self.socket = None;
            outcome = self.echo().await;
        }
        if outcome.failure.is_some() {
            self.socket = None;
        }
        outcome
    }

    pub(super) fn forget(&mut self) {
        self.socket = None;
    }

    async fn echo(&mut self) -> Outcome {
        let socket = match &mut self.socket {
            Some(socket) => socket,
            empty => match open(&self.target, &self.extras).await {
                Ok(socket) => empty.insert(socket),
                Err(outcome) => return outcome,
            },
        };
        self.sent += 1;
        let text = format!("message {}", self.sent);
        if let Err(error) = socket.send(Message::text(text.clone())).await {
            return Outcome::failed("WebSocket", failure(&error));
        }
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(json))) => {
                    let answer: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
                    // Greetings and events for everyone come in between.
                    if answer["kind"] != "echo" || answer["text"] != text {
                        continue;
                    }
                    let headers = [("x-replica", "replica"), ("x-version", "version")]
                        .into_iter()
                        .filter_map(|(name, field)| Some((name.to_owned(), answer[field].as_str()?.to_owned())))
                        .collect();
                    let body = Bytes::from(json.to_string());
                    return Outcome { status: Some(101), protocol: "WebSocket", headers, body, ..Outcome::default() };
                }
                Some(Ok(Message::Close(frame))) => {
                    // 1001: the server is going down (RFC 6455 §7.4.1).
                    let gone_away = frame.as_ref().is_some_and(|frame| frame.code == CloseCode::Away);
                    let class = if gone_away { GONE_AWAY } else { "closed" };
                    let reason = frame.map(|frame| format!("{}: {}", frame.code, frame.reason)).unwrap_or_default();
                    return Outcome::failed("WebSocket", Failure::new(class, format!("closed by the server {reason}")));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Outcome::failed("WebSocket", failure(&error)),
                None => {
                    return Outcome::failed("WebSocket", Failure::new("closed", "the connection ended"));
                }
            }
        }
    }
}

async fn open(target: &Target, extras: &Extras) -> Result<WebSocketStream<TcpStream>, Outcome> {
    let failed = |failure| Outcome::failed("WebSocket", failure);
    let stream = TcpStream::connect(target.address()).await.map_err(|error| failed(Failure::from_error(&error)))?;
    let _ = stream.set_nodelay(true);
    let mut request = Request::new(());
    let mut uri = target.uri.clone().into_parts();
    uri.scheme = "ws".parse().ok();
    // Only the scheme changed, and it is a valid one.
    *request.uri_mut() = http::Uri::from_parts(uri).unwrap_or_else(|_| target.uri.clone());
    let host = target.uri.authority().map(ToString::to_string).unwrap_or_default();
    let headers = request.headers_mut();
    headers.extend(extras.headers.iter().cloned().map(|(name, value)| (Some(name), value)));
    if let Ok(host) = HeaderValue::from_str(&host) {
        headers.insert(header::HOST, host);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    if let Ok(key) = HeaderValue::from_str(&handshake::client::generate_key()) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
    match tokio_tungstenite::client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(Outcome {
            status: Some(response.status().as_u16()),
            protocol: "WebSocket",
            headers: plain::list(response.headers()),
            failure: Some(
                plain::refusal(response.status(), response.body().as_deref().unwrap_or_default())
                    .unwrap_or_else(|| Failure::new(format!("http_{}", response.status().as_u16()), "no upgrade")),
            ),
            ..Outcome::default()
        }),
        Err(error) => Err(failed(failure(&error))),
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Io(error) => Failure::from_error(error),
        Error::ConnectionClosed | Error::AlreadyClosed => Failure::new("closed", error.to_string()),
        Error::Protocol(_) if error.to_string().contains("without closing") => {
            Failure::new("closed", error.to_string())
        }
        _ => Failure::from_error(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_async;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;

    use super::*;

    /// A client of a server whose connections answer so many messages each, and then say that the server goes away.
    async fn client(answers: &'static [usize]) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("ws://{}/ws", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            for count in answers {
                let (stream, _) = listener.accept().await.unwrap();
                let mut socket = accept_async(stream).await.unwrap();
                for _ in 0..*count {
                    let Some(Ok(Message::Text(text))) = socket.next().await else { return };
                    let echo = json!({ "kind": "echo", "text": text.as_str() });
                    socket.send(Message::text(echo.to_string())).await.unwrap();
                }
                let frame = CloseFrame { code: CloseCode::Away, reason: "ending".into() };
                socket.close(Some(frame)).await.unwrap();
                // Until the client has closed too.
                while let Some(Ok(_)) = socket.next().await {}
            }
        });
        Client::new(target, Extras::default())
    }

    #[tokio::test]
    async fn a_kept_connection_whose_server_has_gone_away_is_replaced() {
        let mut client = client(&[1, 1]).await;
        for _ in 0..2 {
            let failure = client.call().await.failure;
            assert!(failure.is_none(), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_goes_away_under_a_new_connection_has_failed() {
        let failure = client(&[0]).await.call().await.failure.unwrap();
        assert_eq!(failure.class, GONE_AWAY, "{}", failure.message);
    }
}
