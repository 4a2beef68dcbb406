//! etcd as the engine, against real etcds where etcd is installed.
#![allow(clippy::disallowed_methods)] // A test is a driver.
#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

mod etcds;
mod faults;
mod leading;
mod link;
mod sharing;
mod start;
#[path = "../../../store/tests/suite/mod.rs"]
mod suite;

use etcds::Etcds;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_an_engine() {
    let Some(etcds) = Etcds::start(1).await else { return };
    suite::run(etcds.engine("n1").await).await;
}
