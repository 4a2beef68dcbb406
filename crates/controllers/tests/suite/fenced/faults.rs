//! What happens to hosts and to links.

use super::{HOSTS, World};

impl World {
    /// Something goes wrong, or right again.
    pub(super) fn disturb(&mut self) {
        let (host, other) = (self.dice.below(HOSTS.len()), self.dice.below(HOSTS.len()));
        match self.dice.below(10) {
            0 => drop(self.cut.insert((host, other))),
            1 => self.cut.extend([(host, other), (other, host)]),
            // An island, or one that hears nobody, or that nobody hears.
            2 => self.cut.extend((0..HOSTS.len()).flat_map(|to| [(host, to), (to, host)])),
            3 => self.cut.extend((0..HOSTS.len()).map(|from| (from, host))),
            4 => self.cut.extend((0..HOSTS.len()).map(|to| (host, to))),
            5 | 6 => self.cut.clear(),
            7 => self.hosts[host].paused_until = self.now + self.chance(5_000),
            // The agent ends, and is started again; what it runs goes on.
            8 if self.hosts[host].agent.is_some() => self.hosts[host].agent = None,
            8 => self.start(host),
            // A power cut.
            _ => {
                self.hosts[host].agent = None;
                self.hosts[host].running.clear();
            }
        }
        self.cut.retain(|(from, to)| from != to);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
        for host in 0..HOSTS.len() {
            self.hosts[host].paused_until = 0;
            if self.hosts[host].agent.is_none() {
                self.start(host);
            }
        }
    }
}
