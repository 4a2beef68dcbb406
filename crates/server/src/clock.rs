//! Where the server meets what it can't know by itself: the time, and chance.

use std::fmt;
use std::time::Instant;

use jiff::Timestamp;
use objects::rfc3339;
use rand::Rng;

/// The clock and the source of randomness of a server. Whatever it stamps, generates or draws comes from here, so that a
/// simulation with a seed can drive it.
pub trait Edge: fmt::Debug + Send + Sync + 'static {
    /// The time. Objects have it in whole seconds.
    fn now(&self) -> Timestamp;

    /// A moment, for how long things take: by the clock of the runtime, by which timers run too.
    fn instant(&self) -> Instant;

    /// Any number.
    fn random(&self) -> u64;
}

/// The clock and the randomness of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEdge;

#[allow(clippy::disallowed_methods, reason = "the driver's edge")]
impl Edge for SystemEdge {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn instant(&self) -> Instant {
        // A test may hold this clock.
        tokio::time::Instant::now().into_std()
    }

    fn random(&self) -> u64 {
        rand::rng().random()
    }
}

impl dyn Edge + '_ {
    /// The time as objects have it, in whole seconds.
    pub(crate) fn second(&self) -> Timestamp {
        let now = self.now();
        Timestamp::from_second(now.as_second()).unwrap_or(now)
    }

    /// The same as the API writes it.
    pub(crate) fn time(&self) -> String {
        rfc3339(self.now())
    }

    /// A new uid (RFC 9562, version 4).
    pub(crate) fn uid(&self) -> String {
        let bits = u128::from(self.random()) << 64 | u128::from(self.random());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid().to_string()
    }

    /// A number below `bound` (0 for 0).
    pub(crate) fn below(&self, bound: u32) -> u32 {
        let high = self.random() >> 32;
        u32::try_from((high * u64::from(bound)) >> 32).unwrap_or_default()
    }

    /// A name that begins with `base`, with letters and digits by chance.
    pub(crate) fn name(&self, base: &str) -> String {
        machinery::generate_name(base, || u32::try_from(self.random() >> 32).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_drawn_is_below_its_bound_and_reaches_all_of_it() {
        let edge: &dyn Edge = &SystemEdge;
        assert_eq!((edge.below(0), edge.below(1)), (0, 0));
        let drawn: BTreeSet<u32> = (0..1000).map(|_| edge.below(7)).collect();
        assert_eq!(drawn, (0..7).collect());
        let uid = edge.uid();
        assert!(uid.len() == 36 && uid.as_bytes()[14] == b'4', "{uid}");
    }
}
