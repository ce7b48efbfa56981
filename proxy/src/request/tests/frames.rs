//! HTTP/2 frames by hand (RFC 9113 §6), for peers that no library would be.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `GET http://a/`, in indexed and literal fields (RFC 7541 §6).
pub(super) const GET: &[u8] = &[0x82, 0x84, 0x86, 0x41, 0x01, b'a'];

/// `:status: 200`.
pub(super) const OK: &[u8] = &[0x88];

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A request without a body.
pub(super) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

/// The `n`th stream of a client.
pub(super) fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// Reads one frame: type, flags, stream and payload. `None` at the end of the connection.
pub(super) async fn read_frame(io: &mut DuplexStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    io.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    io.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// A server that has read the preface and said its settings.
pub(super) async fn open_server(io: &mut DuplexStream) {
    let mut preface = [0; 24];
    io.read_exact(&mut preface).await.unwrap();
    assert_eq!(preface, PREFACE);
    io.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
}

/// Lets everything that can happen now happen.
pub(super) async fn settle() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
