//! Leadership: never two at once, and soon somebody again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use etcd::Engine;
use store::Store;

use crate::etcds::{Etcds, leader, until};
use crate::link::How;

fn leads(engine: &Engine) -> bool {
    engine.leadership().borrow().is_me
}

/// Looks all the time, on a thread of its own, whether two lead at once.
fn watch_over(engines: Vec<Arc<Engine>>) -> impl FnOnce() {
    let stop = Arc::new(AtomicBool::new(false));
    let watching = std::thread::spawn({
        let stop = stop.clone();
        move || {
            while !stop.load(Ordering::Relaxed) {
                // The second look tells a handover between two looks from two leaders.
                let leaders = || engines.iter().map(|engine| leads(engine)).collect::<Vec<_>>();
                let (first, second) = (leaders(), leaders());
                let both = first.iter().zip(&second).filter(|(a, b)| **a && **b).count();
                assert!(both < 2, "two lead at once: {first:?}");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    });
    move || {
        stop.store(true, Ordering::Relaxed);
        watching.join().expect("never two leaders");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_is_followed_at_once_and_one_that_dies_when_its_lease_ends() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let first = etcds.engine("n1").await;
    assert_eq!(leader(&[&first]).await, 0);
    let term = first.leadership().borrow().term;
    let second = etcds.engine("n2").await;
    let third = etcds.engine("n3").await;
    until(|| (second.leadership().borrow().leader.as_deref() == Some("n1")).then_some(())).await;
    assert!(!leads(&second) && !leads(&third));
    first.shutdown().await;
    assert!(!leads(&first));
    until(|| leads(&second).then_some(())).await;
    assert!(second.leadership().borrow().term > term);

    drop(Arc::into_inner(second).expect("nobody else holds the engine"));
    until(|| leads(&third).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_stops_before_another_leads() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let (first, first_link) = etcds.linked("n1").await;
    leader(&[&first]).await;
    let (second, second_link) = etcds.linked("n2").await;
    let done = watch_over(vec![first.clone(), second.clone()]);
    let engines = [(&first, &first_link), (&second, &second_link)];
    for (round, how) in
        [How::Silent, How::Cut, How::Open(Duration::from_secs(5)), How::Silent].iter().enumerate()
    {
        let now = leader(&[&first, &second]).await;
        let ((old, link), (new, _)) = (engines[now], engines[1 - now]);
        until(|| new.leadership().borrow().leader.is_some().then_some(())).await;
        let cut = Instant::now();
        link.set(*how);
        until(|| (!leads(old)).then_some(())).await;
        until(|| leads(new).then_some(())).await;
        eprintln!("round {round}: led again {:?} after {how:?}", cut.elapsed());
        link.set(How::Open(Duration::ZERO));
        until(|| (old.leadership().borrow().leader == new.leadership().borrow().leader).then_some(())).await;
    }
    done();
}
