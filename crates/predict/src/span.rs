//! Times that chance decides about.

use std::ops::Add;

use serde::{Serialize, Serializer};

/// What doesn't come to an end by itself.
pub(crate) const NEVER: u64 = u64::MAX;

/// A length of time: the shortest, the typical and the longest that it can be, in milliseconds; null for what doesn't end by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Where every chance is for us.
    #[serde(serialize_with = "or_null")]
    pub min_ms: u64,
    /// Where chance is in the middle.
    #[serde(serialize_with = "or_null")]
    pub typical_ms: u64,
    /// Where every chance is against us.
    #[serde(serialize_with = "or_null")]
    pub max_ms: u64,
}

fn or_null<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    Some(*ms).filter(|ms| *ms != NEVER).serialize(serializer)
}

impl Span {
    /// A time that chance has no part in.
    pub(crate) fn fixed(ms: u64) -> Self {
        Span::new(ms, ms, ms)
    }

    pub(crate) fn new(min_ms: u64, typical_ms: u64, max_ms: u64) -> Self {
        let typical_ms = typical_ms.max(min_ms);
        Span { min_ms, typical_ms, max_ms: max_ms.max(typical_ms) }
    }

    /// The later of two things that go on at the same time.
    pub(crate) fn later(self, other: Span) -> Span {
        Span {
            min_ms: self.min_ms.max(other.min_ms),
            typical_ms: self.typical_ms.max(other.typical_ms),
            max_ms: self.max_ms.max(other.max_ms),
        }
    }
}

impl Add for Span {
    type Output = Span;

    fn add(self, other: Span) -> Span {
        Span {
            min_ms: self.min_ms.saturating_add(other.min_ms),
            typical_ms: self.typical_ms.saturating_add(other.typical_ms),
            max_ms: self.max_ms.saturating_add(other.max_ms),
        }
    }
}

/// A length of time, short, as a drill writes it: `412 ms`, `1.62 s`, `12.3 s`.
pub(crate) fn time(ms: u64) -> String {
    match ms {
        NEVER => "never".into(),
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{:.2} s", ms as f64 / 1000.0),
        10_000..600_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{:.1} min", ms as f64 / 60_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_at_once_ends_with_the_later_and_what_follows_adds_up() {
        let (one, other) = (Span::new(1, 5, 9), Span::new(2, 3, 30));
        assert_eq!(one.later(other), Span::new(2, 5, 30));
        assert_eq!(one + other, Span::new(3, 8, 39));
        assert_eq!(Span::fixed(u64::MAX) + one, Span::fixed(u64::MAX));
        assert_eq!(Span::new(5, 1, 0), Span::fixed(5), "never upside down");
    }

    #[test]
    fn times() {
        for (ms, text) in
            [(0, "0 ms"), (1624, "1.62 s"), (12_345, "12.3 s"), (720_000, "12.0 min"), (NEVER, "never")]
        {
            assert_eq!(time(ms), text);
        }
    }
}
