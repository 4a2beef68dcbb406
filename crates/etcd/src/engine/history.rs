//! The leader forgets old history: what is older than five minutes, and more than anybody needs.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::Duration;

use store::{HISTORY_BYTES, Revision, Store};
use tokio::time::MissedTickBehavior;

use super::Engine;

/// How often the size of the history is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often the revision of the time is noted. A whole number of looks.
const MARK_EVERY: Duration = Duration::from_secs(60);
/// History is compacted to a mark once there are this many newer ones: then it is five minutes old.
const NEWER_MARKS: usize = 5;

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
        if let Some(revision) = due(&mut marks).max(state.too_much_history(HISTORY_BYTES))
            && revision > state.compacted()
            && let Err(error) = engine.compact(revision).await
        {
            tracing::warn!(%error, %revision, "etcd's history was not compacted; it is tried again");
            marks.push_front(revision);
        }
    }
}

fn due(marks: &mut VecDeque<Revision>) -> Option<Revision> {
    if marks.len() > NEWER_MARKS { marks.pop_front() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_are_kept() {
        let mut marks = VecDeque::from([10, 20, 30, 40, 50].map(Revision));
        assert_eq!(due(&mut marks), None);
        marks.push_back(Revision(60));
        assert_eq!(due(&mut marks), Some(Revision(10)));
        assert_eq!(due(&mut marks), None);
    }
}
