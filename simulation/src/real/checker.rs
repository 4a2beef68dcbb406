//! Holds what clients were told, and what watchers saw, to what the members have in the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use store::Revision;

use super::protocol::{Dump, Entry};
use crate::report::Failure;

/// How a write ended, as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was acknowledged, at this revision.
    Acknowledged(Revision),
    /// It was refused: it must not be there.
    Refused,
    /// Nobody said.
    Unknown,
}

/// One write. No two have the same key.
#[derive(Debug, Clone)]
pub struct Record {
    /// The key.
    pub key: String,
    /// The checksum of the value.
    pub checksum: u32,
    /// When it was asked for, in microseconds since some moment.
    pub begun: u64,
    /// When its client knew how it ended, or gave it up.
    pub ended: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// All that a watcher of one member saw, in its order.
pub type Seen = Vec<(Revision, String)>;

fn lost(what: String) -> Failure {
    Failure::new("lost write", what)
}

/// What the clients wrote, under one prefix, against what each member tells at the end: its state, and the events
/// that it showed a watcher. `older` are the keys of writes before that nobody was told about: they may turn up.
pub fn check(
    records: &[Record],
    prefix: &str,
    older: &BTreeSet<String>,
    members: &[(Dump, Seen)],
) -> Result<(), Failure> {
    let Some((first, _)) = members.first() else { return Ok(()) };
    for (n, (dump, _)) in members.iter().enumerate().skip(1) {
        same(first, dump, n)?;
    }
    let known: HashMap<&str, &Record> = records.iter().map(|record| (&*record.key, record)).collect();
    let there: HashMap<&str, &Entry> = first.entries.iter().map(|entry| (&*entry.key, entry)).collect();
    for entry in &first.entries {
        if !entry.key.starts_with(prefix) {
            if !older.contains(&entry.key) {
                return Err(Failure::new("invented write", format!("nobody left {entry:?} behind")));
            }
            continue;
        }
        let Some(record) = known.get(&*entry.key) else {
            return Err(Failure::new("invented write", format!("nobody wrote {entry:?}")));
        };
        if entry.version != 1 || entry.created != entry.modified {
            return Err(Failure::new("done twice", format!("{entry:?} was written once, by {record:?}")));
        }
        if entry.checksum != record.checksum {
            return Err(Failure::new("value", format!("{entry:?} is not what was written: {record:?}")));
        }
        if record.outcome == Outcome::Refused {
            return Err(Failure::new("refused write", format!("{entry:?} is there: {record:?}")));
        }
    }
    for record in records {
        let Outcome::Acknowledged(revision) = record.outcome else { continue };
        match there.get(&*record.key) {
            None => return Err(lost(format!("{record:?} is on no member"))),
            Some(entry) if entry.modified != revision => {
                return Err(lost(format!("{record:?} is there as another write: {entry:?}")));
            }
            Some(_) => {}
        }
    }
    in_order(records)?;
    for (n, (_, seen)) in members.iter().enumerate() {
        watched(n, prefix, seen, first)?;
    }
    Ok(())
}

fn same(one: &Dump, other: &Dump, n: usize) -> Result<(), Failure> {
    if one == other {
        return Ok(());
    }
    let differs = one.entries.iter().zip(&other.entries).find(|(a, b)| a != b);
    Err(Failure::new(
        "states",
        format!(
            "n1 is at revision {} with {} keys, n{} at {} with {}; first difference: {differs:?}",
            one.revision,
            one.entries.len(),
            n + 1,
            other.revision,
            other.entries.len()
        ),
    ))
}

/// A write that was asked for after another one was acknowledged has a later revision.
fn in_order(records: &[Record]) -> Result<(), Failure> {
    let mut moments: BTreeMap<(u64, bool, Revision), &Record> = BTreeMap::new();
    for record in records {
        if let Outcome::Acknowledged(revision) = record.outcome {
            // Where one ends when another begins nothing is said about their order.
            moments.insert((record.begun, false, revision), record);
            moments.insert((record.ended, true, revision), record);
        }
    }
    let mut newest = Revision::ZERO;
    for ((_, is_end, revision), record) in moments {
        if is_end {
            newest = newest.max(revision);
        } else if revision <= newest {
            return Err(Failure::new(
                "order",
                format!("{record:?} was asked for after revision {newest} was acknowledged"),
            ));
        }
    }
    Ok(())
}

/// A watcher has seen each write once and in order.
fn watched(n: usize, prefix: &str, seen: &Seen, dump: &Dump) -> Result<(), Failure> {
    let wrong = |what: String| Err(Failure::new("watch", format!("the watcher at n{}: {what}", n + 1)));
    if let Some(pair) = seen.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
        return wrong(format!("{:?} came after {:?}", pair[1], pair[0]));
    }
    let seen: BTreeSet<(Revision, &str)> =
        seen.iter().filter(|(_, key)| key.starts_with(prefix)).map(|(at, key)| (*at, &**key)).collect();
    let there: BTreeSet<(Revision, &str)> = dump
        .entries
        .iter()
        .filter(|entry| entry.key.starts_with(prefix))
        .map(|entry| (entry.modified, &*entry.key))
        .collect();
    match (there.difference(&seen).next(), seen.difference(&there).next()) {
        (Some(missing), _) => wrong(format!("it never saw {missing:?}")),
        (_, Some(invented)) => wrong(format!("it saw {invented:?}, which is not there")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u64, outcome: Outcome) -> Record {
        Record { key: format!("/r/{n}"), checksum: n as u32, begun: n * 10, ended: n * 10 + 5, outcome }
    }

    fn entry(n: u64, revision: u64) -> Entry {
        let (key, revision) = (format!("/r/{n}"), Revision(revision));
        Entry { key, created: revision, modified: revision, version: 1, checksum: n as u32 }
    }

    /// Three writes: one acknowledged, one that nobody knows about, one refused; and what members tell.
    fn story() -> (Vec<Record>, Vec<(Dump, Seen)>) {
        let records = vec![
            record(1, Outcome::Acknowledged(Revision(5))),
            record(2, Outcome::Unknown),
            record(3, Outcome::Refused),
            record(4, Outcome::Acknowledged(Revision(7))),
        ];
        let dump = Dump { revision: Revision(7), entries: vec![entry(1, 5), entry(2, 6), entry(4, 7)] };
        let seen = dump.entries.iter().map(|entry| (entry.modified, entry.key.clone())).collect();
        (records, vec![(dump, seen); 3])
    }

    /// The name of the check that finds what `change` did.
    fn found(change: impl FnOnce(&mut Vec<Record>, &mut Vec<(Dump, Seen)>)) -> &'static str {
        let (mut records, mut members) = story();
        change(&mut records, &mut members);
        check(&records, "/r/", &BTreeSet::new(), &members).err().map_or("nothing", |failure| failure.check)
    }

    fn everywhere(members: &mut [(Dump, Seen)], change: impl Fn(&mut Dump)) {
        members.iter_mut().for_each(|(dump, _)| change(dump));
    }

    #[test]
    fn a_true_story_is_believed() {
        assert_eq!(found(|_, _| {}), "nothing");
        let neither = |records: &mut Vec<Record>, members: &mut Vec<(Dump, Seen)>| {
            records.remove(1);
            for (dump, seen) in members {
                dump.entries.remove(1);
                seen.remove(1);
            }
        };
        assert_eq!(found(neither), "nothing", "a write that nobody was told about may also be missing");
    }

    #[test]
    fn each_kind_of_lie_is_found() {
        type Change = fn(&mut Vec<Record>, &mut Vec<(Dump, Seen)>);
        let table: [(&str, Change); 11] = [
            ("lost write", |_, members| everywhere(members, |dump| drop(dump.entries.remove(0)))),
            ("lost write", |_, members| {
                everywhere(members, |d| {
                    (d.entries[0].created, d.entries[0].modified) = (Revision(4), Revision(4))
                });
            }),
            ("states", |_, members| drop(members[2].0.entries.remove(0))),
            ("states", |_, members| members[1].0.revision = Revision(8)),
            ("done twice", |_, members| everywhere(members, |dump| dump.entries[1].version = 2)),
            ("value", |_, members| everywhere(members, |dump| dump.entries[0].checksum = 9)),
            ("refused write", |records, _| records[1].outcome = Outcome::Refused),
            ("invented write", |records, _| drop(records.remove(1))),
            ("order", |records, _| (records[3].begun, records[3].ended) = (1, 2)),
            ("watch", |_, members| drop(members[1].1.remove(1))),
            ("watch", |_, members| members[1].1.swap(0, 1)),
        ];
        for (n, (expected, change)) in table.into_iter().enumerate() {
            assert_eq!(found(change), expected, "row {n}");
        }
    }

    #[test]
    fn a_late_write_of_before_may_turn_up_and_an_old_one_may_not() {
        let (records, mut members) = story();
        everywhere(&mut members, |dump| {
            dump.entries.push(Entry { key: "/before".into(), ..entry(9, 8) });
        });
        let late = BTreeSet::from(["/before".to_owned()]);
        assert!(check(&records, "/r/", &late, &members).is_ok());
        let failure = check(&records, "/r/", &BTreeSet::new(), &members).unwrap_err();
        assert_eq!(failure.check, "invented write");
    }
}
