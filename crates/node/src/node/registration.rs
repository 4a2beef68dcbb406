//! What the host's Node object should say, and the changes that make it say so.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use machinery::Object;
use membership::lease::Epoch;
use objects::{FENCING, Grade, HEARTBEATS, LEASE_EPOCH, TypedRef, VOLUMES, Write};
use serde_json::{Map, Value, json};

use super::MachineInfo;
use crate::clock::rfc3339;
use crate::csi_volumes::NodeVolumes;
use crate::eviction::Pressures;
use crate::images::Present;
use crate::pod::difference;

/// Who the host is.
#[derive(Debug, Clone)]
pub(crate) struct NodeIdentity {
    pub name: String,
    pub address: IpAddr,
    pub pod_cidr: IpNet,
    pub port: u16,
    pub heartbeats: u16,
    /// What holds its pods to their limits, for people.
    pub cgroups: String,
    /// The folder in which the volumes of claims lie.
    pub volumes: String,
    /// The handlers of RuntimeClasses that it has.
    pub handlers: Vec<&'static str>,
    /// What it says of the volumes of CSI drivers.
    pub csi: NodeVolumes,
    /// The epoch of its lease, which it holds, with which pods stop that must not run twice.
    pub lease: Option<Epoch>,
    /// What stops them.
    pub grades: Vec<Grade>,
}

/// The annotation that says which controllers hold the host's pods to their limits.
const CGROUPS: &str = "holdfast.dev/cgroups";

/// The annotation that leaves attaching volumes to a controller (`pkg/volume/util`, `ControllerManagedAttachAnnotation`).
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// Times of heartbeat older than this are renewed (the kubelet's `nodeStatusReportFrequency`): the lease, which is far
/// smaller, says more often that the host lives.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(300);

/// How many pods the Node says it takes: a host's usual range, a /24, has addresses for little more. The kubelet's default of
/// 110 (`maxPods`) is for machines on which each pod is a machine's worth of containers.
const PODS: &str = "250";

/// The changes that are due, given the Node object as stored.
pub(crate) fn due(
    who: &NodeIdentity,
    machine: &MachineInfo,
    stored: Option<&Value>,
    now: Timestamp,
) -> Vec<Write> {
    let Some(stored) = stored else {
        let mut node = json!({
            "kind": "Node", "apiVersion": "v1",
            "metadata": {"name": who.name, "labels": labels(who, machine), "annotations": annotations(who)},
            "spec": spec(who),
        });
        node["status"] = status(who, machine, &Value::Null, now);
        return Object::from_value(node).map(Write::Create).into_iter().collect();
    };
    let mut writes = Vec::new();
    let mut wanted = stored.clone();
    for (name, value) in labels(who, machine).as_object().into_iter().flatten() {
        wanted["metadata"]["labels"][name] = value.clone();
    }
    for (name, value) in annotations(who).as_object().into_iter().flatten() {
        wanted["metadata"]["annotations"][name] = value.clone();
    }
    if stored["spec"]["podCIDR"].is_null() {
        wanted["spec"]["podCIDR"] = json!(who.pod_cidr);
        wanted["spec"]["podCIDRs"] = json!([who.pod_cidr]);
    }
    let subject = TypedRef {
        api_version: "v1".into(),
        kind: "Node".into(),
        namespace: String::new(),
        name: who.name.clone(),
    };
    if let Some(patch) = difference(stored, &wanted) {
        writes.push(Write::Merge { subject: subject.clone(), subresource: "", patch });
    }
    let before = &stored["status"];
    if let Some(patch) = difference(before, &status(who, machine, before, now)) {
        let patch = json!({"status": patch});
        writes.push(Write::Merge { subject, subresource: "status", patch });
    }
    writes
}

fn labels(who: &NodeIdentity, machine: &MachineInfo) -> Value {
    json!({
        "beta.kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "kubernetes.io/hostname": who.name,
        "kubernetes.io/os": "linux",
        "node-role.kubernetes.io/control-plane": "",
    })
}

fn annotations(who: &NodeIdentity) -> Value {
    let mut said = json!({HEARTBEATS: who.heartbeats.to_string(), CGROUPS: who.cgroups, VOLUMES: who.volumes, MANAGED: "true"});
    // While it holds none, what it said last stands: the leader goes by that.
    if let Some(epoch) = who.lease {
        said[FENCING] = Grade::listed(&who.grades).into();
        said[LEASE_EPOCH] = epoch.to_string().into();
    }
    said
}

fn spec(who: &NodeIdentity) -> Value {
    json!({"podCIDR": who.pod_cidr, "podCIDRs": [who.pod_cidr]})
}

fn status(who: &NodeIdentity, machine: &MachineInfo, before: &Value, now: Timestamp) -> Value {
    let mut status = before.as_object().cloned().unwrap_or_default();
    let resources = json!({
        "cpu": machine.cpus.to_string(),
        "ephemeral-storage": format!("{}Ki", machine.disk_kib),
        "memory": format!("{}Ki", machine.memory_kib),
        "pods": PODS,
    });
    status.insert("capacity".into(), resources.clone());
    status.insert("allocatable".into(), resources);
    status.insert("conditions".into(), conditions(machine, before, now));
    status.insert(
        "addresses".into(),
        json!([
            {"type": "InternalIP", "address": who.address.to_string()},
            {"type": "Hostname", "address": who.name},
        ]),
    );
    status.insert("daemonEndpoints".into(), json!({"kubeletEndpoint": {"Port": who.port}}));
    status.insert(
        "nodeInfo".into(),
        json!({
            "machineID": machine.machine_id,
            "systemUUID": machine.machine_id,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": concat!("host://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": "v1.36.2+holdfast",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": machine.architecture,
        }),
    );
    let handlers = who.handlers.iter().map(|name| json!({"name": name})).collect();
    status.insert("runtimeHandlers".into(), Value::Array(handlers));
    match who.csi.in_use.is_empty() {
        true => _ = status.remove("volumesInUse"),
        false => _ = status.insert("volumesInUse".into(), json!(who.csi.in_use)),
    }
    match images(&machine.images) {
        Value::Array(images) if images.is_empty() => _ = status.remove("images"),
        images => _ = status.insert("images".into(), images),
    }
    Value::Object(status)
}

/// How many images the Node tells, and how many names of each: the kubelet's `nodeStatusMaxImages` and
/// `MaxNamesPerImageInNodeStatus`.
const IMAGES: usize = 50;
const NAMES: usize = 5;

/// The largest images that the host has, for the scheduler.
fn images(there: &[Present]) -> Value {
    let mut there: Vec<&Present> = there.iter().collect();
    there.sort_by(|one, other| other.size.cmp(&one.size).then_with(|| one.names.cmp(&other.names)));
    let told = there.into_iter().take(IMAGES);
    told.map(
        |image| json!({"names": image.names.iter().take(NAMES).collect::<Vec<_>>(), "sizeBytes": image.size}),
    )
    .collect()
}

fn conditions(machine: &MachineInfo, before: &Value, now: Timestamp) -> Value {
    let Pressures { memory, disk, pid } = machine.pressures;
    let ours = [
        (
            "MemoryPressure",
            memory,
            match memory {
                true => ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                false => ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            },
        ),
        (
            "DiskPressure",
            disk,
            match disk {
                true => ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                false => ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            },
        ),
        (
            "PIDPressure",
            pid,
            match pid {
                true => ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                false => ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            },
        ),
        (
            "Ready",
            !machine.is_closing,
            match machine.is_closing {
                true => ("KubeletNotReady", "node is shutting down"),
                false => ("KubeletReady", "kubelet is posting ready status"),
            },
        ),
    ];
    let known = |kind: &str| before["conditions"].as_array()?.iter().find(|c| c["type"] == kind);
    let is_same = |(kind, holds, (reason, _)): &(&str, bool, (&str, &str))| {
        let status = if *holds { "True" } else { "False" };
        known(kind).is_some_and(|c| c["status"] == status && c["reason"] == *reason)
    };
    let beat = |kind: &str| known(kind)?["lastHeartbeatTime"].as_str()?.parse::<Timestamp>().ok();
    let fresh = |kind: &str| {
        beat(kind).is_some_and(|at| {
            let age = now.duration_since(at);
            // A time in the future is another clock's: renewed too.
            age.as_secs() >= -5 && age.unsigned_abs() < HEARTBEAT
        })
    };
    let renew = !ours.iter().all(|c| is_same(c) && fresh(c.0));
    let mut list = Vec::new();
    for (kind, holds, (reason, message)) in &ours {
        let status = if *holds { "True" } else { "False" };
        let before = known(kind);
        let since = before.filter(|c| c["status"] == status).and_then(|c| c["lastTransitionTime"].as_str());
        let heard = before.and_then(|c| c["lastHeartbeatTime"].as_str()).filter(|_| !renew);
        let mut condition = Map::new();
        condition.insert("type".into(), (*kind).into());
        condition.insert("status".into(), status.into());
        condition
            .insert("lastHeartbeatTime".into(), heard.map_or_else(|| rfc3339(now), str::to_owned).into());
        condition
            .insert("lastTransitionTime".into(), since.map_or_else(|| rfc3339(now), str::to_owned).into());
        condition.insert("reason".into(), (*reason).into());
        condition.insert("message".into(), (*message).into());
        list.push(Value::Object(condition));
    }
    let others = before["conditions"].as_array().into_iter().flatten();
    list.extend(others.filter(|c| !ours.iter().any(|(kind, ..)| c["type"] == *kind)).cloned());
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> NodeIdentity {
        NodeIdentity {
            name: "n1".into(),
            address: "127.0.1.1".parse().unwrap(),
            pod_cidr: "127.1.0.0/16".parse().unwrap(),
            port: 10250,
            heartbeats: 2381,
            cgroups: "cpu,memory".into(),
            volumes: "/data/volumes".into(),
            handlers: vec!["", "host", "oci"],
            csi: NodeVolumes::default(),
            lease: None,
            grades: vec![Grade::Lease],
        }
    }

    fn machine() -> MachineInfo {
        MachineInfo {
            cpus: 2,
            memory_kib: 4 << 20,
            disk_kib: 100 << 20,
            architecture: "amd64".into(),
            ..MachineInfo::default()
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn registered() -> Value {
        match due(&who(), &machine(), None, at(0)).remove(0) {
            Write::Create(node) => node.into_value(),
            other => panic!("{other:?}"),
        }
    }

    /// The names of the status fields that are written.
    fn written(node: &Value, machine: &MachineInfo, now: Timestamp) -> Vec<String> {
        let writes = due(&who(), machine, Some(node), now);
        let patches = writes.iter().map(|write| match write {
            Write::Merge { subresource: "status", patch, .. } => patch["status"].as_object().unwrap(),
            Write::Merge { patch, .. } => patch.as_object().unwrap(),
            other => panic!("{other:?}"),
        });
        patches.flat_map(|patch| patch.keys().cloned()).collect()
    }

    #[test]
    fn a_host_writes_only_what_is_due() {
        let node = registered();
        let nothing: [&str; 0] = [];
        assert_eq!(written(&node, &machine(), at(10)), nothing, "nothing changed");
        assert_eq!(written(&node, &machine(), at(300)), ["conditions"], "a heartbeat every five minutes");
        assert_eq!(written(&node, &MachineInfo { cpus: 3, ..machine() }, at(1)), ["allocatable", "capacity"]);

        let mut away = node.clone();
        let ready = away["status"]["conditions"].as_array_mut().unwrap().last_mut().unwrap();
        ready["status"] = "Unknown".into();
        ready["reason"] = "NodeStatusUnknown".into();
        assert_eq!(written(&away, &machine(), at(1)), ["conditions"], "back at once");

        let mut stripped = node.clone();
        stripped["metadata"]["labels"].as_object_mut().unwrap().remove("kubernetes.io/os");
        stripped["metadata"]["labels"]["own"] = "kept".into();
        stripped.as_object_mut().unwrap().remove("status");
        let all = written(&stripped, &machine(), at(1));
        assert!(all.contains(&"metadata".to_owned()) && all.contains(&"nodeInfo".to_owned()), "{all:?}");

        let other = NodeIdentity { cgroups: "none".into(), ..who() };
        let writes = due(&other, &machine(), Some(&node), at(1));
        let [Write::Merge { subresource: "", patch, .. }] = writes.as_slice() else {
            panic!("one change, of metadata: {writes:?}")
        };
        assert_eq!(*patch, json!({"metadata": {"annotations": {"holdfast.dev/cgroups": "none"}}}));

        let in_use = ["kubernetes.io/csi/d^1".to_owned()].into();
        let using = NodeIdentity { csi: NodeVolumes { generation: 1, in_use }, ..who() };
        let writes = due(&using, &machine(), Some(&node), at(1));
        let [Write::Merge { subresource: "status", patch, .. }] = writes.as_slice() else {
            panic!("one change, of the status: {writes:?}")
        };
        assert_eq!(*patch, json!({"status": {"volumesInUse": ["kubernetes.io/csi/d^1"]}}));
        let mut used = node.clone();
        used["status"]["volumesInUse"] = json!(["kubernetes.io/csi/d^1"]);
        assert_eq!(written(&used, &machine(), at(1)), ["volumesInUse"], "nothing is used any more");
        let held = NodeIdentity { lease: Some(7), ..who() };
        let writes = due(&held, &machine(), Some(&node), at(1));
        let [Write::Merge { patch, .. }] = writes.as_slice() else { panic!("one change: {writes:?}") };
        assert_eq!(patch["metadata"]["annotations"], json!({FENCING: "lease", LEASE_EPOCH: "7"}));
        let watched = NodeIdentity { grades: vec![Grade::Lease, Grade::Watchdog], ..held };
        let writes = due(&watched, &machine(), Some(&node), at(1));
        let [Write::Merge { patch, .. }] = writes.as_slice() else { panic!("one change: {writes:?}") };
        assert_eq!(patch["metadata"]["annotations"][FENCING], "lease,watchdog");

        let image = |name: &str, size: u64| Present { names: vec![name.into()], size };
        let images = MachineInfo { images: vec![image("a", 1), image("b", 2)], ..machine() };
        assert_eq!(written(&node, &images, at(1)), ["images"]);
        let mut having = node.clone();
        having["status"]["images"] =
            json!([{"names": ["b"], "sizeBytes": 2}, {"names": ["a"], "sizeBytes": 1}]);
        assert_eq!(written(&having, &images, at(1)), nothing, "the largest first");
        assert_eq!(written(&having, &machine(), at(1)), ["images"], "all are gone");

        let closing = MachineInfo { is_closing: true, ..machine() };
        assert_eq!(written(&node, &closing, at(1)), ["conditions"]);
        let told = conditions(&closing, &node["status"], at(1));
        let ready = told.as_array().unwrap().last().unwrap();
        assert_eq!((&ready["status"], &ready["message"]), (&json!("False"), &json!("node is shutting down")));

        let pressures = Pressures { disk: true, pid: true, ..Pressures::default() };
        let full = MachineInfo { pressures, ..machine() };
        assert_eq!(written(&node, &full, at(1)), ["conditions"], "a full disk");
        let told = conditions(&full, &node["status"], at(1));
        let reasons: Vec<_> =
            told.as_array().unwrap().iter().map(|c| c["reason"].as_str().unwrap()).collect();
        let expected = [
            "KubeletHasSufficientMemory",
            "KubeletHasDiskPressure",
            "KubeletHasInsufficientPID",
            "KubeletReady",
        ];
        assert_eq!(reasons, expected);
    }
}
