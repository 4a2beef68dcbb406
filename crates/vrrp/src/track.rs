//! What scripts and links say about a host, and what priority that leaves it (keepalived.conf(5): `vrrp_script`, `track_script`,
//! `track_interface`).

use crate::state::OWNER;

/// How far a weight goes either way.
pub const HEAVIEST: i16 = 253;

/// The verdict on something that is checked again and again.
///
/// Unlike keepalived's, one that hasn't been checked yet has not passed: a host that was just started takes nothing over before
/// it is known to be well. The first check decides at once, whatever `rise` and `fall` are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    rise: u32,
    fall: u32,
    /// None until the first check; then whether it passes, and how many checks in a row have said the contrary.
    known: Option<(bool, u32)>,
}

impl Verdict {
    /// Not known yet. It passes after `rise` checks in a row that did, and no longer after `fall` that didn't.
    pub fn new(rise: u32, fall: u32) -> Self {
        Verdict { rise, fall, known: None }
    }

    /// Takes the outcome of a check.
    pub fn count(&mut self, passed: bool) {
        self.known = Some(match self.known {
            None => (passed, 0),
            Some((passes, _)) if passes == passed => (passes, 0),
            Some((passes, against)) => {
                let needed = if passed { self.rise } else { self.fall };
                if against + 1 >= needed { (passed, 0) } else { (passes, against + 1) }
            }
        });
    }

    /// Whether it passes; none before the first check.
    pub fn passes(&self) -> Option<bool> {
        self.known.map(|(passes, _)| passes)
    }
}

/// Whether a host may take part in a virtual router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fitness {
    /// That isn't known yet.
    Unknown,
    /// It may not: something without a weight doesn't pass.
    Unfit,
    /// It may, with this priority.
    Fit(u8),
}

/// What a host's priority comes to, from that which it was given and what is tracked: weights, and whether each passes.
///
/// Without a weight (0), what fails makes the host unfit. A positive weight is added while its subject passes, a negative one while
/// it doesn't. An owner keeps its priority, and no other reaches the owner's or 0.
pub fn fitness(priority: u8, tracked: impl IntoIterator<Item = (i16, Option<bool>)>) -> Fitness {
    let mut sum = i32::from(priority);
    let mut unknown = false;
    for (weight, passes) in tracked {
        match (weight, passes) {
            (0, Some(false)) => return Fitness::Unfit,
            (0, None) => unknown = true,
            (1.., Some(true)) | (..0, Some(false) | None) => sum += i32::from(weight),
            _ => {}
        }
    }
    match u8::try_from(sum.clamp(1, i32::from(OWNER) - 1)) {
        _ if unknown => Fitness::Unknown,
        Ok(sum) if priority != OWNER => Fitness::Fit(sum),
        _ => Fitness::Fit(priority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(rise: u32, fall: u32, checks: &str) -> String {
        let mut verdict = Verdict::new(rise, fall);
        assert_eq!(verdict.passes(), None);
        let mut told = |check| {
            verdict.count(check == '+');
            if verdict.passes().unwrap() { '+' } else { '-' }
        };
        checks.chars().map(&mut told).collect()
    }

    #[test]
    fn a_verdict_changes_after_rise_or_fall_checks_in_a_row() {
        assert_eq!(verdicts(1, 1, "+-+-"), "+-+-");
        assert_eq!(verdicts(3, 2, "+-+--+-++-+++--"), "++++--------++-");
        assert_eq!(verdicts(2, 3, "-+-++---"), "----+++-");
    }

    #[test]
    fn weights_and_faults_are_keepalived_s() {
        use Fitness::{Fit, Unfit, Unknown};
        let (up, down) = (Some(true), Some(false));
        assert_eq!(fitness(100, []), Fit(100));
        assert_eq!(fitness(100, [(0, up), (20, up), (-30, up)]), Fit(120));
        assert_eq!(fitness(100, [(0, up), (20, down), (-30, down)]), Fit(70));
        assert_eq!(fitness(100, [(0, up), (20, None), (-30, None)]), Fit(70));
        assert_eq!(fitness(100, [(20, up), (0, down), (0, None)]), Unfit);
        assert_eq!(fitness(100, [(20, up), (0, None)]), Unknown);
        assert_eq!(fitness(100, [(HEAVIEST, up)]), Fit(254));
        assert_eq!(fitness(100, [(-HEAVIEST, down)]), Fit(1));
        assert_eq!(fitness(OWNER, [(-50, down)]), Fit(OWNER));
        assert_eq!(fitness(OWNER, [(0, down)]), Unfit);
    }
}
