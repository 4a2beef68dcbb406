//! What a pod hears that must go, in the kubelet's words (`pkg/kubelet/eviction/helpers.go`).

use k8s_openapi::api::core::v1::Pod;

use super::signals::{Left, Threshold};
use crate::container::in_units;
use crate::stats::disk::{DEEPEST, MOST};
use crate::stats::storage::{LONGEST, PodStorage, written};

use super::ranking::limited;

const STORAGE: &str = "ephemeral-storage";

/// An amount as Kubernetes writes it in powers of two: the largest unit of which it is a whole number.
pub(crate) fn binary(amount: u64) -> String {
    let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let power = if amount == 0 { 0 } else { (amount.trailing_zeros() / 10).min(6) };
    format!("{}{}", amount >> (10 * power), units.get(power as usize).unwrap_or(&""))
}

/// Why a pod goes when the host is short of something. `used` says what each of its containers uses of it.
pub(crate) fn short(threshold: &Threshold, left: Option<Left>, pod: &Pod, used: &[(String, u64)]) -> String {
    let resource = threshold.signal.resource();
    let mut message = format!("The node was low on resource: {resource}. ");
    if let Some(left) = left {
        let (below, available) = (binary(threshold.below.of(left.whole)), binary(left.available));
        message += &format!("Threshold quantity: {below}, available: {available}. ");
    }
    for (name, used) in used {
        let spec = pod.spec.iter().flat_map(|spec| &spec.containers).find(|spec| spec.name == *name);
        let Some(spec) = spec else { continue };
        let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let asked = requests.and_then(|requests| requests.get(resource)).map_or("0", |asked| &*asked.0);
        if in_units(asked, "1").is_none_or(|asked| i128::from(*used) > asked) {
            message += &format!(
                "Container {name} was using {}, request is {asked}, has larger consumption of {resource}. ",
                binary(*used)
            );
        }
    }
    message
}

/// That a pod has more on the disk than is looked at.
pub(crate) fn unseen() -> String {
    format!(
        "The pod's folders hold more than is looked at ({MOST} names, {DEEPEST} levels, {} s). ",
        LONGEST.as_secs()
    )
}

/// Why a pod goes that takes more of the disk than it may, if it does: a volume, all of it, or one of its containers. One that has more
/// than is looked at is beyond any limit: else nothing would hold it.
pub(crate) fn beyond_limit(pod: &Pod, storage: &PodStorage) -> Option<String> {
    if storage.ephemeral(pod).is_partial && storage.is_limited(pod) {
        return Some(format!("{}That counts as beyond its limits of local ephemeral storage. ", unseen()));
    }
    for volume in written(pod) {
        let limit = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref());
        let (Some(limit), Some(tree)) = (limit, storage.volumes.get(&volume.name)) else { continue };
        let most = in_units(&limit.0, "1").filter(|most| *most > 0);
        if most.is_some_and(|most| i128::from(tree.bytes) > most) {
            return Some(format!(
                "Usage of EmptyDir volume {:?} exceeds the limit {:?}. ",
                volume.name, limit.0
            ));
        }
    }
    if let Some(most) = limited(pod, STORAGE)
        && storage.ephemeral(pod).bytes > most
    {
        let most = binary(most);
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {most}. "
        ));
    }
    for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let limit = limits.and_then(|limits| limits.get(STORAGE));
        let (Some(limit), Some((root, logs))) = (limit, storage.containers.get(&container.name)) else {
            continue;
        };
        let used = root.and(*logs).bytes;
        if in_units(&limit.0, "1").is_some_and(|most| i128::from(used) > most) {
            let name = &container.name;
            return Some(format!(
                "Container {name} exceeded its local ephemeral storage limit {:?}. ",
                limit.0
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::signals::{Bound, Signal};
    use super::*;
    use crate::stats::disk::Tree;

    #[test]
    fn amounts_are_written_as_kubernetes_does() {
        for (amount, text) in [
            (0, "0"),
            (1000, "1000"),
            (1024, "1Ki"),
            (1536, "1536"),
            (100 << 20, "100Mi"),
            (3 << 29, "1536Mi"),
        ] {
            assert_eq!(binary(amount), text);
        }
    }

    fn pod(containers: Value, volumes: Value) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": containers, "volumes": volumes}})).unwrap()
    }

    #[test]
    fn a_pod_hears_what_the_host_lacks_and_who_takes_it() {
        let pod = pod(
            json!([{"name": "a", "resources": {"requests": {"memory": "1Mi"}}}, {"name": "b"}]),
            json!([]),
        );
        let threshold = Threshold::hard(Signal::Memory, Bound::Percent(10.0));
        let left = Some(Left { whole: 1 << 30, available: 50 << 20 });
        let used = [("a".to_owned(), 1 << 20), ("b".to_owned(), 3 << 20)];
        assert_eq!(
            short(&threshold, left, &pod, &used),
            "The node was low on resource: memory. Threshold quantity: 107374182, available: 50Mi. \
             Container b was using 3Mi, request is 0, has larger consumption of memory. "
        );
        let threshold = Threshold::hard(Signal::Pid, Bound::Amount(7));
        assert_eq!(short(&threshold, None, &pod, &[]), "The node was low on resource: pids. ");
    }

    #[test]
    fn limits_of_volumes_pods_and_containers_hold() {
        let limit = |amount: &str| json!({"limits": {"ephemeral-storage": amount}});
        let pod = pod(
            json!([{"name": "a", "resources": limit("2k")}, {"name": "b", "resources": limit("1k")}]),
            json!([{"name": "v", "emptyDir": {"sizeLimit": "1k"}}, {"name": "free", "emptyDir": {}}]),
        );
        let tree = |bytes| Tree { bytes, inodes: 1, ..Tree::default() };
        let told = |a: u64, b: u64, v: u64, free: u64| {
            let storage = PodStorage {
                containers: [("a".to_owned(), (tree(a), tree(0))), ("b".into(), (tree(b - 1), tree(1)))]
                    .into(),
                volumes: [("v".to_owned(), tree(v)), ("free".into(), tree(free))].into(),
                ..PodStorage::default()
            };
            beyond_limit(&pod, &storage)
        };
        assert_eq!(told(1000, 1000, 1000, 0), None);
        let volume = "Usage of EmptyDir volume \"v\" exceeds the limit \"1k\". ";
        assert_eq!(told(0, 1, 1001, 0).as_deref(), Some(volume));
        let whole = "Pod ephemeral local storage usage exceeds the total limit of containers 3000. ";
        assert_eq!(told(1000, 1000, 0, 1001).as_deref(), Some(whole));
        let container = "Container b exceeded its local ephemeral storage limit \"1k\". ";
        assert_eq!(told(0, 1001, 0, 0).as_deref(), Some(container));
    }

    #[test]
    fn what_nobody_can_see_is_beyond_any_limit() {
        let limit = json!({"limits": {"ephemeral-storage": "1Gi"}});
        let partial = Tree { is_partial: true, ..Tree::default() };
        let storage = PodStorage {
            containers: [("a".to_owned(), (Tree::default(), partial))].into(),
            volumes: [("v".to_owned(), Tree::default())].into(),
            ..PodStorage::default()
        };
        let told = "The pod's folders hold more than is looked at (1000000 names, 200 levels, 60 s). \
                    That counts as beyond its limits of local ephemeral storage. ";
        for (resources, volume, expected) in [
            (json!({}), json!({}), None),
            (limit, json!({}), Some(told)),
            (json!({}), json!({"sizeLimit": "1Gi"}), Some(told)),
        ] {
            let pod = pod(
                json!([{"name": "a", "resources": resources}]),
                json!([{"name": "v", "emptyDir": volume}]),
            );
            assert_eq!(beyond_limit(&pod, &storage).as_deref(), expected, "{pod:?}");
        }
    }
}
