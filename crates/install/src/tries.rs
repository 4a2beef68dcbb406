//! How often a token's secret may be guessed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// This many wrong secrets of one token within that time, and the token is refused, whoever shows it. By guessing 82 bits so nobody comes
/// anywhere; a person who copies a token wrongly notices after two or three.
const MOST: usize = 10;
const WITHIN: Duration = Duration::from_secs(10 * 60);

/// Wrong secrets of late, by the id of their token. Only tokens that there are count, so it stays small.
#[derive(Debug, Default)]
pub struct Tries(BTreeMap<String, Vec<Instant>>);

impl Tries {
    /// How long a token isn't looked at any more; none where it is.
    pub fn refused_for(&mut self, id: &str, now: Instant) -> Option<Duration> {
        self.0.retain(|_, tries| {
            tries.retain(|at| now.saturating_duration_since(*at) < WITHIN);
            !tries.is_empty()
        });
        let tries = self.0.get(id).filter(|tries| tries.len() >= MOST)?;
        let oldest = tries.first()?;
        Some(WITHIN.saturating_sub(now.saturating_duration_since(*oldest)))
    }

    /// A wrong secret came for a token that there is.
    pub fn wrong(&mut self, id: &str, now: Instant) {
        self.0.entry(id.to_owned()).or_default().push(now);
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // Some instant to count from.
mod tests {
    use super::*;

    #[test]
    fn too_many_wrong_secrets_close_the_door_for_a_while() {
        let (mut tries, start) = (Tries::default(), Instant::now());
        for n in 0..MOST as u64 {
            let now = start + Duration::from_secs(n);
            assert_eq!(tries.refused_for("abcdef", now), None, "{n}");
            tries.wrong("abcdef", now);
        }
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(tries.refused_for("abcdef", after(10)), Some(Duration::from_secs(590)));
        assert_eq!(tries.refused_for("others", after(10)), None);
        assert_eq!(tries.refused_for("abcdef", after(600)), None, "the oldest is forgotten");
        assert_eq!(tries.refused_for("abcdef", after(3600)), None);
        assert!(tries.0.is_empty(), "nothing is left of them");
    }
}
