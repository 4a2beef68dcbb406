//! Linearizable reads: how far etcd is, asked once for all who wait.

use std::time::Duration;

use store::Revision;
use tokio::sync::{mpsc, oneshot};

use super::keys::Keys;
use super::translate::revision;
use crate::proto::RangeRequest;
use crate::{Client, Status};

/// Before a read that failed is tried again: an etcd that elects a leader refuses at once, for a second or so.
const PAUSE: Duration = Duration::from_millis(20);

/// A caller that waits for an answer.
pub type Waiting = oneshot::Sender<Result<Revision, Status>>;

/// Asks etcd for its newest revision whenever somebody wants to know, and answers all who came before it was
/// asked.
pub async fn run(client: Client, keys: Keys, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    while let Some(first) = waiting.recv().await {
        let mut asking = vec![first];
        while let Ok(more) = waiting.try_recv() {
            asking.push(more);
        }
        let question = RangeRequest { key: keys.cluster(), count_only: true, ..RangeRequest::default() };
        let answer = client.range(question).await.map(|answer| revision(answer.header.as_ref()));
        let failed = answer.is_err();
        for asker in asking {
            // A caller that doesn't wait any more needs no answer.
            let _ = asker.send(answer.clone());
        }
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
