//! What the parts of a host measure, for `/metrics`.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::sealing::Encryption;

/// How much the controllers have to do.
#[allow(clippy::disallowed_methods, reason = "what waits is as old as it is now")]
pub fn queue_metrics(load: watch::Receiver<Vec<controllers::Load>>) -> server::Measure {
    Box::new(move |out| controllers::write_metrics(out, &load.borrow(), Instant::now()))
}

/// What the scheduler did and what waits for it.
pub fn placing_metrics(placing: Arc<scheduler::Metrics>) -> server::Measure {
    Box::new(move |out| placing.write(out))
}

/// Which keys open what is encrypted at rest.
pub fn encryption_metrics(encryption: Arc<Encryption>) -> server::Measure {
    Box::new(move |out| encryption.write_metrics(out))
}

/// Which names were asked for, and what it took.
pub fn names_metrics(names: Arc<dns::Metrics>) -> server::Measure {
    Box::new(move |out| names.write(out))
}
