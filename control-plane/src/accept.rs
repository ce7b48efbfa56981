//! Connections of a listener, until the process stops.

use std::error::Error;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A client that has not finished its handshake by then is dropped.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);

/// After a failed accept (no file descriptors, say) the next one would fail too.
const PAUSE: Duration = Duration::from_millis(100);

/// How a connection ended; why is told only to who looks for it.
pub(crate) type Ended = Result<(), Box<dyn Error + Send + Sync>>;

/// Accepts until told to stop, and gives open connections `drain` to end after it. `connection` is the life of one; `whose` begins what is
/// logged.
pub(crate) async fn serve<F>(
    whose: &'static str,
    listener: TcpListener,
    stop: CancellationToken,
    drain: Duration,
    connection: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = Ended> + Send + 'static,
{
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                let connection = connection(socket);
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%address, "{whose}: connection: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("{whose}: accepting a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!("{whose}: some connections did not end within {drain:?}");
    }
}
