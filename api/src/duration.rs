//! Durations as the Gateway API writes them (GEP-2257).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// A duration in the format of Gateway API GEP-2257: one to four pairs of a number of one to five digits and
/// a unit out of `h`, `m`, `s`, `ms`, such as `10s`, `1h30m` or `250ms`. `0s` usually means "no limit".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(pub std::time::Duration);

/// Why a text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write up to four numbers with units h, m, s or ms, such as 10s, 1h30m or 250ms")]
pub struct InvalidDuration(pub String);

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidDuration(text.to_owned());
        let mut rest = text;
        let mut millis: u64 = 0;
        let mut pairs = 0;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            if !(1..=5).contains(&digits) || pairs == 4 {
                return Err(invalid());
            }
            let number: u64 = number.parse().map_err(|_| invalid())?;
            let (unit, tail) = if let Some(tail) = tail.strip_prefix("ms") {
                (1, tail)
            } else if let Some(tail) = tail.strip_prefix('h') {
                (3_600_000, tail)
            } else if let Some(tail) = tail.strip_prefix('m') {
                (60_000, tail)
            } else if let Some(tail) = tail.strip_prefix('s') {
                (1_000, tail)
            } else {
                return Err(invalid());
            };
            // At most 4 × 99,999 h: far from overflowing u64 milliseconds.
            millis += number * unit;
            rest = tail;
            pairs += 1;
        }
        if pairs == 0 {
            return Err(invalid());
        }
        Ok(Self(std::time::Duration::from_millis(millis)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if millis >= unit {
                write!(f, "{}{name}", millis / unit)?;
                millis %= unit;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Duration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "maxLength": 32, "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_gep_2257_takes() {
        for (text, millis) in
            [("0s", 0), ("1h", 3_600_000), ("1h10m30s20ms", 4_230_020), ("10s5s", 15_000), ("99999ms", 99_999)]
        {
            assert_eq!(text.parse::<Duration>().map(|d| d.0.as_millis()), Ok(millis), "{text}");
        }
        for text in ["", "1", "s", "1.5s", "-1s", "1s ", "1d", "100000s", "1s1s1s1s1s", "1us"] {
            assert!(text.parse::<Duration>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn writes_what_it_reads() {
        for text in ["0s", "1h10m30s20ms", "250ms", "1m"] {
            assert_eq!(text.parse::<Duration>().unwrap().to_string(), text);
        }
    }
}
