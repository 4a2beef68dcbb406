//! What the members have shown to the world: there is one history, and all of them tell parts of it.

use std::collections::BTreeMap;

use store::parts::{Image, PIECE};
use store::{Event, KeyRange, MemberId, Revision, State};

use crate::report::Failure;

/// Everything that any member has shown.
#[derive(Debug, Default)]
pub struct Chronicle {
    /// The changes of each revision, from the member that showed them first.
    events: BTreeMap<Revision, Vec<Event>>,
    /// For indices of the log, the revision and (for some) the checksum of the whole machine.
    machines: BTreeMap<u64, (Revision, Option<u32>)>,
    /// The leader of each term.
    leaders: BTreeMap<u64, MemberId>,
}

/// One index in this many has its whole machine compared.
const COMPARE_EVERY: u64 = 8;

impl Chronicle {
    /// Takes note of what `member` shows, which had shown all up to revision `shown` before.
    pub fn publish(
        &mut self,
        member: MemberId,
        shown: Revision,
        state: &State,
        image: &Image,
    ) -> Result<(), Failure> {
        let revision = state.revision();
        if revision < shown {
            return Err(Failure::new(
                "state",
                format!("n{member} went back from revision {shown} to {revision}"),
            ));
        }
        let from = shown.max(state.compacted()).next();
        let mut news: BTreeMap<Revision, Vec<Event>> = BTreeMap::new();
        for event in state.events(from) {
            news.entry(event.revision()).or_default().push(event.clone());
        }
        for (revision, events) in news {
            match self.events.get(&revision) {
                Some(known) if *known != events => {
                    return Err(Failure::new(
                        "state",
                        format!("n{member} tells revision {revision} as {events:?}, it was {known:?}"),
                    ));
                }
                Some(_) => {}
                None => {
                    self.events.insert(revision, events);
                }
            }
        }
        self.compare(member, image, image.index.is_multiple_of(COMPARE_EVERY))
    }

    /// Holds a member's whole machine against the others' at the same index.
    pub fn compare(&mut self, member: MemberId, image: &Image, in_full: bool) -> Result<(), Failure> {
        let index = image.index;
        let checksum = in_full.then(|| {
            let mut checksum = crc32fast::Hasher::new();
            image.clone().pieces(PIECE).for_each(|piece| checksum.update(&piece));
            checksum.finalize()
        });
        let seen = (image.revision(), checksum);
        let known = self.machines.entry(index).or_insert(seen);
        let differs = known.0 != seen.0 || known.1.zip(seen.1).is_some_and(|(known, seen)| known != seen);
        if differs {
            let what = format!("n{member}'s machine at index {index} is {seen:?}, another's was {known:?}");
            return Err(Failure::new("state", what));
        }
        known.1 = known.1.or(seen.1);
        Ok(())
    }

    /// A member says that it leads.
    pub fn leads(&mut self, member: MemberId, term: u64) -> Result<(), Failure> {
        let leader = *self.leaders.entry(term).or_insert(member);
        if leader != member {
            return Err(Failure::new("leader", format!("n{member} and n{leader} both lead in term {term}")));
        }
        Ok(())
    }

    /// The changes within a range from `from` up to and including `to`.
    pub fn within(&self, range: &KeyRange, from: Revision, to: Revision) -> Vec<Event> {
        let events = self.events.range(from..=to.max(from)).filter(|(revision, _)| **revision <= to);
        events.flat_map(|(_, events)| events).filter(|event| range.contains(event.key())).cloned().collect()
    }

    /// All changes, by revision.
    pub fn all(&self) -> impl Iterator<Item = (Revision, &[Event])> {
        self.events.iter().map(|(revision, events)| (*revision, events.as_slice()))
    }
}
