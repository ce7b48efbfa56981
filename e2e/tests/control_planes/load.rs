//! Requests to the proxy, one after the other on connections of their own.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use weft_local_mesh::wait;
use weft_sandbox::Pod;
use weft_sandbox::testing::Failure;

use super::LIMIT;
use super::control_plane::BASE_PORT;

/// Asks a listener of the configuration once; returns which application answered.
pub(crate) fn ask(listener: u16) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address(listener))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: application.test\r\n\r\n")?;
    let mut answer = Vec::new();
    // Until five bytes have come after the head: through TCP listeners, nobody would end the connection.
    loop {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let port = text.split_once("\r\n\r\n").and_then(|(_, body)| body.parse().ok());
        match port {
            Some(port) if text.starts_with("HTTP/1.1 200 ") => return Ok(port),
            Some(_) => return Err(io::Error::other(text)),
            None if read == 0 => return Err(io::Error::other(format!("ended after `{text}`"))),
            None => {}
        }
    }
}

/// Whether nobody listens there.
pub(crate) fn is_closed(listener: u16) -> bool {
    TcpStream::connect(address(listener)).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn address(listener: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, BASE_PORT + listener).into()
}

/// Asks listeners in turn until it is stopped.
pub(crate) struct Load {
    asked: Arc<AtomicU64>,
    stopping: Arc<AtomicBool>,
    failures: JoinHandle<Result<Vec<String>, weft_sandbox::Error>>,
}

impl Load {
    /// Of the first so many listeners.
    pub(crate) fn start(pod: &Pod, listeners: u16) -> Self {
        let (asked, stopping) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, until, pod) = (asked.clone(), stopping.clone(), pod.clone());
        let failures = tokio::spawn(async move {
            pod.run(move || {
                let mut failures = Vec::new();
                for listener in (0..listeners).cycle() {
                    if until.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Err(error) = ask(listener) {
                        failures.push(format!("listener {listener}: {error}"));
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
            .await
        });
        Self { asked, stopping, failures }
    }

    /// Waits until every listener was asked a few times more.
    pub(crate) async fn has_gone_on(&self) -> Result<(), Failure> {
        let goal = self.asked.load(Ordering::Relaxed) + 40;
        let reached = async || Ok((self.asked.load(Ordering::Relaxed) >= goal).then_some(()));
        Ok(wait::until(LIMIT, "the load goes on", reached).await?)
    }

    /// What failed.
    pub(crate) async fn stop(self) -> Result<Vec<String>, Failure> {
        self.stopping.store(true, Ordering::Relaxed);
        Ok(self.failures.await??)
    }
}
