//! What is kept must agree with the plain decision, made by looking at all pods of a namespace, whatever happened and
//! however often it was asked in between.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use store::{KeyRange, Op, State, Txn};

use super::{UsedKind, Uses};

const KINDS: [UsedKind; 5] = [
    UsedKind::Secret,
    UsedKind::ConfigMap,
    UsedKind::VolumeClaim,
    UsedKind::ServiceAccount,
    UsedKind::ResourceClaim,
];
const HOSTS: [&str; 3] = ["", "n1", "n2"];
const NAMES: [&str; 3] = ["a", "b", "p0-a"];

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Pod {
        namespace: usize,
        pod: usize,
        host: usize,
        mirror: bool,
        parts: Vec<(usize, usize)>,
    },
    Gone {
        namespace: usize,
        pod: usize,
    },
    Unreadable {
        namespace: usize,
        pod: usize,
    },
    Other,
    /// History up to now is forgotten.
    Compacted,
    Asked,
}

fn step() -> impl Strategy<Value = Step> {
    let pod = (
        0..2usize,
        0..4usize,
        0..HOSTS.len(),
        prop::bool::weighted(0.1),
        vec((0..14usize, 0..NAMES.len()), 0..4),
    );
    prop_oneof![
        6 => pod.prop_map(|(namespace, pod, host, mirror, parts)| Step::Pod { namespace, pod, host, mirror, parts }),
        2 => (0..2usize, 0..4usize).prop_map(|(namespace, pod)| Step::Gone { namespace, pod }),
        1 => (0..2usize, 0..4usize).prop_map(|(namespace, pod)| Step::Unreadable { namespace, pod }),
        1 => Just(Step::Other),
        1 => Just(Step::Compacted),
        3 => Just(Step::Asked),
    ]
}

fn key(namespace: usize, pod: usize) -> String {
    objects::key("", "pods", &format!("space{namespace}"), &format!("p{pod}"))
}

fn push(place: &mut Value, item: Value) {
    match place {
        Value::Array(list) => list.push(item),
        other => *other = json!([item]),
    }
}

fn pod_of(name: &str, host: &str, mirror: bool, parts: &[(usize, usize)]) -> Value {
    let mut pod =
        json!({"metadata": {"name": name}, "spec": {"nodeName": host, "containers": [{"name": "c"}]}});
    if mirror {
        pod["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    }
    for (part, named) in parts {
        let named = NAMES[*named];
        let (spec, status) = (json!({"name": named}), json!({"resourceClaimName": named}));
        let volume = |source: Value| {
            let mut volume = source;
            volume["name"] = json!("a");
            volume
        };
        match part {
            0 => push(&mut pod["spec"]["volumes"], volume(json!({"secret": {"secretName": named}}))),
            1 => push(&mut pod["spec"]["volumes"], volume(json!({"configMap": spec}))),
            2 => push(
                &mut pod["spec"]["volumes"],
                volume(json!({"projected": {"sources": [{"secret": spec}, {"configMap": spec}]}})),
            ),
            3 => push(&mut pod["spec"]["volumes"], volume(json!({"csi": {"nodePublishSecretRef": spec}}))),
            4 => push(
                &mut pod["spec"]["volumes"],
                volume(json!({"persistentVolumeClaim": {"claimName": named}})),
            ),
            5 => push(&mut pod["spec"]["volumes"], volume(json!({"ephemeral": {}}))),
            6 => push(&mut pod["spec"]["imagePullSecrets"], spec),
            7 => pod["spec"]["serviceAccountName"] = json!(named),
            8 => push(&mut pod["spec"]["resourceClaims"], status),
            9 => push(&mut pod["status"]["resourceClaimStatuses"], status),
            10 => push(&mut pod["spec"]["containers"][0]["envFrom"], json!({"secretRef": spec})),
            11 => push(&mut pod["spec"]["containers"][0]["envFrom"], json!({"configMapRef": spec})),
            12 => push(
                &mut pod["spec"]["initContainers"],
                json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": spec}}, {"name": "B"}]}),
            ),
            _ => push(
                &mut pod["spec"]["ephemeralContainers"],
                json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": spec}}], "envFrom": null}),
            ),
        }
    }
    pod
}

/// The plain decision.
fn is_used(state: &State, host: &str, kind: UsedKind, namespace: &str, name: &str) -> bool {
    let range = KeyRange::prefix(objects::namespace_prefix("", "pods", namespace));
    let pods = state.range(&range).filter_map(|kv| serde_json::from_slice::<Value>(&kv.value.bytes()).ok());
    pods.filter(|pod| pod["spec"]["nodeName"] == host).any(|pod| uses(&pod, kind, name))
}

fn uses(pod: &Value, kind: UsedKind, name: &str) -> bool {
    if !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return false;
    }
    let spec = &pod["spec"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (volume, key, reference, from) = match kind {
        UsedKind::ServiceAccount => return spec["serviceAccountName"] == name,
        UsedKind::ResourceClaim => {
            let of_spec = list(&spec["resourceClaims"]);
            let of_status = list(&pod["status"]["resourceClaimStatuses"]);
            return of_spec.iter().chain(&of_status).any(|claim| claim["resourceClaimName"] == name);
        }
        UsedKind::VolumeClaim => {
            return list(&spec["volumes"]).iter().any(|volume| {
                let own = volume["name"].as_str().unwrap_or_default();
                let generated = format!("{}-{own}", pod["metadata"]["name"].as_str().unwrap_or_default());
                volume["persistentVolumeClaim"]["claimName"] == name
                    || volume["ephemeral"].is_object() && generated == name
            });
        }
        UsedKind::Secret => ("secret", "secretName", "secretKeyRef", "secretRef"),
        UsedKind::ConfigMap => ("configMap", "name", "configMapKeyRef", "configMapRef"),
    };
    let names_secret = |entry: &Value| {
        entry.as_object().into_iter().flatten().any(|(_, source)| {
            source["secretRef"]["name"] == name
                || source["nodePublishSecretRef"]["name"] == name
                || source["secretName"] == name
        })
    };
    let in_volume = |entry: &Value| {
        entry[volume][key] == name
            || list(&entry["projected"]["sources"]).iter().any(|source| source[volume]["name"] == name)
            || kind == UsedKind::Secret && names_secret(entry)
    };
    let pulls = |secret: &Value| kind == UsedKind::Secret && secret["name"] == name;
    list(&spec["volumes"]).iter().any(in_volume)
        || list(&spec["imagePullSecrets"]).iter().any(pulls)
        || ["containers", "initContainers", "ephemeralContainers"]
            .iter()
            .flat_map(|field| list(&spec[*field]))
            .any(|container| {
                list(&container["env"]).iter().any(|env| env["valueFrom"][reference]["name"] == name)
                    || list(&container["envFrom"]).iter().any(|env| env[from]["name"] == name)
            })
}

fn compare(uses: &Uses, state: &State) -> Result<(), TestCaseError> {
    for host in &HOSTS[1..] {
        for kind in KINDS {
            for namespace in ["space0", "space1"] {
                for name in NAMES {
                    let plain = is_used(state, host, kind, namespace, name);
                    let kept = uses.holds(host, kind, namespace, name);
                    prop_assert_eq!(kept, plain, "{:?} {}/{} on {}", kind, namespace, name, host);
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_kept_agrees_with_a_look_at_all_pods(steps in vec(step(), 1..40)) {
        let (mut state, mut uses) = (State::default(), Uses::default());
        for step in steps {
            let put = |key: String, value: Vec<u8>| Txn::put(key, value);
            let txn = match step {
                Step::Pod { namespace, pod, host, mirror, parts } => {
                    let value = pod_of(&format!("p{pod}"), HOSTS[host], mirror, &parts);
                    put(key(namespace, pod), value.to_string().into_bytes())
                }
                Step::Gone { namespace, pod } => {
                    let gone = Op::Delete(KeyRange::key(Bytes::from(key(namespace, pod))));
                    Txn { conditions: vec![], success: vec![gone], failure: vec![] }
                }
                Step::Unreadable { namespace, pod } => put(key(namespace, pod), b"{".to_vec()),
                Step::Other => put("/registry/core/secrets/space0/a".into(), b"{}".to_vec()),
                Step::Compacted => {
                    state.compact(state.revision());
                    continue;
                }
                Step::Asked => {
                    uses.follow(&state);
                    compare(&uses, &state)?;
                    continue;
                }
            };
            state.apply(&txn).unwrap();
        }
        uses.follow(&state);
        compare(&uses, &state)?;
        // Nothing stays of pods that are gone.
        let all = Op::Delete(KeyRange::prefix("/registry/"));
        state.apply(&Txn { conditions: vec![], success: vec![all], failure: vec![] }).unwrap();
        uses.follow(&state);
        prop_assert!(uses.pods.is_empty() && uses.by_host.is_empty());
    }
}
