//! `/events`: the upgrade is asked of the notifications service, and the two connections are joined.

use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{DEADLINE, Shop};
use crate::server::{self, Body};

/// Headers of the handshake (RFC 6455 §4) that mean something to the far end.
const HANDSHAKE: [header::HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
];

pub(super) async fn events(mut request: Request<Incoming>, shop: &Shop) -> Response<Body> {
    let ours = hyper::upgrade::on(&mut request);
    let asked = tokio::time::timeout(DEADLINE, ask(&request, &shop.backends.notifications)).await;
    let mut answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return server::text(StatusCode::BAD_GATEWAY, format!("no notifications: {error:#}\n"));
        }
        Err(_) => {
            return server::text(StatusCode::GATEWAY_TIMEOUT, "the notifications do not answer\n");
        }
    };
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let theirs = hyper::upgrade::on(&mut answer);
        let shutdown = shop.shutdown.clone();
        shop.tasks.spawn(async move {
            let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) else {
                return;
            };
            let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
            tokio::select! {
                // Either end closing is how every such relay ends.
                _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs) => {}
                () = shutdown.cancelled() => {}
            }
        });
    }
    answer.map(|body| body.map_err(Into::into).boxed_unsync())
}

/// Sends the handshake on a connection of its own, which the upgrade takes over.
async fn ask(request: &Request<Incoming>, notifications: &Uri) -> anyhow::Result<Response<Incoming>> {
    let host = notifications.host().unwrap_or_default();
    let authority = notifications.authority().map(ToString::to_string).unwrap_or_default();
    let stream = TcpStream::connect((host, notifications.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let mut handshake = Request::new(Empty::<Bytes>::new());
    *handshake.uri_mut() = Uri::from_static("/ws");
    let headers = handshake.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_str(&authority)?);
    for name in HANDSHAKE {
        for value in request.headers().get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    Ok(sender.send_request(handshake).await?)
}
