//! One try at one endpoint: from a connection to the response's head.

use super::failure::Failure;
use super::life::Context;
use super::reply::Reply;
use super::timeout::Clock;
use crate::http::{Fields, Framing, RequestHead, ResponseHead, convert};
use crate::http1::{BodyDecoder, BodyEncoder, Limits, ParsedResponse, ResponseTo, encode_request};
use crate::stream::body::{Body, Http1Body, Http2Body, Replay};
use crate::stream::pump::{Pump, PumpError};
use crate::stream::sink::{Sink, WriteError};
use crate::upstream::pool::{Http1Connection, Http2Connection, Lease, Target};
use crate::upstream::{InFlight, Outcome};
use bytes::Bytes;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// One try at one endpoint.
pub struct Attempt<'a> {
    /// The request's surroundings.
    pub cx: &'a Context<'a>,
    /// Where to.
    pub target: &'a Target,
    /// The head to send.
    pub request: &'a RequestHead,
    /// How its body is delimited.
    pub framing: Framing,
    /// When this attempt is over, and when the whole request is.
    pub clock: &'a Clock,
    /// Whether it is a CONNECT that ends here, so that the endpoint gets its bytes alone.
    pub ends_connect: bool,
}

impl Attempt<'_> {
    /// Sends the request and waits for the response's head, which it leaves in `response`.
    ///
    /// # Errors
    /// When there is no final head: why, and what may be done about it.
    pub async fn run(
        &self,
        body: &mut Replay<'_>,
        response: &mut ResponseHead,
        reply: &mut Reply<'_>,
    ) -> Result<Answered, Failure> {
        let sending = pin!(self.send(body, response, reply));
        self.clock.race_attempt(sending).await.unwrap_or_else(|over| Err(Failure::of_clock(over, self.clock)))
    }

    async fn send(
        &self,
        body: &mut Replay<'_>,
        response: &mut ResponseHead,
        reply: &mut Reply<'_>,
    ) -> Result<Answered, Failure> {
        if self.ends_connect {
            return self.connect(response).await;
        }
        // What the connection before this one may have brought to the application, if there was one.
        let mut resent_after: Option<bool> = None;
        loop {
            let fresh = resent_after.is_some();
            let lease = match self.target.lease(self.cx.worker, self.cx.downstream, self.request, fresh).await {
                Ok(lease) => lease,
                Err(error) if resent_after == Some(true) => {
                    return Err(Failure::Reset { request_sent: true, reused: false, reason: error.to_string() });
                }
                Err(error) => return Err(error.into()),
            };
            let outcome = match lease {
                Lease::Http1(connection) => self.send_http1(connection, body, response, reply).await,
                Lease::Http2(connection) => self.send_http2(connection, body, response, reply).await,
            };
            match outcome {
                Err(failure) if !fresh && failure.may_be_resent(self.request.method()) && body.rewind() => {
                    resent_after = Some(!failure.is_undelivered());
                }
                outcome => return outcome,
            }
        }
    }

    /// Opens the connection that a CONNECT asks for, and says so in the endpoint's place (RFC 9110 §9.3.6).
    async fn connect(&self, response: &mut ResponseHead) -> Result<Answered, Failure> {
        let connection = Box::pin(self.target.tunnel(self.cx.worker, self.cx.downstream)).await?;
        response.clear();
        response.set_status(200);
        let parsed =
            ParsedResponse { consumed: 0, framing: Framing::None, keep_alive: false, interim: false, tunnel: true };
        Ok(Answered {
            authenticated: connection.authenticated,
            request_sent: false,
            _in_flight: None,
            upstream: Upstream::Http1 { connection, parsed, encoder: None, reusable: false, trailers: false },
        })
    }

    /// Moves the request's body on, and lets the clock know.
    fn pump(
        &self,
        pump: &mut Pump,
        cx: &mut std::task::Context<'_>,
        body: &mut Replay<'_>,
        sink: &mut Sink<'_>,
    ) -> Poll<Result<(), PumpError>> {
        let moved = pump.moved();
        let pumped = pump.poll(cx, body, sink);
        if pump.moved() != moved {
            self.clock.moved();
        }
        if matches!(pumped, Poll::Ready(Ok(()))) {
            self.clock.request_complete();
        }
        pumped
    }

    async fn send_http1(
        &self,
        mut connection: Box<Http1Connection>,
        body: &mut Replay<'_>,
        response: &mut ResponseHead,
        reply: &mut Reply<'_>,
    ) -> Result<Answered, Failure> {
        let reused = connection.reused;
        let mark = connection.wire.mark();
        let trailers = self.target.cluster().config().enable_trailers;
        encode_request(self.request, self.framing, connection.wire.writer().buffer());
        let (mut reader, writer) = connection.wire.split();
        let mut sink = Sink::Http1 { writer, encoder: BodyEncoder::new(self.framing).with_trailers(trailers) };
        let mut pump = Pump::default();
        let mut broken: Option<WriteError> = None;
        let mut has_response_begun = false;
        let to = ResponseTo::request(self.request, self.request.fields.contains("upgrade"));
        let parsed = poll_fn(|cx| {
            if !pump.is_done() && broken.is_none() {
                match self.pump(&mut pump, cx, body, &mut sink) {
                    Poll::Ready(Err(PumpError::Read(_))) => return Poll::Ready(Err(Failure::DownstreamGone)),
                    // It may have answered before it stopped reading: its answer decides.
                    Poll::Ready(Err(PumpError::Write(error))) => broken = Some(error),
                    Poll::Ready(Ok(())) | Poll::Pending => {}
                }
            }
            loop {
                match connection.decoder.decode(reader.bytes(), to, response) {
                    Ok(Some(parsed)) => {
                        reader.consume(parsed.consumed);
                        if parsed.interim {
                            has_response_begun = true;
                            reply.interim(response);
                            continue;
                        }
                        return Poll::Ready(Ok(parsed));
                    }
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Err(Failure::Malformed(error.to_string()))),
                }
                match reader.poll_fill(cx) {
                    Poll::Ready(Ok(true)) => {}
                    Poll::Ready(end) => {
                        has_response_begun |= !reader.bytes().is_empty();
                        let reason = match (end, &broken) {
                            (Err(error), _) => error.to_string(),
                            (Ok(_), Some(error)) => error.to_string(),
                            (Ok(_), None) => "the connection was closed before a response".to_owned(),
                        };
                        return Poll::Ready(Err(Failure::Reset { request_sent: true, reused, reason }));
                    }
                    Poll::Pending => break,
                }
            }
            if reply.poll_flush(cx).is_err()
                || reply.poll_gone(cx)
                || pump.is_done() && body.inner().poll_closed(cx).is_ready()
            {
                return Poll::Ready(Err(Failure::DownstreamGone));
            }
            Poll::Pending
        })
        .await;
        let Sink::Http1 { encoder, .. } = sink else {
            return Err(Failure::Malformed("an HTTP/1.1 sink changed its kind".to_owned()));
        };
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(Failure::Reset { reason, .. }) => {
                let request_sent = has_response_begun || connection.wire.was_taken_since(mark).await;
                return Err(Failure::Reset { request_sent, reused, reason });
            }
            Err(failure) => return Err(failure),
        };
        let request_sent = pump.is_done();
        Ok(Answered {
            authenticated: connection.authenticated,
            request_sent,
            _in_flight: None,
            upstream: Upstream::Http1 { connection, parsed, encoder: Some(encoder), reusable: false, trailers },
        })
    }

    async fn send_http2(
        &self,
        mut connection: Http2Connection,
        body: &mut Replay<'_>,
        response: &mut ResponseHead,
        reply: &mut Reply<'_>,
    ) -> Result<Answered, Failure> {
        let asks_for_upgrade = self.request.fields.contains("upgrade");
        let may_upgrade = asks_for_upgrade && connection.allows_upgrade().await;
        let message = convert::request_to_h2(self.request, may_upgrade)
            .map_err(|error| Failure::Unconvertible(error.to_string()))?;
        let upgrade = message.extensions().get::<h2::ext::Protocol>().is_some();
        let opens_tunnel = upgrade || self.request.is_connect();
        let ends = self.framing.is_empty() && !opens_tunnel;
        poll_fn(|cx| connection.send.poll_ready(cx)).await.map_err(|error| Failure::of_h2(&error, false))?;
        let (mut answer, stream) =
            connection.send.send_request(message, ends).map_err(|error| Failure::of_h2(&error, false))?;
        let mut sink = if ends { Sink::Closed } else { Sink::Http2(stream) };
        // A tunnel's bytes wait until it is open.
        let mut pump = Pump::resumed(ends || opens_tunnel);
        let received = poll_fn(|cx| {
            if !pump.is_done() {
                match self.pump(&mut pump, cx, body, &mut sink) {
                    Poll::Ready(Err(PumpError::Read(_))) => return Poll::Ready(Err(Failure::DownstreamGone)),
                    // The answer, or the lack of one, says why it stopped reading.
                    Poll::Ready(_) | Poll::Pending => {}
                }
            }
            if let Poll::Ready(received) = std::pin::Pin::new(&mut answer).poll(cx) {
                return Poll::Ready(received.map_err(|error| Failure::of_h2(&error, true)));
            }
            if reply.poll_gone(cx) || pump.is_done() && body.inner().poll_closed(cx).is_ready() {
                return Poll::Ready(Err(Failure::DownstreamGone));
            }
            Poll::Pending
        })
        .await;
        let received = match received {
            Ok(received) => received,
            Err(failure) => {
                sink.abort(h2::Reason::CANCEL);
                return Err(failure);
            }
        };
        let (parts, stream) = received.into_parts();
        convert::response_from_h2(&parts, upgrade.then_some(self.request), response);
        Ok(Answered {
            authenticated: connection.authenticated,
            request_sent: pump.is_done(),
            _in_flight: None,
            upstream: Upstream::Http2 {
                _connection: connection,
                ended: stream.is_end_stream(),
                stream: Some(stream),
                send: match sink {
                    Sink::Http2(send) => Some(send),
                    _ => None,
                },
            },
        })
    }
}

fn number(value: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(value?).ok()?.trim().parse().ok()
}

/// A response whose head is there, and the exchange that goes on under it.
pub struct Answered {
    authenticated: bool,
    request_sent: bool,
    upstream: Upstream,
    /// Counts the exchange as the endpoint's until it is over.
    _in_flight: Option<InFlight>,
}

enum Upstream {
    Http1 {
        connection: Box<Http1Connection>,
        parsed: ParsedResponse,
        encoder: Option<BodyEncoder>,
        reusable: bool,
        /// Whether the endpoint's trailers are handed on.
        trailers: bool,
    },
    Http2 {
        _connection: Http2Connection,
        stream: Option<h2::RecvStream>,
        ended: bool,
        send: Option<h2::SendStream<Bytes>>,
    },
}

impl Answered {
    /// Counts the exchange as the endpoint's until it is over.
    pub fn holding(self, in_flight: Option<InFlight>) -> Self {
        Self { _in_flight: in_flight, ..self }
    }

    /// Whether the peer proved who it is.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether the request's body went out to its end.
    pub fn request_sent(&self) -> bool {
        self.request_sent
    }

    /// What the response says about the endpoint; with gRPC the trailers may be needed to tell.
    pub fn outcome(response: &ResponseHead, trailers: Option<&Fields>) -> Outcome {
        let number = |name: &str| number(response.fields.get(name));
        let push_back = number("grpc-retry-pushback-ms").map(Duration::from_millis);
        let in_trailers = || self::number(trailers?.get("grpc-status"));
        Outcome::Response {
            status: response.status(),
            grpc_status: number("grpc-status").or_else(in_trailers).and_then(|status| u32::try_from(status).ok()),
            retry_after: push_back.or_else(|| number("retry-after").map(Duration::from_secs)),
        }
    }

    /// Whether only the trailers will say how it went.
    pub fn is_decided_by_trailers(response: &ResponseHead) -> bool {
        let is_grpc = response.fields.get("content-type").is_some_and(|value| value.starts_with(b"application/grpc"));
        is_grpc && response.status() == 200 && !response.fields.contains("grpc-status")
    }

    /// How the response's body is delimited.
    pub fn framing(&self, response: &ResponseHead) -> Framing {
        match &self.upstream {
            Upstream::Http1 { parsed, .. } => parsed.framing,
            Upstream::Http2 { ended: true, .. } => Framing::None,
            // A length that is none is left to the client's side to refuse: it frames by itself.
            Upstream::Http2 { ended: false, .. } => {
                convert::framing_from_h2(&response.fields, false).unwrap_or(Framing::Chunked)
            }
        }
    }

    /// The response's body, and where the rest of the request's goes.
    pub fn streams(&mut self, is_tunnel: bool) -> (Body<'_>, Sink<'_>) {
        match &mut self.upstream {
            Upstream::Http1 { connection, parsed, encoder, trailers, .. } => {
                let (reader, writer) = connection.wire.split();
                let framing = if is_tunnel { Framing::UntilClose } else { parsed.framing };
                let source = Http1Body::new(reader, BodyDecoder::new(framing, Limits::default()));
                let source = Body::Http1(source.with_trailers(*trailers));
                let sink = match (encoder.take(), is_tunnel) {
                    (_, true) => Sink::Http1 { writer, encoder: BodyEncoder::new(Framing::UntilClose) },
                    (Some(encoder), false) => Sink::Http1 { writer, encoder },
                    (None, false) => Sink::Closed,
                };
                (source, sink)
            }
            Upstream::Http2 { stream, send, .. } => (
                stream.take().map_or(Body::Empty, |stream| Body::Http2(Http2Body::new(stream))),
                send.take().map_or(Sink::Closed, Sink::Http2),
            ),
        }
    }

    /// Both messages went through whole: the connection may serve another.
    pub fn completed(&mut self) {
        if let Upstream::Http1 { parsed, reusable, .. } = &mut self.upstream {
            *reusable = parsed.keep_alive && !matches!(parsed.framing, Framing::UntilClose);
        }
    }

    /// Returns the connection to its pool, if it can serve another request.
    pub fn give_back(self, cx: &Context<'_>) {
        if let Upstream::Http1 { connection, reusable: true, .. } = self.upstream
            && !cx.downstream.leads_to_leaving(cx.worker)
        {
            cx.worker.pools.give_back(connection);
        }
    }
}
