//! When hosts were last heard, and for how long no majority of them was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::Hosts;

/// When each host was last heard.
#[derive(Debug, Clone, Default)]
pub struct LastHeard(Arc<Mutex<BTreeMap<String, Instant>>>);

impl LastHeard {
    /// When a host's last beat came; nothing if none has come yet.
    pub fn of(&self, host: &str) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).copied()
    }

    pub(crate) fn keep_only(&self, hosts: &Hosts) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|host, _| hosts.0.contains_key(host));
    }

    pub(crate) fn note(&self, host: &str, at: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get_mut(host) {
            Some(known) => *known = at,
            None => drop(known.insert(host.to_owned(), at)),
        }
    }
}

/// For how long a host has heard no majority of the members.
#[derive(Debug, Clone)]
pub struct Solitude {
    pub(crate) own: String,
    pub(crate) members: watch::Receiver<Arc<BTreeSet<String>>>,
    pub(crate) last_heard: LastHeard,
}

impl Solitude {
    /// Since the last time at which it had just heard one, itself counted: no time where it is one by itself, for ever where it never has.
    #[allow(clippy::disallowed_methods)] // The driver: whoever asks has no clock.
    pub fn lasts(&self) -> Duration {
        self.lasted_at(Instant::now())
    }

    fn lasted_at(&self, now: Instant) -> Duration {
        let members = self.members.borrow();
        let others = members.iter().filter(|member| **member != self.own);
        let mut unheard: Vec<Duration> = others
            .map(|other| {
                self.last_heard.of(other).map_or(Duration::MAX, |at| now.saturating_duration_since(at))
            })
            .collect();
        unheard.sort_unstable();
        let own = members.len() - unheard.len();
        let needed = (members.len() / 2 + 1).saturating_sub(own);
        match needed.checked_sub(1) {
            Some(last) => unheard.get(last).copied().unwrap_or_default(),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a time to count from")]
    fn a_host_is_alone_for_as_long_as_it_has_heard_no_majority() {
        let now = Instant::now() + Duration::from_secs(60);
        let ms = Duration::from_millis;
        let of = |members: &[&str], heard: &[(&str, u64)]| {
            let members = members.iter().map(|name| (*name).to_owned()).collect();
            let last_heard = LastHeard::default();
            heard.iter().for_each(|(host, before)| last_heard.note(host, now - ms(*before)));
            let members = watch::channel(Arc::new(members)).1;
            Solitude { own: "n1".into(), members, last_heard }.lasted_at(now)
        };
        assert_eq!(of(&["n1"], &[]), Duration::ZERO);
        assert_eq!(of(&[], &[]), Duration::ZERO, "nobody says who the members are");
        assert_eq!(of(&["n1", "n2"], &[("n2", 30)]), ms(30));
        assert_eq!(of(&["n1", "n2", "n3"], &[("n2", 300), ("n3", 20)]), ms(20));
        assert_eq!(of(&["n1", "n2", "n3"], &[("n2", 300)]), ms(300));
        assert_eq!(of(&["n1", "n2", "n3"], &[("n4", 5)]), Duration::MAX);
        assert_eq!(of(&["n1", "n2", "n3", "n4"], &[("n2", 10), ("n3", 20)]), ms(20));
        assert_eq!(of(&["n2", "n3", "n4"], &[("n2", 10), ("n3", 20)]), ms(20), "it is no member itself");
    }
}
