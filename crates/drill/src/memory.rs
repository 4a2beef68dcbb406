//! What a cut costs in memory: the hosts' own processes before it, and the new leader's afterwards.

use crate::Site;
use crate::report::MemoryOfRun;
use std::collections::BTreeMap;

/// What each host held just before a cut, in bytes, where the site tells.
pub(crate) struct Memories(BTreeMap<String, u64>);

impl Memories {
    /// Looks at every host, and lets the peaks count from here.
    pub(crate) async fn before(site: &dyn Site) -> Self {
        let mut held = BTreeMap::new();
        for host in site.hosts() {
            if let Some(memory) = site.memory(&host).await {
                held.insert(host, memory.resident);
            }
        }
        site.forget_peaks().await;
        Memories(held)
    }

    /// The same and what the new leader has held since.
    pub(crate) async fn after(
        self,
        site: &dyn Site,
        target: &str,
        new_leader: String,
    ) -> Option<MemoryOfRun> {
        let peak = site.memory(&new_leader).await?.peak;
        Some(MemoryOfRun {
            leader_before_bytes: *self.0.get(target)?,
            new_leader_before_bytes: *self.0.get(&new_leader)?,
            new_leader,
            new_leader_peak_bytes: peak,
        })
    }
}
