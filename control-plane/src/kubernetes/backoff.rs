//! How long a watch that failed waits for its next attempt: longer and longer, but never so long that the end of an outage goes
//! unnoticed for long. (kube's own grows to 30 seconds.)

use std::time::Duration;

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);

/// The pauses of one watch.
pub(crate) fn backoff() -> impl Backoff {
    Pauses { next: FIRST }
}

struct Pauses {
    next: Duration,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST);
        // Watches that failed together need not come back together.
        Some(pause.mul_f64(rand::random_range(0.75..1.0)))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds_and_begin_anew_after_a_success() {
        let mut pauses = Pauses { next: FIRST };
        let seen: Vec<_> = pauses.by_ref().take(20).collect();
        assert!(seen[0] <= FIRST && seen[19] > LONGEST / 2 && seen.iter().all(|pause| *pause <= LONGEST), "{seen:?}");
        pauses.reset();
        assert!(pauses.next().is_some_and(|pause| pause <= FIRST));
    }
}
