//! Steps in an order of chance, which a seed repeats.
#![allow(clippy::unwrap_used)]

use crate::cluster::Cluster;
use controllers::Key;

/// A number that the environment gives.
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// A pinch of randomness that a failing case repeats.
pub struct Dice(pub u64);

impl Dice {
    /// A number below a bound.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    /// Lets somebody act: a controller on one of the keys that are due, the scheduler, or a host on a pod. False if nothing
    /// came of it.
    pub async fn step(&mut self, cluster: &mut Cluster, due: &[Key]) -> bool {
        match self.below(4) {
            0 | 1 if !due.is_empty() => {
                cluster.reconcile(due[self.below(due.len())].clone()).await;
                true
            }
            2 => cluster.place().await,
            3 => cluster.run_pods(1).await,
            _ => false,
        }
    }
}
