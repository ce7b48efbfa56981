//! The order queue: an opaque line protocol on TCP in which the **server speaks first**, as SMTP, MySQL and
//! NATS do. A proxy that waits for the client's first bytes before it connects would wait for ever.
//!
//! ```text
//! S: INFO {"marker":…,"replica":…,"version":…}
//! C: PUB {"sku":"tea"}          S: +OK 17                 17 orders taken so far
//! C: LIST 10                    S: +ITEMS 2, then two lines, newest first
//! C: PING                       S: +PONG
//! C: QUIT                       S: +BYE, and the server closes
//! ```
//! Lines end with CR LF. The client may also just close its side; what it had sent is still answered.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::admin::{self, Fault};
use crate::server::{self, Args, Instance};

/// Longest line a client may send, in bytes.
const MAX_LINE: u64 = 64 * 1024;
/// Orders remembered for LIST.
const KEPT: usize = 200;

#[derive(Default)]
struct Orders {
    taken: u64,
    newest_first: VecDeque<String>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (instance, listener) = server::start("queue", 4222, &args).await?;
    let orders = Arc::new(Mutex::new(Orders::default()));
    server::accept_loop(listener, instance, move |stream, _, instance| {
        let orders = orders.clone();
        async move {
            // A client that goes away is its own affair.
            let _ = converse(stream, &instance, &orders).await;
        }
    })
    .await
}

async fn converse(mut stream: TcpStream, instance: &Instance, orders: &Mutex<Orders>) -> std::io::Result<()> {
    let identity = &instance.identity;
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let greeting = serde_json::json!({
        "marker": identity.marker,
        "replica": identity.replica,
        "version": identity.version,
    });
    if suffers(instance).await {
        return Ok(());
    }
    write.write_all(format!("INFO {greeting}\r\n").as_bytes()).await?;
    let mut line = String::new();
    loop {
        line.clear();
        let mut limited = (&mut read).take(MAX_LINE);
        tokio::select! {
            // Between two commands is the only place where leaving loses nothing.
            () = instance.shutdown.cancelled() => return write.shutdown().await,
            read = limited.read_line(&mut line) => if read? == 0 {
                return write.shutdown().await;
            }
        }
        if !line.ends_with('\n') {
            return write.write_all(b"-ERR the line is longer than 65536 bytes, or incomplete\r\n").await;
        }
        if suffers(instance).await {
            return Ok(());
        }
        let (command, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        let answer = match command {
            "PUB" => publish(orders, rest),
            "LIST" => list(orders, rest.parse().unwrap_or(10)),
            "PING" => "+PONG\r\n".to_owned(),
            "QUIT" => {
                write.write_all(b"+BYE\r\n").await?;
                return write.shutdown().await;
            }
            other => format!("-ERR unknown command {other:?}: PUB, LIST, PING or QUIT\r\n"),
        };
        write.write_all(answer.as_bytes()).await?;
    }
}

/// Lets the failure in force happen; true if the connection is to be dropped.
async fn suffers(instance: &Instance) -> bool {
    match instance.faults.next() {
        None => false,
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time.min(Duration::from_secs(60))).await;
            false
        }
        Some(Fault::Crash) => admin::crash(),
        Some(Fault::Reset | Fault::Error(_)) => true,
    }
}

fn publish(orders: &Mutex<Orders>, order: &str) -> String {
    let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    orders.taken += 1;
    orders.newest_first.push_front(order.to_owned());
    orders.newest_first.truncate(KEPT);
    format!("+OK {}\r\n", orders.taken)
}

fn list(orders: &Mutex<Orders>, count: usize) -> String {
    let orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    let shown = orders.newest_first.len().min(count);
    let mut answer = format!("+ITEMS {shown}\r\n");
    for order in orders.newest_first.iter().take(shown) {
        answer.push_str(order);
        answer.push_str("\r\n");
    }
    answer
}
