//! The volumes of a pod in memory (`emptyDir` with `medium: Memory`).

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, Volume};
use store::State;

use super::PodHost;
use super::handler::Handler;
use crate::container::{cgroup, in_units, is_in_memory, volume_group};
use crate::oci::InMemory;
use crate::pod::uid;

impl PodHost {
    /// Whether a pod can have volumes in memory: what processes of the host have is a folder on the disk.
    pub(crate) fn has_memory(&self, pod: &Pod, state: &State) -> bool {
        matches!(self.handler(pod, state), Ok(Handler::Oci | Handler::Foreign))
    }

    /// What its shim is to make.
    pub(super) fn in_memory(&self, pod: &Pod) -> Vec<InMemory> {
        let volumes = self.folders.pod(uid(pod)).join("volumes");
        self.memory_in(pod, |volume| volumes.join(volume))
    }

    /// What the agent is to make for the runtime of others.
    pub(super) fn foreign_memory(&self, pod: &Pod) -> Vec<InMemory> {
        self.memory_in(pod, |volume| self.folders.foreign_memory(uid(pod), volume))
    }

    fn memory_in(&self, pod: &Pod, folder: impl Fn(&str) -> PathBuf) -> Vec<InMemory> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let one = |volume: &Volume| InMemory {
            folder: folder(&volume.name),
            size: room(volume, pod, self.capacity.1),
            group: volume_group(pod),
        };
        volumes.filter(|volume| is_in_memory(volume)).map(one).collect()
    }
}

/// How many bytes a volume in memory holds: no more than the host has, its pod may have, and it says itself
/// (upstream's `calculateEmptyDirMemorySize`).
fn room(volume: &Volume, pod: &Pod, memory: u64) -> u64 {
    let said = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref());
    let said = said.and_then(|limit| u64::try_from(in_units(&limit.0, "1")?).ok()).filter(|limit| *limit > 0);
    let of_pod = cgroup::of_pod(pod).memory.filter(|limit| *limit > 0);
    [said, of_pod].into_iter().flatten().fold(memory, u64::min)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_in_memory_holds_what_the_least_of_all_limits_allows() {
        for (volume, limit, expected) in [
            (json!({"medium": "Memory"}), None, 1 << 30),
            (json!({"medium": "Memory"}), Some("64Mi"), 64 << 20),
            (json!({"medium": "Memory", "sizeLimit": "1Mi"}), Some("64Mi"), 1 << 20),
            (json!({"medium": "Memory", "sizeLimit": "128Mi"}), Some("64Mi"), 64 << 20),
            (json!({"medium": "Memory", "sizeLimit": "2Gi"}), None, 1 << 30),
            (json!({"medium": "Memory", "sizeLimit": "0"}), None, 1 << 30),
        ] {
            let resources = limit.map(|limit| json!({"limits": {"memory": limit}}));
            let pod = json!({"spec": {"containers": [{"name": "a", "resources": resources}],
                "volumes": [{"name": "v", "emptyDir": volume}]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let of = pod.spec.as_ref().unwrap().volumes.as_ref().unwrap();
            assert_eq!(room(&of[0], &pod, 1 << 30), expected, "{volume} {limit:?}");
        }
    }
}
