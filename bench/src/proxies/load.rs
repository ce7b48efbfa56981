//! Load over HTTP/1.1: at a fixed rate, whatever the answers do, and as much as goes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::answer::Answer;

/// As a program's HTTP library sends it.
const REQUEST: &[u8] = b"GET /orders?page=1 HTTP/1.1\r\nhost: shop.test\r\nuser-agent: weft-bench/1\r\naccept: */*\r\n\
    accept-encoding: gzip, deflate\r\nx-tenant: one\r\n\r\n";
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends requests at a rate, evenly over connections, and returns each one's latency.
///
/// The moments of sending are fixed beforehand (an open loop): a request that has to wait for the answer before it on its connection has waited
/// since its moment. One that this thread was late for, because it had not been woken, counts from when it was sent.
pub(super) fn at_rate(entry: SocketAddr, connections: usize, rate: f64, duration: Duration) -> Result<Vec<Duration>> {
    let streams = (0..connections).map(|_| connect(entry)).collect::<Result<Vec<_>>>()?;
    let interval = Duration::from_secs_f64(connections as f64 / rate);
    let start = Instant::now() + Duration::from_millis(20);
    thread::scope(|scope| {
        let threads: Vec<_> = streams
            .into_iter()
            .enumerate()
            .map(|(index, stream)| {
                let first = start + interval.mul_f64(index as f64 / connections as f64);
                scope.spawn(move || in_time(stream, first, interval, start + duration))
            })
            .collect();
        let mut latencies = Vec::new();
        for thread in threads {
            latencies.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))??);
        }
        Ok(latencies)
    })
}

fn in_time(mut stream: TcpStream, first: Instant, interval: Duration, end: Instant) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut answer = Answer::default();
    let mut due = first;
    while due < end {
        let ahead = due.saturating_duration_since(Instant::now());
        let mut since = due;
        if !ahead.is_zero() {
            thread::sleep(ahead);
            since = Instant::now();
        }
        stream.write_all(REQUEST)?;
        while !answer.is_whole()? {
            let read = stream.read(answer.room()).context("waiting for an answer")?;
            answer.received(read)?;
        }
        latencies.push(since.elapsed());
        due += interval;
    }
    Ok(latencies)
}

/// Keeps a request under way on every connection, and returns how many were answered.
pub(super) fn saturating(entry: SocketAddr, connections: usize, duration: Duration) -> Result<u64> {
    let streams = (0..connections).map(|_| connect(entry)).collect::<Result<Vec<_>>>()?;
    // One thread: what this program takes of the machine should be little beside what it measures.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let end = Instant::now() + duration;
        let tasks: Vec<_> = streams
            .into_iter()
            .map(|stream| {
                stream.set_nonblocking(true)?;
                Ok(tokio::spawn(without_pause(tokio::net::TcpStream::from_std(stream)?, end)))
            })
            .collect::<io::Result<_>>()?;
        let mut answered = 0;
        for task in tasks {
            let task = tokio::time::timeout(duration + PATIENCE, task).await;
            answered += task.context("an answer did not come")???;
        }
        Ok(answered)
    })
}

async fn without_pause(mut stream: tokio::net::TcpStream, end: Instant) -> Result<u64> {
    let mut answer = Answer::default();
    let mut answered = 0;
    while Instant::now() < end {
        stream.write_all(REQUEST).await?;
        while !answer.is_whole()? {
            let read = stream.read(answer.room()).await?;
            answer.received(read)?;
        }
        answered += 1;
    }
    Ok(answered)
}

/// Asks once; an error tells why there is no good answer.
pub(super) fn once(entry: SocketAddr) -> Result<()> {
    let mut stream = connect(entry)?;
    stream.write_all(REQUEST)?;
    let mut answer = Answer::default();
    while !answer.is_whole()? {
        let read = stream.read(answer.room())?;
        answer.received(read)?;
    }
    Ok(())
}

fn connect(entry: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(entry).with_context(|| format!("connecting to {entry}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    if stream.local_addr()? == stream.peer_addr()? {
        bail!("nobody listens on {entry}");
    }
    Ok(stream)
}
