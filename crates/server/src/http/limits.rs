//! What clients may use up of a process.

use std::time::Duration;

/// The part of a process's files that the API's connections may be: the service proxy, which takes two for a connection,
/// gets as much, and the store, the agent and their pipes the rest.
const PART_OF_FILES: u64 = 3;
/// The most connections, however many files there may be: a connection also costs some 20 KB of memory.
const MOST_CONNECTIONS: usize = 16_384;
/// The part of the connections that may be strangers'.
const PART_FOR_STRANGERS: usize = 4;
/// The part of the strangers' connections that may come from one address.
const PART_FOR_A_PEER: usize = 8;

/// What clients may use up.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at the same time, of all listeners together; more wait.
    pub connections: usize,
    /// How many of them may be strangers': of clients that haven't shown yet who they are. One more ends the oldest of them,
    /// so a stranger that makes haste gets in whatever the others do.
    pub strangers: usize,
    /// How many of these may come from one address.
    pub strangers_a_peer: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a request's headers may take, and a connection's first request.
    pub headers: Duration,
    /// How long a connection may stay without a request after one that was answered: with HTTP/1.1, as long as upstream's
    /// stay (`IdleTimeout` in apiserver's `pkg/server/secure_serving.go`). With HTTP/2 it is asked whether it is there.
    pub idle: Duration,
    /// How large a request's headers may be, in bytes.
    pub header_bytes: usize,
    /// How many requests run at the same time, over all priority levels but the exempt one; more wait or are
    /// refused, as their level says (upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`
    /// together).
    pub seats: u32,
    /// How many bytes of answers and of watches' events may wait to be read by clients. Where it is too much, those who have
    /// read nothing for longest are cut off.
    pub unread_bytes: usize,
    /// How long a client may read nothing of what waits for it until its connection ends; a fifteenth of it where room is short.
    pub unread_for: Duration,
}

impl Limits {
    /// The limits of a process that may have this many files open.
    pub fn of_files(files: u64) -> Self {
        let share = usize::try_from(files / PART_OF_FILES).unwrap_or(usize::MAX);
        let connections = share.clamp(PART_FOR_STRANGERS * PART_FOR_A_PEER, MOST_CONNECTIONS);
        let strangers = connections / PART_FOR_STRANGERS;
        Limits {
            connections,
            strangers,
            strangers_a_peer: strangers / PART_FOR_A_PEER,
            handshake: Duration::from_secs(5),
            headers: Duration::from_secs(10),
            idle: Duration::from_secs(90),
            header_bytes: 1 << 20,
            seats: 600,
            unread_bytes: 256 << 20,
            unread_for: Duration::from_secs(30),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::of_files(u64::MAX)
    }
}
