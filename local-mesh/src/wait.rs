//! Waiting for something that is observed, never for time alone.

use std::time::{Duration, Instant};

use crate::Error;

/// How often conditions are looked at.
const POLL: Duration = Duration::from_millis(10);

/// Looks at `condition` until it yields a value.
///
/// # Errors
/// [`Error::Waited`] after `limit`, with `what` and why the last look failed, if it did; at once an [`Error::Ended`] or
/// [`Error::Refused`] of the condition, which will not come true any more.
pub async fn until<T>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let deadline = Instant::now() + limit;
    loop {
        let last = match condition().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error @ (Error::Ended { .. } | Error::Refused { .. })) => return Err(error),
            Err(error) => Some(Box::new(error)),
        };
        if Instant::now() >= deadline {
            return Err(Error::Waited { what: what.to_owned(), limit, last });
        }
        tokio::time::sleep(POLL).await;
    }
}
