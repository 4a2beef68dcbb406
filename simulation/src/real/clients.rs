//! Clients that write, and keep a record of what they were told; and watchers that follow.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use store::Revision;

use super::checker::{Outcome, Record, Seen};
use super::ground::MEMBERS;
use super::protocol::{Answer, Ask, Line};
use crate::report::Failure;

/// How many clients.
pub const CLIENTS: usize = 12;

/// What all clients share.
pub struct Desk {
    /// When it all began.
    pub start: Instant,
    /// Where the members are reached.
    pub sockets: Vec<PathBuf>,
    /// What was written in this round.
    pub records: RefCell<Vec<Record>>,
    /// Whether the clients are to end.
    pub closing: Cell<bool>,
    /// What a client saw that can't be.
    pub failure: RefCell<Option<Failure>>,
    /// Since when a majority was well without a break, as far as the faults go.
    pub well_since: Cell<Option<Instant>>,
    /// When the last write was acknowledged.
    pub last_success: Cell<Instant>,
    /// The longest time that writes stopped while a majority was well.
    pub longest_stop: Cell<Duration>,
    /// What was going on when that ended.
    pub longest_during: RefCell<String>,
    /// What is going on.
    pub during: RefCell<String>,
    /// Reads that were answered.
    pub reads: Cell<u64>,
}

impl Desk {
    /// Nothing written yet.
    #[allow(clippy::disallowed_methods)] // Everything here happens in real time.
    pub fn new(sockets: Vec<PathBuf>) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Desk {
            start: now,
            sockets,
            records: RefCell::default(),
            closing: Cell::new(false),
            failure: RefCell::new(None),
            well_since: Cell::new(Some(now)),
            last_success: Cell::new(now),
            longest_stop: Cell::default(),
            longest_during: RefCell::default(),
            during: RefCell::default(),
            reads: Cell::default(),
        })
    }

    fn succeeded(&self, now: Instant) {
        if let Some(well) = self.well_since.get() {
            let stop = now - self.last_success.get().max(well);
            if stop > self.longest_stop.get() {
                self.longest_stop.set(stop);
                self.longest_during.replace(self.during.borrow().clone());
            }
        }
        self.last_success.set(now);
    }

    /// Keeps the first failure.
    pub fn fail(&self, failure: Failure) {
        self.failure.borrow_mut().get_or_insert(failure);
        self.closing.set(true);
    }
}

/// Writes one new key after the other at some member, until the desk closes.
#[allow(clippy::disallowed_methods)] // Everything here happens in real time.
pub async fn write(desk: Rc<Desk>, prefix: String, number: usize, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut member, mut line) = (number % MEMBERS, None);
    let mut last: Option<(String, u32)> = None;
    let since = |at: Instant| (at - desk.start).as_micros() as u64;
    for n in 0.. {
        if desk.closing.get() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(2..15))).await;
        let mut open = match line.take() {
            Some(open) => open,
            None => match Line::open(&desk.sockets[member]).await {
                Ok(open) => open,
                Err(_) => {
                    member = (member + 1) % MEMBERS;
                    continue;
                }
            },
        };
        // Some give up before the member does.
        let patience = Duration::from_millis(rng.random_range(1_000..7_000));
        if let Some((key, checksum)) = last.as_ref().filter(|_| rng.random_ratio(1, 8)) {
            match open.ask(&Ask::Read(key.clone()), patience).await {
                Ok(Answer::Value(Some(found))) if found == *checksum => desk.reads.set(desk.reads.get() + 1),
                Ok(Answer::Value(found)) => {
                    let what = format!("n{} read {key} as {found:?} after it was acknowledged", member + 1);
                    return desk.fail(Failure::new("stale read", what));
                }
                Ok(_) => {}
                Err(_) => {
                    member = (member + 1) % MEMBERS;
                    continue;
                }
            }
        }
        let length = if rng.random_ratio(1, 300) { 60_000 } else { rng.random_range(1..300) };
        let value: String = (0..length).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
        let (key, checksum) = (format!("{prefix}c{number:02}/{n:06}"), crc32fast::hash(value.as_bytes()));
        let begun = Instant::now();
        let answer = open.ask(&Ask::Put { key: key.clone(), value }, patience).await;
        let ended = Instant::now();
        let outcome = match &answer {
            Ok(Answer::Done(revision)) => Outcome::Acknowledged(*revision),
            Ok(Answer::NoRoom(_)) => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        if let Outcome::Acknowledged(_) = outcome {
            desk.succeeded(ended);
            last = Some((key.clone(), checksum));
        } else {
            member = (member + 1) % MEMBERS;
        }
        // Some go elsewhere without a need.
        if answer.is_ok() && !matches!(outcome, Outcome::Refused) && !rng.random_ratio(1, 200) {
            line = Some(open);
        }
        let (begun, ended) = (since(begun), since(ended));
        desk.records.borrow_mut().push(Record { key, checksum, begun, ended, outcome });
    }
}

/// Follows a member for good, and goes on where it was interrupted.
pub async fn watch(desk: Rc<Desk>, member: usize, seen: Rc<RefCell<Seen>>) {
    let mut next = Revision::ZERO.next();
    loop {
        // What broke is begun anew: the member's process may be gone for a while.
        if let Err(failure) = follow(&desk, member, &seen, &mut next).await {
            return desk.fail(failure);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn follow(
    desk: &Desk,
    member: usize,
    seen: &RefCell<Seen>,
    next: &mut Revision,
) -> Result<(), Failure> {
    let Ok(mut line) = Line::open(&desk.sockets[member]).await else { return Ok(()) };
    if line.say(&Ask::Watch(*next)).await.is_err() {
        return Ok(());
    }
    while let Ok(Some(answer)) = line.hear().await {
        match answer {
            Answer::Event { revision, key, is_put } => {
                if revision < *next {
                    let what = format!("n{} told revision {revision} again, from {next} on", member + 1);
                    return Err(Failure::new("watch", what));
                }
                // All events of a deletion have its revision: it may be told again, and is not counted.
                *next = if is_put { revision.next() } else { revision };
                if is_put {
                    seen.borrow_mut().push((revision, key));
                }
            }
            Answer::Failed(why) if why.contains("compacted") => {
                return Err(Failure::new("watch", format!("n{}: {why}", member + 1)));
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}
