//! Work that only the leader does.

use std::pin::pin;

use tokio::sync::watch;

use crate::{Leadership, Store};

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
