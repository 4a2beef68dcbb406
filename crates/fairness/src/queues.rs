//! Fair queues of one priority level: start-time fair queuing (Goyal, Vin, Cheng 1996) over the queues that flows are
//! dealt, where a request's work is its seats times how long it took, guessed until it is over.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a request is taken to last until it is over (upstream's `estimatedServiceDuration`).
const GUESS: Duration = Duration::from_millis(3);

/// The number of a request that waits.
pub(crate) type Ticket = u64;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) ticket: Ticket,
    pub(crate) seats: u32,
}

/// The queues in which something waits or runs.
///
/// `active` has no queue in which nothing waits and nothing runs, and `waiting` counts what waits in all of them. A
/// queue's `start` takes each of its running requests for as long as the guess; `end` puts the truth in its place.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    active: BTreeMap<u32, Queue>,
    /// The level's virtual time: when what started last started, in seat-microseconds of one queue.
    now: u64,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    running: u32,
    /// The seats of all that waits and runs.
    seats: u32,
    /// The virtual time at which its next request starts.
    start: u64,
}

fn work(seats: u32, took: Duration) -> u64 {
    u64::from(seats).saturating_mul(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))
}

impl Queues {
    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The one of a hand of queues that has the least to do.
    pub(crate) fn choose(&self, hand: &[u32]) -> u32 {
        let seats = |queue: &u32| self.active.get(queue).map_or(0, |queue| queue.seats);
        hand.iter().copied().min_by_key(seats).unwrap_or_default()
    }

    /// How many requests wait in a queue.
    pub(crate) fn length(&self, queue: u32) -> usize {
        self.active.get(&queue).map_or(0, |queue| queue.waiting.len())
    }

    /// Lets a request wait.
    pub(crate) fn push(&mut self, queue: u32, waiting: Waiting) {
        let queue = Self::wake(&mut self.active, self.now, queue);
        queue.seats += waiting.seats;
        queue.waiting.push_back(waiting);
        self.waiting += 1;
    }

    /// Starts a request that hasn't waited.
    pub(crate) fn start(&mut self, queue: u32, seats: u32) {
        let queue = Self::wake(&mut self.active, self.now, queue);
        queue.seats += seats;
        self.now = self.now.max(queue.start);
        queue.begin(seats);
    }

    /// A queue that has been idle starts at the present, with nothing saved up.
    fn wake(active: &mut BTreeMap<u32, Queue>, now: u64, queue: u32) -> &mut Queue {
        active.entry(queue).or_insert_with(|| Queue { start: now, ..Queue::default() })
    }

    /// Whose turn it is, and the seats that it takes: the one that would be done first; the older one of two.
    pub(crate) fn next(&self) -> Option<(u32, u32)> {
        let heads = self.active.iter().filter_map(|(number, queue)| {
            let head = queue.waiting.front()?;
            let end = queue.start.saturating_add(work(head.seats, GUESS));
            Some(((end, head.ticket), (*number, head.seats)))
        });
        heads.min().map(|(_, next)| next)
    }

    /// Starts the first request that waits in a queue.
    pub(crate) fn pop(&mut self, number: u32) -> Option<Waiting> {
        let queue = self.active.get_mut(&number)?;
        let first = queue.waiting.pop_front()?;
        self.waiting -= 1;
        self.now = self.now.max(queue.start);
        queue.begin(first.seats);
        Some(first)
    }

    /// A request that ran is over: its queue pays what it took.
    pub(crate) fn end(&mut self, number: u32, seats: u32, took: Duration) {
        let Some(queue) = self.active.get_mut(&number) else { return };
        queue.start = queue.start.saturating_sub(work(seats, GUESS)).saturating_add(work(seats, took));
        queue.running -= 1;
        queue.seats -= seats;
        self.forget_if_idle(number);
    }

    /// A request that waited has gone; false if none with that number waits.
    pub(crate) fn give_up(&mut self, ticket: Ticket) -> bool {
        let place = |queue: &Queue| queue.waiting.iter().position(|waiting| waiting.ticket == ticket);
        let found = self.active.iter_mut().find_map(|(number, queue)| {
            let at = place(queue)?;
            let gone = queue.waiting.remove(at)?;
            queue.seats -= gone.seats;
            Some(*number)
        });
        let Some(number) = found else { return false };
        self.waiting -= 1;
        self.forget_if_idle(number);
        true
    }

    fn forget_if_idle(&mut self, number: u32) {
        if self.active.get(&number).is_some_and(|queue| queue.running == 0 && queue.waiting.is_empty()) {
            self.active.remove(&number);
        }
    }
}

impl Queue {
    fn begin(&mut self, seats: u32) {
        self.start = self.start.saturating_add(work(seats, GUESS));
        self.running += 1;
    }
}
