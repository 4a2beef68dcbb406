//! What this host and its pods use, as the kubelet tells it: at `/metrics/resource`, `/metrics/cadvisor` and `/stats/summary`.

mod cadvisor;
pub(crate) mod disk;
pub(crate) mod machine;
mod rates;
mod resource;
pub(crate) mod storage;
mod summary;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tracing::info_span;

pub(crate) use cadvisor::cadvisor;
pub(crate) use rates::Rates;
pub(crate) use resource::resources;
pub(crate) use storage::StorageBook;
pub(crate) use summary::summary;

use self::disk::FileSystem;
use self::machine::Machine;
use self::storage::PodStorage;
use crate::container::cgroup::Memory;
use crate::pod::uid;
use crate::pods::PodHost;
use crate::runtime::{Usage, Which};

/// What a host and its pods use at one moment.
#[derive(Debug, Default)]
struct Gathered {
    node: String,
    at: Timestamp,
    machine: Machine,
    /// Billionths of a processor.
    rate: u64,
    /// How many processors it has, in thousandths.
    cpus: u64,
    /// What pods lie on.
    disk: Option<FileSystem>,
    /// What images lie on, and how many bytes they are.
    images: Option<(FileSystem, u64)>,
    pods: Vec<PodFigures>,
}

#[derive(Debug)]
struct PodFigures {
    pod: Arc<Pod>,
    containers: Vec<ContainerFigures>,
    /// Of the pod as a whole, if it is known.
    memory: Option<Memory>,
    /// Nothing until it was looked at.
    storage: Option<Arc<PodStorage>>,
}

#[derive(Debug)]
struct ContainerFigures {
    which: Which,
    since: Timestamp,
    usage: Usage,
    /// Billionths of a processor.
    rate: u64,
}

impl PodFigures {
    /// What it uses.
    fn usage(&self) -> Usage {
        Usage::of_pod(self.containers.iter().map(|one| one.usage), self.memory)
    }

    /// What its containers have of the processors, in billionths of one.
    fn rate(&self) -> u64 {
        self.containers.iter().fold(0, |sum, one| sum.saturating_add(one.rate))
    }
}

/// Asks everybody.
async fn gather(host: &Arc<PodHost>) -> Gathered {
    let mut used = host.runtime.usage().await;
    used.sort_by(|one, other| one.0.container.cmp(&other.0.container));
    let asked = host.clone();
    let machine = tasks::blocking(info_span!("what the host uses"), move || {
        let images = asked.containers.as_ref().ok().and_then(|images| {
            let all = images.list().iter().map(|image| image.size).sum();
            Some((FileSystem::of(&images.folder()).ok()?, all))
        });
        (Machine::read(), FileSystem::of(&asked.folders.pods()).ok(), images)
    });
    let (machine, disk, images) = machine.await.unwrap_or_default();
    let now = host.clock.now();
    let age = |since: Timestamp| Duration::try_from(now.wall.duration_since(since)).unwrap_or_default();
    let pods = host.resident_pods();
    let memory = host.runtime.memory_of_pods(pods.iter().map(|pod| uid(pod).to_owned()).collect()).await;
    let mut pods: Vec<PodFigures> = pods
        .into_iter()
        .map(|pod| {
            let own = used.iter().filter(|(which, ..)| which.uid == uid(&pod));
            let containers = own.map(|(which, since, usage)| ContainerFigures {
                which: which.clone(),
                since: *since,
                usage: *usage,
                rate: host.rates.of(Some(which.clone()), usage.cpu, age(*since), now.elapsed),
            });
            PodFigures {
                containers: containers.collect(),
                memory: memory.get(uid(&pod)).copied(),
                storage: host.storage.of(uid(&pod)),
                pod,
            }
        })
        .collect();
    pods.sort_by(|one, other| {
        let name = |figures: &PodFigures| {
            (figures.pod.metadata.namespace.clone(), figures.pod.metadata.name.clone())
        };
        name(one).cmp(&name(other))
    });
    host.rates.keep_only(|which| used.iter().any(|(known, ..)| known == which));
    let up = machine.since.map(age).unwrap_or_default();
    Gathered {
        node: host.name.clone(),
        at: now.wall,
        rate: host.rates.of(None, machine.usage.cpu, up, now.elapsed),
        cpus: host.capacity.0,
        machine,
        disk,
        images,
        pods,
    }
}
