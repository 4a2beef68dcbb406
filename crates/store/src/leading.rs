//! Work that only the leader does.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::{Leadership, State, Store};

/// How long changes are collected while another member leads, before they are taken in together: often enough that a
/// takeover finds little to do, seldom enough that following costs next to nothing.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

/// Work of the leader that keeps ready for it while another member leads.
pub trait Duty {
    /// Takes a newer state in. Another member leads.
    fn follow(&mut self, state: Arc<State>);

    /// Does the work, from the newest state on, until it is dropped because leadership is lost.
    fn lead(&mut self) -> impl Future<Output = ()> + Send;
}

/// Keeps `duty` ready, and has it lead whenever this member does: so a takeover begins with what it knows already.
/// Returns when the work ends by itself, or the store does.
pub async fn keep_ready(store: &dyn Store, duty: &mut impl Duty) {
    let (mut leadership, mut states) = (store.leadership(), store.states());
    loop {
        if leadership.borrow_and_update().is_me {
            let work = pin!(duty.lead());
            tokio::select! {
                biased;
                () = lost(&mut leadership) => {}
                () = work => return,
            }
            continue;
        }
        let changed = tokio::select! {
            biased;
            changed = leadership.changed() => changed,
            changed = collected(&mut states) => {
                duty.follow(states.borrow_and_update().clone());
                changed
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn collected(states: &mut watch::Receiver<Arc<State>>) -> Result<(), watch::error::RecvError> {
    states.changed().await?;
    tokio::time::sleep(FOLLOW_EVERY).await;
    Ok(())
}

/// Does `work` whenever this member leads: it is started with each leadership and dropped when that is lost.
/// Returns when the work ends by itself, or the store does.
pub async fn while_leading<W: Future<Output = ()>>(store: &dyn Store, work: impl Fn() -> W) {
    let mut leadership = store.leadership();
    loop {
        if leadership.borrow_and_update().is_me {
            let work = pin!(work());
            tokio::select! {
                biased;
                () = lost(&mut leadership) => {}
                () = work => return,
            }
        } else if leadership.changed().await.is_err() {
            return;
        }
    }
}

async fn lost(leadership: &mut watch::Receiver<Leadership>) {
    while leadership.borrow_and_update().is_me {
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::{Memory, Revision, Txn};

    struct Noted(Sender<(&'static str, Revision)>);

    impl Duty for Noted {
        fn follow(&mut self, state: Arc<State>) {
            let _ = self.0.send(("follows", state.revision()));
        }

        async fn lead(&mut self) {
            let _ = self.0.send(("leads", Revision::ZERO));
            std::future::pending::<()>().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_duty_follows_in_steps_until_it_leads() {
        let store = Arc::new(Memory::default());
        store.set_leading(false);
        let (told, seen) = channel();
        let kept = tokio::spawn({
            let store = store.clone();
            async move { keep_ready(&*store, &mut Noted(told)).await }
        });
        tokio::task::yield_now().await;
        for value in ["1", "2", "3"] {
            store.txn(Txn::put("k", value)).await.unwrap();
        }
        tokio::time::sleep(FOLLOW_EVERY * 2).await;
        let last = store.snapshot().revision();
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [("follows", last)], "three changes in one step");

        store.set_leading(true);
        tokio::time::sleep(FOLLOW_EVERY).await;
        store.txn(Txn::put("k", "4")).await.unwrap();
        tokio::time::sleep(FOLLOW_EVERY * 2).await;
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), [("leads", Revision::ZERO)]);

        store.set_leading(false);
        tokio::time::sleep(FOLLOW_EVERY).await;
        store.txn(Txn::put("k", "5")).await.unwrap();
        tokio::time::sleep(FOLLOW_EVERY * 2).await;
        assert!(seen.try_iter().all(|(what, _)| what == "follows"));
        kept.abort();
    }
}
