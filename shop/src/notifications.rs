//! Live notifications: a WebSocket server over HTTP/1.1.
//!
//! `GET /ws` upgrades; the server greets, echoes every text message with who answered, and relays what is
//! posted to `/publish` to everyone.

use std::process::ExitCode;

use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

use crate::server::{self, Args, Body, Instance, Protocol};

/// Longest event that may be posted, in bytes.
const MAX_EVENT: usize = 64 * 1024;

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (instance, listener) = server::start("notifications", 8080, &args).await?;
    let events = broadcast::channel(256).0;
    let shared = instance.clone();
    server::serve(listener, instance, Protocol::Http1, move |request| respond(request, shared.clone(), events.clone()))
        .await
}

async fn respond(request: Request<Incoming>, instance: Instance, events: broadcast::Sender<String>) -> Response<Body> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/ws") => upgrade(request, &instance, events),
        (&Method::POST, "/publish") => {
            let body = match Limited::new(request.into_body(), MAX_EVENT).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) => {
                    return server::text(StatusCode::PAYLOAD_TOO_LARGE, format!("cannot read the event: {error}\n"));
                }
            };
            let listeners = events.send(String::from_utf8_lossy(&body).into_owned()).unwrap_or(0);
            server::json(StatusCode::OK, &json!({ "marker": instance.identity.marker, "listeners": listeners }))
        }
        (_, path) => server::not_found(path),
    }
}

fn upgrade(mut request: Request<Incoming>, instance: &Instance, events: broadcast::Sender<String>) -> Response<Body> {
    let asks =
        request.headers().get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let accept = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = accept.and_then(|key| HeaderValue::from_str(&key).ok()).filter(|_| asks) else {
        return server::text(StatusCode::BAD_REQUEST, "/ws speaks WebSocket only (RFC 6455)\n");
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let shared = instance.clone();
    instance.tasks.spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            // A browser tab that closes is no error.
            let _ = converse(socket, shared, events.subscribe()).await;
        }
    });
    let mut response = Response::new(server::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    response
}

type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

async fn converse(
    mut socket: Socket,
    instance: Instance,
    mut events: broadcast::Receiver<String>,
) -> Result<(), tokio_tungstenite::tungstenite::Error> {
    let identity = instance.identity.clone();
    let say = |kind: &str, text: &str| {
        let message = json!({
            "kind": kind,
            "text": text,
            "replica": identity.replica,
            "version": identity.version,
            "marker": identity.marker,
        });
        Message::text(message.to_string())
    };
    socket.send(say("hello", "connected")).await?;
    loop {
        tokio::select! {
            () = instance.shutdown.cancelled() => {
                // 1001: the server goes away (RFC 6455 §7.4.1).
                let frame = CloseFrame { code: CloseCode::Away, reason: "this replica is shutting down".into() };
                return socket.close(Some(frame)).await;
            }
            event = events.recv() => match event {
                Ok(event) => socket.send(say("event", &event)).await?,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    socket.send(say("missed", &missed.to_string())).await?;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            message = socket.next() => match message {
                None => return Ok(()),
                Some(Ok(Message::Text(text))) => socket.send(say("echo", &text)).await?,
                // Pings are answered and closes are echoed by the library, on the next poll.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
        }
    }
}
