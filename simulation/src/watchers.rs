//! Watchers: each follows a range of keys on one member, and goes on elsewhere when it is interrupted.

use futures::FutureExt;
use rand::Rng;
use rand::rngs::StdRng;
use store::{Error, KeyRange, Revision, Watcher};

use crate::report::Failure;
use crate::world::{Mistake, Moment, World};

/// A watcher and what it has seen.
#[derive(Debug)]
pub struct Viewer {
    range: KeyRange,
    watching: Option<(usize, u64, Watcher)>,
    /// All before this revision was seen; [`Revision::ZERO`] before the first look.
    next: Revision,
}

impl Viewer {
    /// The first sees all keys, the others some.
    pub fn new(n: usize, rng: &mut StdRng) -> Self {
        let range = match n {
            0 => KeyRange::prefix("/key/"),
            _ => KeyRange::prefix(format!("/key/{}", rng.random_range(0..crate::clients::KEYS))),
        };
        Viewer { range, watching: None, next: Revision::ZERO }
    }
}

impl World {
    /// A watcher looks for news, and plans its next look.
    pub fn view(&mut self, w: usize) -> Result<(), Failure> {
        let later = self.rng.random_range(5_000..80_000);
        self.schedule(later, Moment::Watch(w));
        let breaks = self.rng.random_ratio(1, 30);
        if breaks {
            self.viewers[w].watching = None;
        }
        let is_gone = |(n, life, _): &(usize, u64, Watcher)| {
            self.hosts[*n].running.is_none() || self.hosts[*n].life != *life
        };
        if self.viewers[w].watching.as_ref().is_some_and(is_gone) {
            self.viewers[w].watching = None;
        }
        if self.viewers[w].watching.is_none() {
            let n = self.rng.random_range(0..self.hosts.len());
            self.connect(w, n);
        }
        self.take_news(w)
    }

    /// A watcher sees all there is, on a member that has it all.
    pub fn view_to_the_end(&mut self, w: usize) -> Result<(), Failure> {
        let Some(n) = (0..self.hosts.len()).find(|n| self.hosts[*n].running.is_some()) else { return Ok(()) };
        self.connect(w, n);
        self.take_news(w)?;
        let newest = self.hosts[n].running.as_ref().map_or(Revision::ZERO, |running| running.shown);
        let next = self.viewers[w].next;
        let missing = self.chronicle.within(&self.viewers[w].range, next, newest);
        if next <= newest && !missing.is_empty() {
            return Err(Failure::new("watch", format!("watcher {w} was never told of {missing:?}")));
        }
        Ok(())
    }

    fn connect(&mut self, w: usize, n: usize) {
        let Some(states) = self.states(n) else { return };
        let is_late = self.mistake == Some(Mistake::SkippedEvent) && self.viewers[w].next > Revision::ZERO;
        let viewer = &mut self.viewers[w];
        let newest = states.borrow().revision();
        if viewer.next == Revision::ZERO {
            viewer.next = newest.next();
        }
        let life = self.hosts[n].life;
        let from = if is_late { viewer.next.next() } else { viewer.next };
        match Watcher::new(states.clone(), viewer.range.clone(), from) {
            Ok(watcher) => viewer.watching = Some((n, life, watcher)),
            Err(_) => {
                // The history does not reach back: it begins anew, from what there is now.
                viewer.next = newest.next();
                viewer.watching = Watcher::new(states, viewer.range.clone(), viewer.next)
                    .ok()
                    .map(|watcher| (n, life, watcher));
            }
        }
    }

    fn take_news(&mut self, w: usize) -> Result<(), Failure> {
        let viewer = &mut self.viewers[w];
        while let Some((_, _, watcher)) = &mut viewer.watching {
            match watcher.changes().now_or_never() {
                Some(Ok((events, state))) => {
                    let to = state.revision();
                    let due = self.chronicle.within(&viewer.range, viewer.next, to);
                    if due != events {
                        let from = viewer.next;
                        let what = format!("watcher {w} got {events:?} for {from}..={to}, due was {due:?}");
                        return Err(Failure::new("watch", what));
                    }
                    viewer.next = to.next();
                    self.report.watched += events.len() as u64;
                }
                Some(Err(Error::Compacted { .. })) => {
                    viewer.next = Revision::ZERO;
                    viewer.watching = None;
                }
                Some(Err(_)) => viewer.watching = None,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}
