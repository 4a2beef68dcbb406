//! The other hosts as they are known here.

use std::collections::BTreeMap;
use std::time::Instant;

/// What is known of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// When it was last heard, as of the last change; the start of the tally if it never was. Beats of one that says that it hears fewer
    /// than half of the members don't count.
    pub last_heard: Instant,
    /// Whether it is silent.
    pub silent: bool,
    /// Which of its lives it is in: a number that changes with every start. Nothing until it is heard.
    pub incarnation: Option<u64>,
}

/// All other hosts by name, as of the last change of anybody's silence or incarnation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(pub BTreeMap<String, Liveness>);

impl Hosts {
    /// Whether a host is silent. This host itself, and one that nobody knows, is not.
    pub fn is_silent(&self, name: &str) -> bool {
        // There may be nodes that never beat (of other programs): silence is what is known, not what is missing.
        self.0.get(name).is_some_and(|host| host.silent)
    }

    /// The silent hosts, each with the time when it was last heard.
    pub fn silence(&self) -> BTreeMap<String, Instant> {
        let silent = self.0.iter().filter(|(_, host)| host.silent);
        silent.map(|(name, host)| (name.clone(), host.last_heard)).collect()
    }
}
