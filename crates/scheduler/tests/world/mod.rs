//! A store, and the scheduler that follows it.

use std::time::{Duration, Instant};

use objects::Pool;
use scheduler::{Decision, Silence, Waiting};
use serde_json::Value;
use store::{Memory, Store, Txn};

/// Longer than any pod rests.
const LONG: Duration = Duration::from_secs(10);

pub struct World {
    pub store: Memory,
    pub waiting: Waiting,
    pub now: Instant,
}

impl World {
    pub fn empty() -> Self {
        let store = Memory::default();
        let waiting = Waiting::load(store.snapshot(), &Pool::default());
        // Tests stand for the driver, which reads the clock.
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        World { store, waiting, now }
    }

    pub async fn put(&mut self, group: &str, plural: &str, namespace: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let key = objects::key(group, plural, namespace, name);
        self.store.txn(Txn::put(key, object.to_string())).await.unwrap();
        self.waiting.advance(self.store.snapshot());
    }

    /// The decisions, after everything that rests has rested.
    pub fn decisions(&mut self) -> Vec<Decision> {
        self.now += LONG;
        self.waiting.decide(&Silence::new(), usize::MAX, self.now)
    }
}
