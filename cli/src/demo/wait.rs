//! Waiting for something that is observed, never for time alone.

use std::time::{Duration, Instant};

use anyhow::bail;

/// How often conditions are looked at.
const POLL: Duration = Duration::from_millis(50);

/// Polls `condition` until it yields a value; fails after `limit`, naming `what` and the last error.
pub(crate) async fn until<T, F>(limit: Duration, what: &str, mut condition: impl FnMut() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let last = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            match last {
                Some(error) => return Err(error.context(format!("waited {limit:?} for {what}"))),
                None => bail!("waited {limit:?} for {what}"),
            }
        }
        tokio::time::sleep(POLL).await;
    }
}
