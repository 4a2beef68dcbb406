//! Notices when the threads that answer the API answer nothing any more.
//!
//! The store and the heartbeats have threads of their own and would go on without them: the host would be a leader that
//! holds the virtual address and answers nobody, and nobody would miss it. So it gives both up and ends, and whatever
//! started it starts it again.

use std::sync::Arc;
use std::time::Duration;

use network::Network;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::engine::Engine;

/// How often the threads are asked, and how long each question waits.
const ASK: Duration = Duration::from_millis(250);
/// After this many questions in a row without an answer (5 s) they are given up. A machine with too much to do answers
/// one of them; a process that was paused misses but one.
const MISSES: u32 = 20;
/// How long leadership and address may take to be given up. Both run on other threads than those that hang.
const FAREWELL: Duration = Duration::from_secs(2);
/// What the process ends with: EX_SOFTWARE of sysexits(3).
const STATUS: i32 = 70;

/// Watches the threads of `answering` from others, and ends the process when they are stuck.
pub async fn watch(answering: Handle, engine: Engine, network: Arc<Network>) {
    unanswered(&answering, ASK, MISSES).await;
    tracing::error!(
        "the threads that answer the API have done nothing for {:?}: this host gives up leadership and the virtual \
         address, and ends to be started again",
        ASK * MISSES
    );
    let farewell = async {
        engine.shutdown().await;
        network.stop().await;
    };
    if timeout(FAREWELL, farewell).await.is_err() {
        tracing::error!("leadership or the virtual address could not be given up in time");
    }
    std::process::exit(STATUS);
}

/// Returns once `misses` questions in a row were not answered.
async fn unanswered(answering: &Handle, ask: Duration, misses: u32) {
    let mut missed = 0;
    while missed < misses {
        if timeout(ask, answering.spawn(async {})).await.is_ok() {
            missed = 0;
            sleep(ask).await;
        } else {
            missed += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use tokio::runtime::Builder;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn threads_that_hang_are_noticed_and_those_that_answer_are_left_alone() {
        let answering = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let asked = timeout(MS * 100, unanswered(answering.handle(), MS * 10, 1000)).await;
        assert!(asked.is_err(), "it answers");

        let (release, hang) = channel::<()>();
        answering.spawn(async move { hang.recv() });
        unanswered(answering.handle(), MS, 3).await;
        drop(release);
        answering.shutdown_background();
    }
}
