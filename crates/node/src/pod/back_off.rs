//! How long a container that ends again and again waits, as the kubelet has it: the first restart is
//! immediate, then 10 s, doubling to 5 min, and all is forgiven after a run of 10 min.

use std::time::Duration;

/// The kubelet's `initialCrashLoopBackOff` and `MaxContainerBackOff`.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// Twice the longest wait, as client-go's `flowcontrol.Backoff` has it (`hasExpired`).
const FORGIVEN: Duration = Duration::from_secs(600);

/// How long to wait after a life that lasted `ran`, when the last wait set `due`; and what to wait after
/// the next life.
pub(crate) fn after(due: Duration, ran: Duration) -> (Duration, Duration) {
    let wait = if ran >= FORGIVEN { Duration::ZERO } else { due };
    let next = if wait.is_zero() { FIRST } else { (wait * 2).min(LONGEST) };
    (wait, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes_and_are_forgiven() {
        let mut due = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let (wait, next) = after(due, Duration::from_secs(1));
            waits.push(wait.as_secs());
            due = next;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(after(due, Duration::from_secs(600)), (Duration::ZERO, FIRST));
    }
}
