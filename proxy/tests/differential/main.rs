//! Our verdict on request heads beside hyper's and nginx's.
//!
//! A seeded generator makes heads, valid ones and ones with the mutations that smuggling lives on
//! ([`generate`]). Each goes to our decoder, to hyper's HTTP/1 server and to a real nginx: is it taken, how is its body
//! delimited, and does the next request on the connection begin where we think it does? Every kind of
//! difference is listed in [`differences`] with its reason. The test fails on a difference that is not
//! listed, and on a listed one that no longer occurs.

mod differences;
mod generate;
mod hyper_peer;
mod nginx_peer;
mod ours;

use std::collections::BTreeMap;
use std::fmt;

use weft_proxy::http::Framing;

use differences::{Difference, HYPER, NGINX, NGINX_VERSION};
use ours::Exchange;

/// Heads per run: the more, the rarer the combinations that are seen.
const HEADS: u64 = 120_000;

/// Examples shown of each difference that is not listed.
const EXAMPLES: usize = 12;

/// Of `HEADS` heads, this many share a thread.
const THREADS: u64 = 4;

/// What a server makes of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Taken, with the body delimited so. An empty body is `None` however it is announced.
    Accept(Framing),
    /// Taken, but the request after it was not found where ours ends.
    Desynchronised,
    /// Refused with this status.
    Refuse(u16),
    /// The head's end was not found.
    Incomplete,
}

impl Verdict {
    /// Whether two servers understand the same. Which status a refusal has does not matter.
    fn agrees(self, other: Self) -> bool {
        matches!((self, other), (Self::Refuse(_), Self::Refuse(_))) || self == other
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept(_) => write!(f, "accept"),
            Self::Desynchronised => write!(f, "desynchronised"),
            Self::Refuse(status) => write!(f, "{status}"),
            Self::Incomplete => write!(f, "incomplete"),
        }
    }
}

#[test]
fn hyper_differs_only_as_listed() {
    let found = compare_all(HYPER, || hyper_peer::verdict);
    let report = found.unlisted_report() + &found.absent_report(HYPER);
    assert!(report.is_empty(), "{report}");
}

#[test]
fn nginx_differs_only_as_listed() {
    let nginx = match nginx_peer::Nginx::start() {
        Ok(nginx) => nginx,
        Err(reason) => {
            eprintln!("skipped: no nginx to compare with: {reason}");
            return;
        }
    };
    let mut found = compare_all(NGINX, || |exchange: &Exchange| nginx.verdict(exchange));
    let report = if nginx.version.starts_with(NGINX_VERSION) {
        found.unlisted_report() + &found.absent_report(NGINX)
    } else {
        // Another nginx may refuse more or less than the table's. It may not read what we take in another way.
        println!("{} is not the {NGINX_VERSION} of the table:\n{}", nginx.version, found.unlisted_report());
        found.unlisted.retain(|_, unlisted| unlisted.read_otherwise);
        found.unlisted_report()
    };
    assert!(report.is_empty(), "{report}");
}

/// Differences by their place in the table, or by their text if they have none.
#[derive(Default)]
struct Found {
    heads: u64,
    accepted: u64,
    listed: BTreeMap<usize, u64>,
    unlisted: BTreeMap<String, Unlisted>,
}

#[derive(Default)]
struct Unlisted {
    count: u64,
    /// Both take it, and do not understand the same: what smuggling needs.
    read_otherwise: bool,
    /// The shortest.
    examples: Vec<String>,
}

/// Compares all heads with what `peer` makes a verdict of, a peer for each thread.
fn compare_all<P>(table: &[Difference], peer: impl Fn() -> P + Sync) -> Found
where
    P: FnMut(&Exchange) -> Verdict,
{
    let found = std::thread::scope(|scope| {
        let peer = &peer;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || compare(table, thread, peer()))).collect();
        let mut all = Found::default();
        for thread in threads {
            all.merge(thread.join().expect("a comparing thread"));
        }
        all
    });
    assert_eq!(found.heads, HEADS);
    let share = found.accepted as f64 / found.heads as f64;
    assert!(
        (0.2..0.8).contains(&share),
        "the generator should make valid and invalid heads, but {share} were accepted"
    );
    for (at, count) in &found.listed {
        println!("{count:>6} {}", table[*at]);
    }
    found
}

fn compare(table: &[Difference], thread: u64, mut peer: impl FnMut(&Exchange) -> Verdict) -> Found {
    let mut found = Found::default();
    for index in (thread..HEADS).step_by(THREADS as usize) {
        let head = generate::head(index);
        let exchange = ours::decide(head);
        let theirs = peer(&exchange);
        found.heads += 1;
        found.accepted += u64::from(matches!(exchange.verdict, Verdict::Accept(_)));
        if exchange.verdict.agrees(theirs) {
            continue;
        }
        match table.iter().position(|d| d.covers(&exchange, theirs)) {
            Some(at) => *found.listed.entry(at).or_default() += 1,
            None => {
                let kind = format!("we: {}, they: {theirs}", exchange.reason());
                let read_otherwise = matches!(exchange.verdict, Verdict::Accept(_))
                    && matches!(theirs, Verdict::Accept(_) | Verdict::Desynchronised);
                let examples = vec![exchange.head.escape_ascii().to_string()];
                found.unlisted.entry(kind).or_default().merge(Unlisted { count: 1, read_otherwise, examples });
            }
        }
    }
    found
}

impl Found {
    fn merge(&mut self, other: Self) {
        self.heads += other.heads;
        self.accepted += other.accepted;
        for (at, count) in other.listed {
            *self.listed.entry(at).or_default() += count;
        }
        for (kind, unlisted) in other.unlisted {
            self.unlisted.entry(kind).or_default().merge(unlisted);
        }
    }

    fn unlisted_report(&self) -> String {
        self.unlisted
            .iter()
            .map(|(kind, unlisted)| {
                format!("not listed: {kind} ({} times), e.g.\n  {}\n", unlisted.count, unlisted.examples.join("\n  "))
            })
            .collect()
    }

    /// A table that lists what no longer happens says something untrue.
    fn absent_report(&self, table: &[Difference]) -> String {
        table
            .iter()
            .enumerate()
            .filter(|(at, _)| !self.listed.contains_key(at))
            .map(|(_, difference)| format!("listed, but did not occur: {difference}\n"))
            .collect()
    }
}

impl Unlisted {
    fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.read_otherwise |= other.read_otherwise;
        self.examples.extend(other.examples);
        self.examples.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        self.examples.dedup();
        self.examples.truncate(EXAMPLES);
    }
}
