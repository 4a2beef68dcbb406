//! Which of others' servers is asked, and in which order. Without I/O.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// For how long a server that failed once comes after the others; doubled each time, up to [`LONGEST_REST`].
const REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(10);

/// The servers that other names are asked of.
#[derive(Debug, Default)]
pub(super) struct Servers(Vec<Server>);

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// How often it failed since it last answered.
    failures: u32,
    rests_until: Option<Instant>,
}

impl Servers {
    /// From now on these are the servers, in the order in which they are asked. What is known of those that stay is kept.
    pub fn set(&mut self, addresses: &[SocketAddr]) {
        let mut former = std::mem::take(&mut self.0);
        for address in addresses {
            let known = former.iter().position(|server| server.address == *address);
            let new = || Server { address: *address, failures: 0, rests_until: None };
            self.0.push(known.map_or_else(new, |at| former.swap_remove(at)));
        }
    }

    /// All of them: first those that answer, as they were given, then those that failed of late, the longest ago first.
    pub fn order(&self, now: Instant) -> Vec<SocketAddr> {
        let rest = |server: &&Server| server.rests_until.filter(|until| *until > now);
        let mut servers: Vec<&Server> = self.0.iter().collect();
        servers.sort_by_key(rest);
        servers.iter().map(|server| server.address).collect()
    }

    /// A server answered.
    pub fn answered(&mut self, address: SocketAddr) {
        if let Some(server) = self.find(address) {
            (server.failures, server.rests_until) = (0, None);
        }
    }

    /// A server didn't answer, or said that it can't.
    pub fn failed(&mut self, address: SocketAddr, now: Instant) {
        if let Some(server) = self.find(address) {
            let rest = REST * 2_u32.saturating_pow(server.failures.min(10));
            server.failures += 1;
            server.rests_until = Some(now + rest.min(LONGEST_REST));
        }
    }

    fn find(&mut self, address: SocketAddr) -> Option<&mut Server> {
        self.0.iter_mut().find(|server| server.address == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // Some moment; nothing depends on which.
    fn a_server_that_fails_comes_last_for_a_while() {
        let [a, b, c] = [1, 2, 3].map(|last| SocketAddr::from(([192, 0, 2, last], 53)));
        let now = Instant::now();
        let mut servers = Servers::default();
        servers.set(&[a, b, c]);
        assert_eq!(servers.order(now), [a, b, c]);
        servers.failed(a, now);
        assert_eq!(servers.order(now), [b, c, a]);
        assert_eq!(servers.order(now + REST), [a, b, c], "it has another chance");
        servers.failed(a, now);
        servers.failed(b, now);
        assert_eq!(servers.order(now), [c, b, a], "who failed twice rests longer");
        assert_eq!(servers.order(now + REST), [b, c, a]);
        servers.answered(a);
        assert_eq!(servers.order(now), [a, c, b]);
        (0..100).for_each(|_| servers.failed(c, now));
        assert_eq!(servers.order(now + LONGEST_REST), [a, b, c]);
        servers.set(&[c, b]);
        assert_eq!(servers.order(now), [b, c], "what is known of them stays");
    }
}
