//! The server against many answers of a kube-apiserver 1.36: one field at a time set to what may be wrong with it,
//! several writers over one object, and expressions of CEL. Each test holds a floor of how many are alike, which only
//! goes up. With `HOLDFAST_DIFFERENCES=FOLDER`, every one that differs is written there, one a line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod expressions;
mod fields;
mod flat;
#[path = "../api/house.rs"]
#[allow(dead_code, reason = "the other tests of the server use the rest")]
mod house;
mod report;
mod testdata;
mod writers;

use std::thread;

/// Does parts of a job side by side, each on a thread with a runtime whose time is paused.
fn side_by_side<P: Send, T: Send>(parts: Vec<P>, work: impl AsyncFn(P) -> T + Sync) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let run = move |part| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().start_paused(true).build().unwrap().block_on(work(part))
        };
        let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || run(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
