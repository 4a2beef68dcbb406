//! The changes that this member was asked for and that are not applied yet: proposed, and proposed again
//! until they are, or until their time is up.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::Entry;

use crate::MemberId;
use crate::embedded::command::RequestId;

/// The first pause before a request is sent again; it doubles each time.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How much goes into one message to the leader.
const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

#[derive(Debug)]
struct Request {
    /// The caller that waits for the answer; none for what the member asks itself.
    token: Option<u64>,
    command: Bytes,
    deadline: Duration,
    /// When it is to be proposed (again).
    due: Duration,
    pause: Duration,
}

/// All requests that wait.
#[derive(Debug)]
pub struct Requests {
    member: MemberId,
    boot: u64,
    next: u64,
    waiting: BTreeMap<u64, Request>,
    /// No request is due before.
    next_due: Duration,
}

impl Requests {
    /// No requests yet.
    pub fn new(member: MemberId, boot: u64) -> Self {
        Requests { member, boot, next: 1, waiting: BTreeMap::new(), next_due: Duration::MAX }
    }

    /// Takes a request.
    pub fn add(&mut self, token: Option<u64>, command: Bytes, now: Duration, deadline: Duration) {
        let request = Request { token, command, deadline, due: now, pause: PAUSE };
        self.waiting.insert(self.next, request);
        self.next += 1;
        self.next_due = self.next_due.min(now);
    }

    /// Makes all requests due: the leader has changed.
    pub fn propose_again(&mut self, now: Duration) {
        for request in self.waiting.values_mut() {
            (request.due, request.pause) = (now, PAUSE);
        }
        self.next_due = now;
    }

    /// The entries to propose now, as messages' worth. A leader keeps what it was given for as long as it
    /// leads, so it gets each once; on the way to another member a request can be lost.
    pub fn due(&mut self, now: Duration, leading: bool, known_boot: u64) -> Vec<Vec<Entry>> {
        if now < self.next_due || self.waiting.is_empty() {
            return Vec::new();
        }
        if known_boot > self.boot {
            // The cluster remembers a later life of this member than the member does: its disk was lost.
            self.boot = known_boot + 1;
        }
        let oldest = self.waiting.keys().next().copied().unwrap_or(self.next);
        let (mut batches, mut bytes) = (vec![Vec::new()], 0);
        self.next_due = Duration::MAX;
        for (sequence, request) in &mut self.waiting {
            if request.due <= now {
                let id = RequestId { member: self.member, boot: self.boot, sequence: *sequence, oldest };
                let entry = Entry { context: id.encode(), data: request.command.clone(), ..Entry::default() };
                bytes += entry.data.len();
                let batch = batches.last().map_or(0, Vec::len);
                if batch > 0 && (batch >= BATCH_ENTRIES || bytes > BATCH_BYTES) {
                    batches.push(Vec::new());
                    bytes = entry.data.len();
                }
                if let Some(batch) = batches.last_mut() {
                    batch.push(entry);
                }
                request.due = if leading { Duration::MAX } else { now + request.pause };
                request.pause = (request.pause * 2).min(LONGEST_PAUSE);
            }
            self.next_due = self.next_due.min(request.due);
        }
        batches.retain(|batch| !batch.is_empty());
        batches
    }

    /// Raft did not take a proposal: it is due again after a pause.
    pub fn refused(&mut self, entries: &[Entry], now: Duration) {
        for entry in entries {
            let Ok(id) = RequestId::decode(entry.context.clone()) else { continue };
            if let Some(request) = self.waiting.get_mut(&id.sequence) {
                request.due = now + PAUSE;
                self.next_due = self.next_due.min(request.due);
            }
        }
    }

    /// A request was applied: it waits no more. Tells who waited, none if it was not one of these.
    pub fn done(&mut self, id: &RequestId) -> Option<Option<u64>> {
        if (id.member, id.boot) != (self.member, self.boot) {
            return None;
        }
        self.waiting.remove(&id.sequence).map(|request| request.token)
    }

    /// Takes out the requests of which `known` says that they were applied, though nobody here saw how.
    pub fn lost(&mut self, known: impl Fn(MemberId, u64, u64) -> bool) -> Vec<u64> {
        let (member, boot) = (self.member, self.boot);
        let lost = self.waiting.extract_if(.., |sequence, _| known(member, boot, *sequence));
        lost.filter_map(|(_, request)| request.token).collect()
    }

    /// Takes out the requests that waited too long.
    pub fn expired(&mut self, now: Duration) -> Vec<u64> {
        let expired = self.waiting.extract_if(.., |_, request| request.deadline <= now);
        expired.filter_map(|(_, request)| request.token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn sequences(batches: Vec<Vec<Entry>>) -> Vec<u64> {
        let ids = batches.into_iter().flatten().map(|e| RequestId::decode(e.context).unwrap());
        ids.map(|id| id.sequence).collect()
    }

    #[test]
    fn a_request_is_proposed_until_it_is_applied() {
        let mut requests = Requests::new(MemberId(1), 1);
        for token in [10, 11] {
            requests.add(Some(token), Bytes::from_static(b"x"), MS, 5000 * MS);
        }
        assert_eq!(sequences(requests.due(MS, false, 1)), [1, 2]);
        assert_eq!(sequences(requests.due(50 * MS, false, 1)), [0; 0]);
        assert_eq!(sequences(requests.due(101 * MS, false, 1)), [1, 2]);
        assert_eq!(sequences(requests.due(201 * MS, false, 1)), [0; 0], "the pause doubles");
        requests.propose_again(210 * MS);
        assert_eq!(sequences(requests.due(210 * MS, true, 1)), [1, 2]);
        assert_eq!(sequences(requests.due(4000 * MS, true, 1)), [0; 0], "a leader gets it once");
        let id = RequestId { member: MemberId(1), boot: 1, sequence: 1, oldest: 1 };
        assert_eq!(requests.done(&RequestId { boot: 2, ..id }), None);
        assert_eq!((requests.done(&id), requests.done(&id)), (Some(Some(10)), None));
        assert_eq!(requests.expired(5000 * MS), [11]);
    }

    #[test]
    fn large_requests_travel_apart() {
        let mut requests = Requests::new(MemberId(1), 1);
        for _ in 0..3 {
            requests.add(None, vec![0; BATCH_BYTES - 1].into(), MS, 5000 * MS);
        }
        assert_eq!(requests.due(MS, false, 0).len(), 3);
    }
}
