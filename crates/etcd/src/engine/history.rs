//! The leader forgets old history: what is older than five minutes, and more than anybody needs.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;

use store::{Revision, Store};
use tokio::time::MissedTickBehavior;

use super::Engine;

const LOOK: Duration = Duration::from_secs(5);
const MARK_EVERY: Duration = Duration::from_secs(60);
/// A mark is compacted to when so many newer ones are there: then it is five minutes old.
const NEWER_MARKS: usize = 5;
/// More revisions than this are not kept, however young they are.
const MOST_REVISIONS: usize = 50_000;
const KEPT_REVISIONS: u64 = 40_000;

/// Forgets whenever this member leads, for as long as it is there.
pub async fn keep_short(engine: Weak<Engine>) {
    let mut marks = VecDeque::new();
    let mut looks = 0;
    let mut clock = tokio::time::interval(LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let Some(engine) = engine.upgrade() else { return };
        if !engine.leadership().borrow().is_me {
            marks.clear();
            looks = 0;
            continue;
        }
        let state = engine.snapshot();
        if looks % (MARK_EVERY.as_secs() / LOOK.as_secs()) == 0 {
            marks.push_back(state.revision());
        }
        looks += 1;
        let crowded = state.kept_revisions() > MOST_REVISIONS;
        if let Some(revision) = due(&mut marks, crowded, state.revision())
            && revision > state.compacted()
            && let Err(error) = engine.compact(revision).await
        {
            tracing::warn!(%error, revision, "etcd's history was not compacted; it is tried again");
            marks.push_front(revision);
        }
    }
}

fn due(marks: &mut VecDeque<Revision>, crowded: bool, newest: Revision) -> Option<Revision> {
    let old = if marks.len() > NEWER_MARKS { marks.pop_front() } else { None };
    let many = crowded.then(|| newest.saturating_sub(KEPT_REVISIONS));
    old.max(many)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_are_kept_and_no_more_than_fits() {
        let mut marks = VecDeque::from([10, 20, 30, 40, 50]);
        assert_eq!(due(&mut marks, false, 55), None);
        marks.push_back(60);
        assert_eq!(due(&mut marks, false, 65), Some(10));
        assert_eq!(due(&mut marks, false, 66), None);
        assert_eq!(due(&mut marks, true, 100_000), Some(60_000));
    }
}
