//! Notices when the threads that answer the API answer nothing any more.
//!
//! The store and the heartbeats have threads of their own and would go on without them: the host would be a leader that
//! holds the virtual address and answers nobody, and nobody would miss it. So it gives both up and ends, and whatever
//! started it starts it again. And who watches the watchman? The manager of services that started the process, where one did: it hears of
//! the answers, and what hears of none kills the process.

use std::sync::Arc;
use std::time::Duration;

use network::{Network, VirtualRouters};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tracing::debug_span;

use crate::engine::Engine;
use crate::service_manager::ServiceManager;

/// What the process ends with: EX_SOFTWARE of sysexits(3).
const STATUS: i32 = 70;

/// Watches the threads of `answering` from others, tells the manager that both live, and ends the process when those are stuck.
pub async fn watch(
    answering: Handle,
    engine: Engine,
    network: Arc<Network>,
    routers: Arc<Option<VirtualRouters>>,
    timeouts: config::Watchdog,
    manager: Arc<ServiceManager>,
) {
    unanswered(&answering, timeouts.every, misses(&timeouts), manager.feed(timeouts.every)).await;
    tracing::error!(
        "the threads that answer the API have done nothing for {:?}: this host gives up leadership and the virtual \
         address, and ends to be started again",
        timeouts.stuck_after
    );
    let farewell = async {
        engine.shutdown().await;
        network.stop().await;
        if let Some(routers) = &*routers {
            routers.stop().await;
        }
    };
    // All of them run on other threads than those that hang.
    if timeout(timeouts.farewell, farewell).await.is_err() {
        tracing::error!("leadership or a virtual address could not be given up in time");
    }
    std::process::exit(STATUS);
}

/// How many questions in a row go without an answer before the threads are given up. They are counted, as a process that
/// was paused misses but one, for however long.
fn misses(timeouts: &config::Watchdog) -> u32 {
    let misses = timeouts.stuck_after.as_nanos() / timeouts.every.as_nanos().max(1);
    u32::try_from(misses).unwrap_or(u32::MAX).max(1)
}

/// Returns once `misses` questions in a row were not answered; each answer goes to `answered`.
async fn unanswered(answering: &Handle, ask: Duration, misses: u32, mut answered: impl FnMut()) {
    let mut missed = 0;
    while missed < misses {
        if timeout(ask, tasks::spawn_on(answering, debug_span!("question"), async {})).await.is_ok() {
            missed = 0;
            answered();
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

    #[test]
    fn by_default_twenty_questions_are_missed_in_five_seconds() {
        let timeouts = config::Watchdog::default();
        assert_eq!(misses(&timeouts), 20);
        assert_eq!(misses(&config::Watchdog { stuck_after: MS, ..timeouts }), 1);
    }

    #[tokio::test]
    async fn threads_that_hang_are_noticed_and_those_that_answer_are_left_alone() {
        let answering = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let mut answers = 0;
        let asked = timeout(MS * 100, unanswered(answering.handle(), MS * 10, 1000, || answers += 1)).await;
        assert!(asked.is_err() && answers > 0, "it answers");

        let (release, hang) = channel::<()>();
        answering.spawn(async move { hang.recv() });
        unanswered(answering.handle(), MS, 3, || panic!("it answers though it hangs")).await;
        drop(release);
        answering.shutdown_background();
    }
}
