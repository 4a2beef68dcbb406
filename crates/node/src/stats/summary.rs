//! `/stats/summary`, in the kubelet's words (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::disk::{FileSystem, Tree};
use super::{ContainerFigures, Gathered, PodFigures, gather};
use crate::clock::rfc3339;
use crate::pods::PodHost;
use crate::runtime::Usage;

/// The summary; without what isn't processors and memory if `only_basics` (`only_cpu_and_memory`).
pub(crate) async fn summary(host: &Arc<PodHost>, only_basics: bool) -> Value {
    told(&gather(host).await, only_basics)
}

fn told(all: &Gathered, only_basics: bool) -> Value {
    let time = rfc3339(all.at);
    let mut node = json!({
        "nodeName": all.node,
        "cpu": cpu(&time, all.machine.usage, all.rate),
        "memory": memory(&time, all.machine.usage, Some(all.machine.memory)),
        "swap": {"time": time, "swapAvailableBytes": all.machine.swap.free,
            "swapUsageBytes": all.machine.swap.total.saturating_sub(all.machine.swap.free)},
    });
    node["startTime"] = all.machine.since.map_or(Value::Null, |since| rfc3339(since).into());
    if !only_basics {
        if let Some(disk) = &all.disk {
            node["fs"] = whole(&time, disk);
        }
        if let Some((disk, images)) = &all.images {
            let mut images_disk = whole(&time, disk);
            images_disk["usedBytes"] = json!(images);
            // Containers write beside their pods' volumes.
            let containers = all.disk.as_ref().map(|disk| whole(&time, disk));
            node["runtime"] = json!({"imageFs": images_disk, "containerFs": containers});
        }
        node["rlimit"] = json!({"time": time, "maxpid": all.machine.most_processes, "curproc": all.machine.usage.processes});
    }
    let pods: Vec<Value> = all.pods.iter().map(|figures| pod(all, figures, &time, only_basics)).collect();
    json!({"node": node, "pods": pods})
}

fn cpu(time: &str, usage: Usage, rate: u64) -> Value {
    let had = u64::try_from(usage.cpu.as_nanos()).unwrap_or(u64::MAX);
    json!({"time": time, "usageNanoCores": rate, "usageCoreNanoSeconds": had})
}

fn memory(time: &str, usage: Usage, limit: Option<u64>) -> Value {
    let mut told = json!({
        "time": time,
        "usageBytes": usage.with_files,
        "workingSetBytes": usage.memory,
        "rssBytes": usage.rss,
        "pageFaults": usage.faults,
        "majorPageFaults": usage.major_faults,
    });
    if let Some(limit) = limit {
        told["availableBytes"] = json!(limit.saturating_sub(usage.memory));
    }
    told
}

/// A file system as it is.
fn whole(time: &str, disk: &FileSystem) -> Value {
    json!({
        "time": time,
        "availableBytes": disk.available,
        "capacityBytes": disk.capacity,
        "usedBytes": disk.used,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
    })
}

/// What folders take of the file system that they lie on.
fn part(time: &str, disk: Option<&FileSystem>, tree: Tree) -> Value {
    let mut told = disk.map_or_else(|| json!({"time": time}), |disk| whole(time, disk));
    (told["usedBytes"], told["inodesUsed"]) = (json!(tree.bytes), json!(tree.inodes));
    told
}

fn pod(all: &Gathered, figures: &PodFigures, time: &str, only_basics: bool) -> Value {
    let metadata = &figures.pod.metadata;
    let started = figures.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let (usage, rate) = (figures.usage(), figures.rate());
    let containers: Vec<Value> =
        figures.containers.iter().map(|one| container(all, figures, one, time, only_basics)).collect();
    let mut told = json!({
        "podRef": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "startTime": started,
        "containers": containers,
        "cpu": cpu(time, usage, rate),
        "memory": memory(time, usage, None),
        "process_stats": {"process_count": usage.processes},
    });
    if only_basics {
        return told;
    }
    let Some(storage) = &figures.storage else { return told };
    let looked = rfc3339(storage.at);
    let own = storage.volumes.iter().map(|(name, tree)| named(part(&looked, all.disk.as_ref(), *tree), name));
    let claimed = storage.claims.iter().map(|(name, (claim, disk))| {
        let mut volume = named(whole(&looked, disk), name);
        volume["pvcRef"] = json!({"name": claim, "namespace": metadata.namespace});
        volume
    });
    let volumes: Vec<Value> = own.chain(claimed).collect();
    if !volumes.is_empty() {
        told["volume"] = Value::Array(volumes);
    }
    told["ephemeral-storage"] = part(&looked, all.disk.as_ref(), storage.ephemeral(&figures.pod));
    told
}

fn named(mut volume: Value, name: &str) -> Value {
    volume["name"] = json!(name);
    volume
}

fn container(
    all: &Gathered,
    figures: &PodFigures,
    one: &ContainerFigures,
    time: &str,
    only_basics: bool,
) -> Value {
    let mut told = Map::new();
    told.insert("name".into(), json!(one.which.container));
    told.insert("startTime".into(), json!(rfc3339(one.since)));
    told.insert("cpu".into(), cpu(time, one.usage, one.rate));
    told.insert("memory".into(), memory(time, one.usage, None));
    let taken = figures.storage.as_ref().and_then(|storage| {
        let (root, logs) = storage.containers.get(&one.which.container)?;
        Some((rfc3339(storage.at), *root, *logs))
    });
    if let (Some((looked, root, logs)), false) = (taken, only_basics) {
        told.insert("rootfs".into(), part(&looked, all.disk.as_ref(), root));
        told.insert("logs".into(), part(&looked, all.disk.as_ref(), logs));
    }
    Value::Object(told)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::super::machine::{Machine, Swap};
    use super::super::storage::PodStorage;
    use super::*;
    use crate::container::cgroup::Memory;
    use crate::runtime::Which;

    fn gathered() -> Gathered {
        let at = |seconds: i64| Timestamp::from_second(1_700_000_000 + seconds).unwrap();
        let usage = Usage {
            cpu: Duration::from_secs(2),
            memory: 10,
            with_files: 20,
            rss: 5,
            faults: 3,
            major_faults: 1,
            processes: 4,
        };
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]},
            "status": {"startTime": "2023-11-14T22:13:20Z"}});
        let which = |name: &str| Which { uid: "u".into(), container: name.into(), attempt: 0 };
        let container = |name| ContainerFigures { which: which(name), since: at(0), usage, rate: 7 };
        let disk = FileSystem { capacity: 1000, available: 400, used: 500, inodes: 100, inodes_free: 90 };
        let storage = PodStorage {
            at: at(5),
            containers: [(
                "a".to_owned(),
                (
                    Tree { bytes: 30, inodes: 2, ..Tree::default() },
                    Tree { bytes: 4, inodes: 1, ..Tree::default() },
                ),
            )]
            .into(),
            volumes: [("v".to_owned(), Tree { bytes: 50, inodes: 3, ..Tree::default() })].into(),
            claims: [("data".to_owned(), ("claim".to_owned(), disk))].into(),
            rest: Tree::default(),
        };
        let machine = Machine {
            usage,
            memory: 100,
            most_processes: 4096,
            swap: Swap { total: 8, free: 6 },
            since: Some(at(-100)),
        };
        Gathered {
            node: "n1".into(),
            at: at(9),
            machine,
            rate: 11,
            cpus: 2000,
            disk: Some(disk),
            images: Some((disk, 77)),
            pods: vec![PodFigures {
                pod: serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(pod).unwrap().into(),
                containers: vec![container("a"), container("b")],
                memory: None,
                storage: Some(storage.into()),
            }],
        }
    }

    #[test]
    fn the_kubelets_words_are_used() {
        let told = told(&gathered(), false);
        let (node, pod) = (&told["node"], &told["pods"][0]);
        assert_eq!((&node["nodeName"], &node["startTime"]), (&json!("n1"), &json!("2023-11-14T22:11:40Z")));
        assert_eq!(
            node["cpu"],
            json!({"time": "2023-11-14T22:13:29Z", "usageNanoCores": 11, "usageCoreNanoSeconds": 2_000_000_000_u64})
        );
        assert_eq!(
            (&node["memory"]["availableBytes"], &node["memory"]["workingSetBytes"]),
            (&json!(90), &json!(10))
        );
        assert_eq!(
            node["fs"],
            json!({"time": "2023-11-14T22:13:29Z", "availableBytes": 400, "capacityBytes": 1000, "usedBytes": 500,
                "inodesFree": 90, "inodes": 100, "inodesUsed": 10})
        );
        assert_eq!(node["runtime"]["imageFs"]["usedBytes"], 77);
        assert_eq!((&node["rlimit"]["maxpid"], &node["rlimit"]["curproc"]), (&json!(4096), &json!(4)));
        assert_eq!(node["swap"]["swapUsageBytes"], 2);
        assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "d", "uid": "u"}));
        assert_eq!(pod["startTime"], "2023-11-14T22:13:20Z");
        assert_eq!((&pod["cpu"]["usageNanoCores"], &pod["memory"]["usageBytes"]), (&json!(14), &json!(40)));
        assert_eq!(pod["memory"]["availableBytes"], Value::Null, "nothing holds it");
        assert_eq!(pod["process_stats"]["process_count"], 8);
        assert_eq!(pod["containers"][0]["rootfs"]["usedBytes"], 30);
        assert_eq!(pod["containers"][0]["logs"]["inodesUsed"], 1);
        assert_eq!(pod["containers"][1].get("rootfs"), None, "not looked at yet");
        assert_eq!((&pod["volume"][0]["name"], &pod["volume"][0]["usedBytes"]), (&json!("v"), &json!(50)));
        assert_eq!(pod["volume"][1]["pvcRef"], json!({"name": "claim", "namespace": "d"}));
        assert_eq!(pod["ephemeral-storage"]["usedBytes"], 84);
        assert_eq!(pod["ephemeral-storage"]["time"], "2023-11-14T22:13:25Z", "when it was looked at");
    }

    #[test]
    fn what_ended_containers_left_in_memory_is_the_pods() {
        let mut all = gathered();
        all.pods[0].memory =
            Some(Memory { all: 900, working_set: 800, rss: 10, faults: 60, major_faults: 20 });
        let memory = &told(&all, false)["pods"][0]["memory"];
        assert_eq!((&memory["workingSetBytes"], &memory["usageBytes"]), (&json!(800), &json!(900)));
        assert_eq!(told(&all, false)["pods"][0]["process_stats"]["process_count"], 8);
    }

    #[test]
    fn who_wants_only_processors_and_memory_gets_no_more() {
        let told = told(&gathered(), true);
        for missing in ["/node/fs", "/node/rlimit", "/pods/0/volume", "/pods/0/containers/0/rootfs"] {
            assert_eq!(told.pointer(missing), None, "{missing}");
        }
        assert_eq!(told["pods"][0]["containers"][0]["memory"]["rssBytes"], 5);
    }
}
