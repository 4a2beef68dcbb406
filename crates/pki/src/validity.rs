//! When certificates are valid, and when they are made anew.

use std::time::{Duration, SystemTime};

use crate::identity::certificates;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks of hosts differ: what is made now is valid for those who are a little behind, too.
const BEHIND: Duration = Duration::from_secs(60 * 60);

/// When a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From this time on.
    pub from: SystemTime,
    /// Up to this time.
    pub until: SystemTime,
}

impl Validity {
    /// How long a host's certificates last, which it renews by itself: short enough that renewal is something that happens all the time;
    /// long enough that a month is left to see that it fails.
    pub const OF_HOSTS: Duration = DAY.saturating_mul(90);
    /// How long that of the administrator's kubeconfig lasts, of which people make copies that nobody renews.
    pub const OF_ADMIN: Duration = DAY.saturating_mul(365);

    /// For a time from now on, and from an hour ago, for clocks that are behind.
    pub fn lasting(now: SystemTime, life: Duration) -> Self {
        let from = now.checked_sub(BEHIND).unwrap_or(SystemTime::UNIX_EPOCH);
        Validity { from, until: now.checked_add(life).unwrap_or(now) }
    }

    /// Some years from now, as [`lasting`](Self::lasting).
    pub fn years(now: SystemTime, years: u32) -> Self {
        Validity::lasting(now, DAY * 365 * years)
    }

    /// That of the first certificate in a PEM text; nothing if there is none.
    pub fn of_certificate(pem: &str) -> Option<Self> {
        let certificate = certificates("the certificate", pem).ok()?.into_iter().next()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        let time = |timestamp: i64| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(timestamp).ok()?))
        };
        let validity = certificate.validity();
        Some(Validity {
            from: time(validity.not_before.timestamp())?,
            until: time(validity.not_after.timestamp())?,
        })
    }

    /// When a certificate is renewed whose next one lasts for `life`: at two thirds of that, or of its own life where that is shorter. One
    /// that was made to last for many years is so renewed like the others. `early`, drawn by chance, takes up to a tenth
    /// off: hosts that were installed together don't all do it at once.
    pub fn renewed_at(self, life: Duration, early: u8) -> SystemTime {
        let own = self.until.duration_since(self.from).unwrap_or_default();
        let lasts = life.min(own.saturating_sub(BEHIND));
        let after = lasts * 2 / 3 - lasts / 10 * u32::from(early) / 256;
        let due = self.from.checked_add(BEHIND + after).unwrap_or(self.until);
        due.min(self.until)
    }

    /// Whether it is time to renew. By a clock that is before its `authority` was made, which is certainly wrong, it never is: what is
    /// made then would be over for everybody else. One that was made by a clock ahead of time, and isn't valid yet, is renewed at once.
    pub fn is_due(self, authority: Validity, life: Duration, early: u8, now: SystemTime) -> bool {
        now >= authority.from && (now < self.from || now >= self.renewed_at(life, early))
    }
}

/// Until when a certificate in PEM is valid; nothing if it is none.
pub fn valid_until(pem: &str) -> Option<SystemTime> {
    Validity::of_certificate(pem).map(|validity| validity.until)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * (20_000 + days)
    }

    #[test]
    fn what_lasts_is_renewed_at_two_thirds_and_what_was_made_for_years_like_it() {
        let life = Validity::OF_HOSTS;
        let made = Validity::lasting(at(0), life);
        assert_eq!(made.renewed_at(life, 0), at(60));
        let early = made.renewed_at(life, u8::MAX);
        assert!(at(51) < early && early < at(52));
        assert_eq!(Validity::years(at(0), 10).renewed_at(life, 0), at(60));
        // The authority's own end cuts it short.
        assert_eq!(Validity { until: at(9), ..made }.renewed_at(life, 0), at(6));
        let odd = Validity { from: at(3), until: at(2) };
        assert_eq!(odd.renewed_at(life, u8::MAX), at(2), "what makes no sense is over");
    }

    #[test]
    fn a_wrong_clock_renews_nothing_and_what_it_made_is_mended() {
        let (life, authority) = (Validity::OF_HOSTS, Validity::years(at(0), 10));
        let made = Validity::lasting(at(100), life);
        let due = |validity: Validity, now| validity.is_due(authority, life, 0, now);
        assert!(!due(made, at(100)) && !due(made, at(159)) && due(made, at(160)) && due(made, at(1000)));
        assert!(due(made, at(90)), "it was made by a clock ahead of time");
        assert!(!due(made, SystemTime::UNIX_EPOCH) && !due(made, at(0) - DAY), "nobody would believe it");
    }
}
