//! What others' servers answered, for as long as it holds; and longer while they are gone (RFC 8767). Without I/O.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::message::Reply;

/// How many answers are kept: what CoreDNS keeps.
const MOST: usize = 9984;
/// How many bytes of messages all of them have together. In memory records take some three times that.
const MOST_BYTES: usize = 4 << 20;
/// The longest that an answer holds, whatever it says: CoreDNS' default.
const LONGEST: u32 = 3600;
/// The longest that it holds that there is nothing: what kubeadm sets. A name that was asked for too early must not stay away.
const LONGEST_NOTHING: u32 = 30;
/// For how long nobody is asked again who failed, so that a storm of questions stays here (RFC 9520, section 3.2).
const FAILED: Duration = Duration::from_secs(1);
/// For how long after its time an answer is better than none (RFC 8767, section 5: 1 to 3 days).
const STALE: Duration = Duration::from_secs(24 * 3600);
/// What a stale answer says for how long it holds, in seconds (RFC 8767, section 4).
const STALE_TTL: u32 = 30;
/// While a stale answer is used, others are asked this seldom (RFC 8767, section 5).
const RECHECK: Duration = Duration::from_secs(30);

/// A question to others. Two that differ in the case of letters are the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub name: Name,
    pub kind: RecordType,
    /// Whether signatures are wanted with the answer, and whether they are the caller's to check.
    pub dnssec_ok: bool,
    pub checking_disabled: bool,
}

/// What is known of a question.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Known {
    /// The answer.
    Fresh(Reply),
    /// An answer whose time is over, and whether it is time to ask again.
    Stale(Reply, bool),
    /// Nothing.
    Nothing,
}

/// Answers by their questions.
///
/// Between two calls every entry has one place in `order`, and `bytes` is the sum of their sizes.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<Arc<Question>, Entry>,
    order: VecDeque<Arc<Question>>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    reply: Reply,
    size: usize,
    since: Instant,
    expires: Instant,
    /// When to ask again, once it is stale.
    again: Instant,
    /// Whether it was asked for since it was last to go.
    used: bool,
}

impl Default for Cache {
    fn default() -> Self {
        Cache::new(MOST, MOST_BYTES)
    }
}

impl Cache {
    fn new(most: usize, most_bytes: usize) -> Self {
        Cache { entries: HashMap::new(), order: VecDeque::new(), bytes: 0, most, most_bytes }
    }

    /// How many answers there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is known of a question.
    pub fn get(&mut self, question: &Question, now: Instant) -> Known {
        let Some(entry) = self.entries.get_mut(question) else { return Known::Nothing };
        entry.used = true;
        if now < entry.expires {
            let age = now.saturating_duration_since(entry.since).as_secs().try_into().unwrap_or(u32::MAX);
            return Known::Fresh(with_ttl(&entry.reply, |ttl| ttl.min(LONGEST).saturating_sub(age)));
        }
        let is_usable = entry.reply.code != ResponseCode::ServFail && now < entry.expires + STALE;
        if !is_usable {
            return Known::Nothing;
        }
        Known::Stale(with_ttl(&entry.reply, |_| STALE_TTL), now >= entry.again)
    }

    /// Keeps an answer, which takes `size` bytes as a message, for as long as it says.
    pub fn put(&mut self, question: Question, reply: &Reply, size: usize, now: Instant) {
        let holds = lifetime(reply, question.kind);
        let expires = now + Duration::from_secs(holds.unwrap_or(0).into());
        // What holds for no time is kept in the place of what it proves wrong alone.
        if holds.is_some_and(|seconds| seconds > 0) || self.entries.contains_key(&question) {
            let entry =
                Entry { reply: reply.clone(), size, since: now, expires, again: expires, used: false };
            self.insert(question, entry);
        }
    }

    /// Nobody could answer. What is known stays good for a while; else the failure is what is known.
    pub fn failed(&mut self, question: Question, now: Instant) {
        match self.entries.get_mut(&question) {
            Some(entry) if entry.reply.code != ResponseCode::ServFail && now < entry.expires + STALE => {
                entry.again = now + RECHECK;
            }
            _ => {
                let reply = Reply::of(ResponseCode::ServFail);
                let expires = now + FAILED;
                let entry = Entry { reply, size: 0, since: now, expires, again: expires, used: false };
                self.insert(question, entry);
            }
        }
    }

    fn insert(&mut self, question: Question, mut entry: Entry) {
        self.bytes += entry.size;
        match self.entries.get_mut(&question) {
            Some(known) => {
                self.bytes -= known.size;
                entry.used = known.used;
                *known = entry;
            }
            None => {
                let question = Arc::new(question);
                self.order.push_back(question.clone());
                self.entries.insert(question, entry);
            }
        }
        self.make_room();
    }

    /// Lets those go that were not asked for since they were last looked at (the algorithm CLOCK).
    fn make_room(&mut self) {
        while self.entries.len() > self.most || self.bytes > self.most_bytes {
            let Some(question) = self.order.pop_front() else { return };
            match self.entries.get_mut(&question) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.order.push_back(question);
                }
                _ => {
                    let entry = self.entries.remove(&question);
                    self.bytes -= entry.map_or(0, |entry| entry.size);
                }
            }
        }
    }
}

/// For how many seconds an answer holds (RFC 2308 where it is that there is nothing); nothing if it doesn't say.
fn lifetime(reply: &Reply, kind: RecordType) -> Option<u32> {
    let answers = reply.answers.iter().map(|record| record.ttl).min();
    let has_any = kind == RecordType::ANY && !reply.answers.is_empty();
    let has_kind = has_any || reply.answers.iter().any(|record| record.record_type() == kind);
    match reply.code {
        ResponseCode::NoError if has_kind => answers.map(|seconds| seconds.min(LONGEST)),
        ResponseCode::NoError | ResponseCode::NXDomain => {
            let soa = reply.authorities.iter().find_map(|record| match &record.data {
                RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                _ => None,
            })?;
            // An alias that leads to nothing holds no longer than itself.
            Some(soa.min(answers.unwrap_or(u32::MAX)).min(LONGEST_NOTHING))
        }
        _ => None,
    }
}

fn with_ttl(reply: &Reply, ttl: impl Fn(u32) -> u32) -> Reply {
    let mut reply = reply.clone();
    let Reply { answers, authorities, additionals, .. } = &mut reply;
    let change = |record: &mut Record| record.ttl = ttl(record.ttl);
    answers.iter_mut().chain(authorities).chain(additionals).for_each(change);
    reply
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::{A, CNAME, SOA};
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn question(text: &str) -> Question {
        Question { name: name(text), kind: RecordType::A, dnssec_ok: false, checking_disabled: false }
    }

    fn address(ttl: u32) -> Record {
        Record::from_rdata(name("a.test."), ttl, RData::A(A([192, 0, 2, 1].into())))
    }

    fn found(ttl: u32) -> Reply {
        Reply { answers: vec![address(ttl)], ..Reply::default() }
    }

    fn authority(ttl: u32, minimum: u32) -> Record {
        let soa = SOA::new(name("ns.test."), name("x.test."), 1, 1, 1, 1, minimum);
        Record::from_rdata(name("test."), ttl, RData::SOA(soa))
    }

    #[allow(clippy::disallowed_methods)] // Some moment; nothing depends on which.
    fn start() -> Instant {
        Instant::now()
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// What is known of a name, with the time for which it says that it holds.
    fn known(cache: &mut Cache, name: &str, now: Instant) -> String {
        let ttl = |reply: &Reply| reply.answers.first().map(|record| record.ttl);
        match cache.get(&question(name), now) {
            Known::Fresh(reply) => {
                format!("{:?}, fresh for {:?}", reply.code, ttl(&reply).unwrap_or_default())
            }
            Known::Stale(reply, again) => {
                format!("stale for {:?}, again: {again}", ttl(&reply).unwrap_or_default())
            }
            Known::Nothing => "nothing".into(),
        }
    }

    #[test]
    fn an_answer_holds_for_as_long_as_it_says_and_counts_down() {
        let (mut cache, start) = (Cache::default(), start());
        cache.put(question("A.test."), &found(60), 50, start);
        assert_eq!(known(&mut cache, "a.TEST.", start + 10 * SECOND), "NoError, fresh for 50");
        assert_eq!(known(&mut cache, "b.test.", start), "nothing");
        let signed = Question { dnssec_ok: true, ..question("a.test.") };
        assert_eq!(cache.get(&signed, start), Known::Nothing, "another question");
        assert_eq!(known(&mut cache, "a.test.", start + 60 * SECOND), "stale for 30, again: true");
        cache.put(question("a.test."), &found(1_000_000), 50, start);
        assert_eq!(known(&mut cache, "a.test.", start + 3599 * SECOND), "NoError, fresh for 1");
        assert_eq!(known(&mut cache, "a.test.", start + 3600 * SECOND), "stale for 30, again: true");
    }

    #[test]
    fn a_stale_answer_is_used_while_nobody_answers_and_not_for_ever() {
        let (mut cache, start) = (Cache::default(), start());
        cache.put(question("a.test."), &found(5), 50, start);
        let late = start + 10 * SECOND;
        cache.failed(question("a.test."), late);
        assert_eq!(known(&mut cache, "a.test.", late + SECOND), "stale for 30, again: false");
        assert_eq!(known(&mut cache, "a.test.", late + RECHECK), "stale for 30, again: true");
        assert_eq!(known(&mut cache, "a.test.", start + 5 * SECOND + STALE), "nothing");
        cache.put(question("a.test."), &found(5), 50, late);
        assert_eq!(known(&mut cache, "a.test.", late), "NoError, fresh for 5");
    }

    #[test]
    fn a_failure_is_known_for_a_second() {
        let (mut cache, start) = (Cache::default(), start());
        cache.failed(question("a.test."), start);
        assert_eq!(known(&mut cache, "a.test.", start), "ServFail, fresh for 0");
        assert_eq!(known(&mut cache, "a.test.", start + SECOND), "nothing");
    }

    #[test]
    fn how_long_an_answer_holds_is_its_shortest_record_or_its_authority() {
        let nothing =
            |code, authorities| Reply { code, authorities: Vec::from_iter(authorities), ..Reply::default() };
        let alias = Record::from_rdata(name("a.test."), 7, RData::CNAME(CNAME(name("b.test."))));
        let led_nowhere =
            Reply { answers: vec![alias], ..nothing(ResponseCode::NXDomain, [authority(20, 20)]) };
        for (reply, seconds) in [
            (Reply { answers: vec![address(60), address(9)], ..Reply::default() }, Some(9)),
            (nothing(ResponseCode::NXDomain, [authority(20, 9)]), Some(9)),
            (nothing(ResponseCode::NoError, [authority(8, 20)]), Some(8)),
            (nothing(ResponseCode::NXDomain, [authority(900, 900)]), Some(LONGEST_NOTHING)),
            (led_nowhere, Some(7)),
            (Reply::of(ResponseCode::NXDomain), None),
            (Reply::of(ResponseCode::NoError), None),
            (Reply::of(ResponseCode::ServFail), None),
            (Reply::of(ResponseCode::Refused), None),
        ] {
            assert_eq!(lifetime(&reply, RecordType::A), seconds, "{reply:?}");
        }
    }

    #[test]
    fn what_holds_for_no_time_only_takes_the_place_of_what_was() {
        let (mut cache, start) = (Cache::default(), start());
        cache.put(question("a.test."), &found(0), 50, start);
        assert_eq!(known(&mut cache, "a.test.", start), "nothing");
        cache.put(question("a.test."), &found(60), 50, start);
        cache.put(question("a.test."), &found(0), 50, start);
        assert_eq!(known(&mut cache, "a.test.", start), "stale for 30, again: true");
    }

    #[test]
    fn what_is_asked_for_outlasts_what_is_not() {
        let (mut cache, start) = (Cache::new(3, 1000), start());
        for text in ["a.", "b.", "c."] {
            cache.put(question(text), &found(60), 10, start);
        }
        cache.get(&question("a."), start);
        for text in ["d.", "e."] {
            cache.put(question(text), &found(60), 10, start);
        }
        let is_there = |cache: &mut Cache, text: &str| cache.get(&question(text), start) != Known::Nothing;
        assert!(is_there(&mut cache, "a.") && is_there(&mut cache, "e."));
        assert!(!is_there(&mut cache, "b.") && !is_there(&mut cache, "c."));
    }

    proptest! {
        /// Whatever is put in and asked for: it stays within its bounds, and its book adds up.
        #[test]
        fn a_cache_keeps_its_bounds(steps in prop::collection::vec((0..40_u8, 0..90_usize, 0..4_u8, 0..3_u8), 0..200)) {
            let start = start();
            let mut cache = Cache::new(10, 500);
            for (at, (number, size, seconds, what)) in steps.into_iter().enumerate() {
                let now = start + at as u32 * SECOND;
                let question = question(&format!("n{number}.test."));
                match what {
                    0 => cache.put(question, &found(seconds.into()), size, now),
                    1 => cache.failed(question, now),
                    _ => drop(cache.get(&question, now)),
                }
                prop_assert!(cache.entries.len() <= 10 && cache.bytes <= 500);
                prop_assert_eq!(cache.bytes, cache.entries.values().map(|entry| entry.size).sum::<usize>());
                prop_assert_eq!(cache.order.len(), cache.entries.len());
                prop_assert!(cache.order.iter().all(|question| cache.entries.contains_key(question)));
            }
        }
    }
}
