//! What many pods take in memory, in the map and in its history: counted, byte by byte, by the allocator.

use bytes::Bytes;
use store::{Event, Revision, State, Txn};

#[global_allocator]
static ALLOCATOR: testing::CountingAllocator = testing::CountingAllocator::new();

const PODS: u32 = 2000;
const STEPS: u32 = 5;

/// Something that looks like chance, and differs with every number.
fn drawn(number: u32, salt: u32) -> u32 {
    let mixed = (number ^ salt.rotate_left(16)).wrapping_mul(2_654_435_761);
    (mixed ^ (mixed >> 15)).wrapping_mul(2_246_822_519)
}

fn uid(number: u32, salt: u32) -> String {
    let [a, b] = [drawn(number, salt), drawn(number, salt + 1)];
    let c = drawn(number, salt + 2);
    format!("{a:08x}-{:04x}-4{:03x}-9{:03x}-{c:08x}{:04x}", b >> 16, b & 0xfff, (b >> 4) & 0xfff, a & 0xffff)
}

fn time(number: u32, step: u32) -> String {
    let second = number / 40 + 3 * step;
    format!("2026-11-29T15:{:02}:{:02}Z", second / 60 % 60, second % 60)
}

fn name(number: u32) -> String {
    format!("web-{:x}-{:02x}{number:03x}", drawn(number % 20, 9), drawn(number, 5) & 0xff)
}

/// A pod's JSON after that many steps of its start: made, bound, seen by its host, running, ready. One of twenty Deployments
/// made it.
fn pod(number: u32, step: u32) -> String {
    let (name, owner) = (name(number), number % 20);
    let (set, app) = (name.rsplit_once('-').map_or("", |(set, _)| set), format!("shop-{owner}"));
    let manager = |manager: &str, at: u32, fields: &str| {
        format!(
            r#"{{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{fields},"manager":"{manager}","operation":"Update","time":"{}"}}"#,
            time(number, at)
        )
    };
    let mut managed = vec![manager(
        "kube-controller-manager",
        0,
        r#"{"f:metadata":{"f:generateName":{},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"owner\"}":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"main\"}":{".":{},"f:command":{},"f:env":{".":{},"k:{\"name\":\"MODE\"}":{".":{},"f:name":{},"f:value":{}}},"f:image":{},"f:imagePullPolicy":{},"f:name":{},"f:ports":{".":{},"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{},"f:name":{},"f:protocol":{}}},"f:readinessProbe":{".":{},"f:failureThreshold":{},"f:httpGet":{".":{},"f:path":{},"f:port":{},"f:scheme":{}}},"f:resources":{".":{},"f:limits":{".":{},"f:memory":{}},"f:requests":{".":{},"f:cpu":{},"f:memory":{}}}}},"f:dnsPolicy":{},"f:enableServiceLinks":{},"f:restartPolicy":{},"f:schedulerName":{},"f:securityContext":{},"f:terminationGracePeriodSeconds":{}}}"#,
    )];
    if step >= 2 {
        managed.push(manager("kubelet", step, r#"{"f:status":{"f:conditions":{".":{},"k:{\"type\":\"ContainersReady\"}":{".":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Initialized\"}":{".":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Ready\"}":{".":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}},"f:containerStatuses":{},"f:hostIP":{},"f:hostIPs":{},"f:phase":{},"f:podIP":{},"f:podIPs":{},"f:startTime":{}}}"#));
    }
    let node =
        if step >= 1 { format!(r#""nodeName":"n{}","#, drawn(number, 7) % 3 + 1) } else { String::new() };
    let condition = |kind: &str, holds: bool, at: u32| {
        let status = if holds { "True" } else { "False" };
        format!(r#"{{"type":"{kind}","status":"{status}","lastTransitionTime":"{}"}}"#, time(number, at))
    };
    let mut conditions = Vec::new();
    if step >= 1 {
        conditions.push(condition("PodScheduled", true, 1));
    }
    if step >= 2 {
        conditions.push(condition("Initialized", true, 2));
        conditions.push(condition("ContainersReady", step >= 4, step));
        conditions.push(condition("Ready", step >= 4, step));
    }
    let status = match step {
        0 | 1 => format!(r#""phase":"Pending","conditions":[{}]"#, conditions.join(",")),
        _ => {
            let ip = format!("10.244.{}.{}", drawn(number, 7) % 3 + 1, number % 250 + 2);
            let state = if step == 2 {
                r#"{"waiting":{"reason":"ContainerCreating"}}"#.to_owned()
            } else {
                format!(r#"{{"running":{{"startedAt":"{}"}}}}"#, time(number, 3))
            };
            let phase = if step == 2 { "Pending" } else { "Running" };
            format!(
                r#""phase":"{phase}","startTime":"{}","hostIP":"10.73.0.1","hostIPs":[{{"ip":"10.73.0.1"}}],"podIP":"{ip}","podIPs":[{{"ip":"{ip}"}}],"qosClass":"Burstable","conditions":[{}],"containerStatuses":[{{"name":"main","containerID":"host://{}","image":"registry.example.com/{app}:1.2.3","imageID":"","ready":{},"started":true,"restartCount":0,"state":{state}}}]"#,
                time(number, 2),
                conditions.join(","),
                uid(number, 30),
                step >= 4
            )
        }
    };
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","generateName":"{set}-","namespace":"default","uid":"{}","creationTimestamp":"{}","generation":1,"labels":{{"app":"{app}","pod-template-hash":"{:x}"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"{set}","uid":"{}","controller":true,"blockOwnerDeletion":true}}],"managedFields":[{}]}},"spec":{{{node}"containers":[{{"name":"main","image":"registry.example.com/{app}:1.2.3","command":["/app/{app}","--listen","8080"],"env":[{{"name":"MODE","value":"production"}}],"ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}],"readinessProbe":{{"httpGet":{{"path":"/healthz","port":"http","scheme":"HTTP"}},"failureThreshold":3,"periodSeconds":10,"successThreshold":1,"timeoutSeconds":1}},"resources":{{"limits":{{"memory":"128Mi"}},"requests":{{"cpu":"100m","memory":"64Mi"}}}},"volumeMounts":[{{"name":"kube-api-access-{:05x}","mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","readOnly":true}}],"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}}],"volumes":[{{"name":"kube-api-access-{:05x}","projected":{{"defaultMode":420,"sources":[{{"serviceAccountToken":{{"expirationSeconds":3607,"path":"token"}}}},{{"configMap":{{"name":"kube-root-ca.crt","items":[{{"key":"ca.crt","path":"ca.crt"}}]}}}},{{"downwardAPI":{{"items":[{{"path":"namespace","fieldRef":{{"apiVersion":"v1","fieldPath":"metadata.namespace"}}}}]}}}}]}}}}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"default","serviceAccount":"default","securityContext":{{}},"schedulerName":"default-scheduler","tolerations":[{{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}},{{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}}],"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority"}},"status":{{{status}}}}}"#,
        uid(number, 10),
        time(number, 0),
        drawn(owner, 9),
        uid(owner, 20),
        managed.join(","),
        drawn(number, 6) & 0xfffff,
        drawn(number, 6) & 0xfffff,
    )
}

fn key(number: u32) -> String {
    format!("/registry/core/pods/default/{}", name(number))
}

#[test]
fn pods_take_what_makes_them_differ() {
    let before = ALLOCATOR.live();
    let mut state = State::default();
    let mut whole = 0;
    // Each pod goes its own way, a hundred of them at a time.
    for turn in 0..PODS + 100 * STEPS {
        for step in 0..STEPS {
            if let Some(number) = turn.checked_sub(100 * step).filter(|number| *number < PODS) {
                let value = pod(number, step);
                whole += value.len();
                // As it comes out of the log: a part of something longer.
                let request = Bytes::from([value.as_bytes(), &[0; 100]].concat());
                state.apply(&Txn::put(key(number), request.slice(..value.len()))).unwrap();
            }
        }
    }
    let pods = isize::try_from(PODS).unwrap();
    let with_history = (ALLOCATOR.live() - before) / pods;
    let each = isize::try_from(whole).unwrap() / pods;

    for number in 0..PODS {
        assert_eq!(state.get(key(number).as_bytes()).unwrap().value.bytes(), pod(number, STEPS - 1));
    }
    let mut told = vec![0; PODS as usize];
    let numbers: std::collections::HashMap<_, _> = (0..PODS).map(|number| (key(number), number)).collect();
    for event in state.events(Revision::ZERO) {
        let Event::Put { current, .. } = event else { panic!("{event:?}") };
        let number = numbers[std::str::from_utf8(&current.key).unwrap()];
        assert_eq!(current.value.bytes(), pod(number, told[number as usize]));
        told[number as usize] += 1;
    }
    drop((told, numbers));

    state.compact(state.revision());
    let alone = (ALLOCATOR.live() - before) / pods;
    println!("a pod takes {alone} bytes, {with_history} with its history of {each}");
    assert!(each > 12_000, "pods of that size are not what clusters have: {each}");
    assert!(alone < 1200 && with_history < 5000, "{alone} and {with_history} bytes a pod");
}
