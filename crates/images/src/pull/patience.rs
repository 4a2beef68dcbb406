//! How often and how long one tries again: a decision without a clock.

use std::time::Duration;

/// How long a registry may take, and how often it is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until there is a connection, TLS included.
    pub connect: Duration,
    /// Until an answer begins; and between its pieces.
    pub answer: Duration,
    /// How often the same is asked without anything having come.
    pub attempts: u32,
    /// What is waited before the second time; doubled for each further one.
    pub pause: Duration,
    /// What a registry may ask to wait. Who wants more is asked again by the next pull.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            // As Go's and containerd's dialer: 30 s for a connection is what a lossy line takes.
            connect: Duration::from_secs(30),
            answer: Duration::from_secs(30),
            attempts: 5,
            pause: Duration::from_millis(500),
            longest: Duration::from_secs(30),
        }
    }
}

impl Patience {
    /// What to wait before the next attempt, of which `made` were in vain; nothing if that was the last. `asked` is the answer's
    /// `Retry-After`.
    pub(super) fn pause(&self, made: u32, asked: Option<Duration>) -> Option<Duration> {
        if made >= self.attempts || asked.is_some_and(|asked| asked > self.longest) {
            return None;
        }
        let doubled = self.pause.saturating_mul(1 << made.saturating_sub(1).min(16));
        Some(asked.unwrap_or_default().max(doubled.min(self.longest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_obey_the_registry() {
        let patience = Patience::default();
        let pauses: Vec<_> = (1..=5).map(|made| patience.pause(made, None)).collect();
        let millis = |ms| Some(Duration::from_millis(ms));
        assert_eq!(pauses, [millis(500), millis(1000), millis(2000), millis(4000), None]);
        assert_eq!(patience.pause(1, millis(7000)), millis(7000));
        assert_eq!(patience.pause(2, millis(1)), millis(1000), "not sooner than by ourselves");
        assert_eq!(patience.pause(1, millis(31_000)), None);
        let endless = Patience { attempts: u32::MAX, ..patience };
        assert_eq!(endless.pause(u32::MAX - 1, None), Some(patience.longest));
    }
}
