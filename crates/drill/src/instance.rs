//! Who answered: an instance says so in its answer. What follows from that is decided here: whether an identity ran twice at once, and how
//! evenly the requests were spread.

use crate::Moment;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// More different ones than any workload has; what a server makes up must not fill the memory.
const MOST: usize = 1024;
/// No name that an answer says is longer.
const LONGEST: usize = 128;

/// One process of a workload, and the host that it says it runs on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    /// Of its pod.
    pub(crate) name: String,
    /// No other process has it, nor the next one of the same pod.
    pub(crate) id: String,
    pub(crate) host: String,
}

impl Instance {
    /// Reads an answer: the pod's name in the first line, a line `instance: ID`, and a line `host: NAME`. None if it doesn't say all of it.
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let name = |said: &str| {
            Some(said.trim().to_owned()).filter(|said| !said.is_empty() && said.len() <= LONGEST)
        };
        let line = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).and_then(name)
        };
        Some(Instance {
            name: text.lines().next().and_then(name)?,
            id: line("instance")?,
            host: line("host")?,
        })
    }
}

/// A good answer that says whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) sent: Moment,
    pub(crate) done: Moment,
    pub(crate) by: Arc<Instance>,
}

/// The instances that were heard, each kept once.
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<Instance, Arc<Instance>>);

impl Known {
    pub(crate) fn one(&mut self, instance: Instance) -> Option<Arc<Instance>> {
        if let Some(known) = self.0.get(&instance) {
            return Some(known.clone());
        }
        (self.0.len() < MOST).then(|| self.0.entry(instance.clone()).or_insert(Arc::new(instance)).clone())
    }
}

/// When an instance surely ran. An answer came from a process that ran at some moment between the request and the answer, so one that answered
/// twice ran from the first answer to the last request.
struct Life<'a> {
    host: &'a str,
    answers: Vec<(Moment, Moment)>,
    from: Moment,
    to: Moment,
}

impl Life<'_> {
    fn surely_meets(&self, other: &Life<'_>) -> bool {
        let (from, to) = (self.from.max(other.from), self.to.min(other.to));
        let both_ran = self.from <= self.to && other.from <= other.to && from <= to;
        both_ran || self.surely_saw(other) || other.surely_saw(self)
    }

    /// Whether the other one gave a whole answer while this one ran.
    fn surely_saw(&self, other: &Life<'_>) -> bool {
        other.answers.iter().any(|(sent, done)| self.from <= *sent && *done <= self.to)
    }
}

/// Whether instances on two hosts answered for one identity at the same time, whatever the order in which their answers came.
pub(crate) fn ran_twice(answers: &[Signed]) -> bool {
    let mut lives: BTreeMap<&str, Life<'_>> = BTreeMap::new();
    for Signed { sent, done, by } in answers {
        let new = || Life { host: &by.host, answers: Vec::new(), from: *done, to: *sent };
        let life = lives.entry(&by.id).or_insert_with(new);
        life.answers.push((*sent, *done));
        life.from = life.from.min(*done);
        life.to = life.to.max(*sent);
    }
    let lives: Vec<Life<'_>> = lives.into_values().collect();
    let mut pairs = lives.iter().enumerate().flat_map(|(at, a)| lives[at + 1..].iter().map(move |b| (a, b)));
    pairs.any(|(a, b)| a.host != b.host && a.surely_meets(b))
}

/// How many requests the busiest instance got for one of the least busy, of the requests that were sent within a time.
///
/// # Errors
/// Why that can't be said.
pub(crate) fn spread<'a>(
    answers: impl IntoIterator<Item = &'a Signed>,
    time: Range<Moment>,
    replicas: u64,
) -> Result<f64, String> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for answer in answers.into_iter().filter(|answer| time.contains(&answer.sent)) {
        *counts.entry(&answer.by.id).or_default() += 1;
    }
    let (Some(busiest), Some(least)) = (counts.values().max(), counts.values().min()) else {
        return Err(UNSIGNED.into());
    };
    match counts.len() as u64 {
        heard if heard < replicas => {
            Err(format!("only {heard} of {replicas} instances answered after the fault"))
        }
        // In hundredths: more digits would promise more than some hundred requests can say.
        _ => Ok((f64::from(*busiest) * 100.0 / f64::from(*least)).round() / 100.0),
    }
}

/// How many requests of the service a pod answered, by when they were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The pod's name, as its answers say it.
    pub pod: String,
    /// The host that they say it runs on.
    pub host: String,
    /// Before the fault.
    pub before: u32,
    /// From the fault until the service was back, the new pod answered, if one came, and a fault that passes by was over.
    pub during: u32,
    /// From then until the clocks stopped.
    pub after: u32,
}

/// What each pod had of the requests, host by host.
pub(crate) fn shares<'a>(
    answers: impl IntoIterator<Item = &'a Signed>,
    fault: Moment,
    back: Moment,
) -> Vec<Share> {
    // A process that was started again is the same pod.
    let mut counts: BTreeMap<(&str, &str), [u32; 3]> = BTreeMap::new();
    for answer in answers {
        let phase = usize::from(answer.sent >= fault) + usize::from(answer.sent >= fault.max(back));
        counts.entry((&answer.by.host, &answer.by.name)).or_default()[phase] += 1;
    }
    let share = |((host, pod), [before, during, after]): ((&str, &str), [u32; 3])| Share {
        pod: pod.to_owned(),
        host: host.to_owned(),
        before,
        during,
        after,
    };
    counts.into_iter().map(share).collect()
}

/// Why nothing can be said about instances.
pub(crate) const UNSIGNED: &str = "the answers don't say whose they are (the pod's name, a line \"instance: ID\" and a line \"host: NAME\")";

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ms(n: u64) -> Moment {
        Duration::from_millis(n)
    }

    fn answer(sent: u64, done: u64, id: &str, host: &str) -> Signed {
        let by = Arc::new(Instance { name: "db-0".into(), id: id.into(), host: host.into() });
        Signed { sent: ms(sent), done: ms(done), by }
    }

    #[test]
    fn an_answer_says_whose_it_is() {
        let read = |text: &str| Instance::read(text.as_bytes()).map(|i| [i.name, i.id, i.host].join(" "));
        assert_eq!(read("db-0\ninstance: a1\nhost: n2\n").unwrap(), "db-0 a1 n2");
        assert_eq!(read("db-0\r\nhost: n2\r\ninstance: a1\r\n").unwrap(), "db-0 a1 n2");
        for silent in
            ["", "db-0\n", "x\ninstance: a1\n", "x\ninstance: \nhost: n1", "\ninstance: a1\nhost: n1"]
        {
            assert_eq!(read(silent), None, "{silent:?}");
        }
        assert_eq!(Instance::read(&[0xff, 0xfe]), None);
        assert_eq!(read(&format!("x\ninstance: {}\nhost: n1", "x".repeat(500))), None);
    }

    #[test]
    fn two_at_once_are_seen_and_one_after_the_other_is_none() {
        let a = |sent, done| answer(sent, done, "a", "n1");
        let b = |sent, done| answer(sent, done, "b", "n2");
        for (answers, twice, why) in [
            (vec![a(0, 5), a(50, 55), b(100, 105), b(150, 155)], false, "one after the other"),
            (vec![a(0, 5), b(50, 55), a(100, 105)], true, "in between"),
            (vec![a(0, 5), a(100, 105), b(50, 55), b(150, 155)], true, "crossed"),
            (
                vec![a(0, 5), a(100, 400), b(150, 160), b(300, 310)],
                false,
                "the last answer may have been given before",
            ),
            (vec![a(0, 500), b(100, 110)], false, "one that may have ended at once"),
            (
                vec![a(0, 5), a(100, 105), b(90, 200)],
                false,
                "which may have been given after the other's end",
            ),
            (vec![], false, "nothing"),
        ] {
            assert_eq!(ran_twice(&answers), twice, "{why}");
            let reversed: Vec<Signed> = answers.into_iter().rev().collect();
            assert_eq!(ran_twice(&reversed), twice, "{why}, in another order");
        }
        let restarted = [a(0, 5), answer(50, 55, "a2", "n1"), a(100, 105)];
        assert!(!ran_twice(&restarted), "two processes on one host are the host's affair");
    }

    #[test]
    fn the_spread_is_that_of_the_time_after_the_fault() {
        let a = |sent| answer(sent, sent + 5, "a", "n1");
        let b = |sent| answer(sent, sent + 5, "b", "n2");
        let answers = [a(0), a(10), a(20), a(100), b(110), a(120), b(130), a(140)];
        assert_eq!(spread(&answers, ms(100)..ms(200), 2), Ok(1.5));
        assert_eq!(spread(&answers, ms(100)..ms(140), 2), Ok(1.0));
        let few = spread(&answers, ms(0)..ms(50), 2).unwrap_err();
        assert!(few.contains("only 1 of 2 instances"), "{few}");
        assert_eq!(spread(&answers, ms(500)..ms(900), 2), Err(UNSIGNED.into()));
        assert_eq!(spread([], ms(0)..ms(900), 2), Err(UNSIGNED.into()));
    }

    #[test]
    fn each_pod_has_its_share_before_during_and_after() {
        let (a, b) = (|sent| answer(sent, sent + 5, "a", "n1"), |sent| answer(sent, sent + 5, "b", "n2"));
        let mut other = answer(250, 255, "c", "n2");
        other.by = Arc::new(Instance { name: "db-1".into(), ..(*other.by).clone() });
        let answers = [a(0), a(10), b(20), b(100), b(150), b(200), answer(210, 215, "b2", "n2"), other];
        let shares = |back| {
            let shares = shares(&answers, ms(100), ms(back)).into_iter();
            shares.map(|s| (s.host + " " + &s.pod, [s.before, s.during, s.after])).collect::<Vec<_>>()
        };
        let expected = [("n1 db-0", [2, 0, 0]), ("n2 db-0", [1, 2, 2]), ("n2 db-1", [0, 0, 1])];
        assert_eq!(shares(200), expected.map(|(who, counts)| (who.to_owned(), counts)));
        assert_eq!(shares(u64::MAX)[1].1, [1, 4, 0], "it never came back");
        assert_eq!(shares(50)[1].1, [1, 0, 4], "it was never away");
    }

    #[test]
    fn instances_without_end_are_not_kept() {
        let mut known = Known::default();
        let one = |n: usize| Instance { name: "x".into(), id: n.to_string(), host: "n1".into() };
        assert!((0..MOST).all(|n| known.one(one(n)).is_some()));
        assert_eq!(known.one(one(MOST)), None);
        assert!(known.one(one(0)).is_some(), "those that are known stay so");
    }
}
