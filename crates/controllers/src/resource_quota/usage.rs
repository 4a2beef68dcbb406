//! What objects use of each quota, kept as they change: a namespace is walked once, when it gets a quota or one that limits
//! something else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::{Amounts, Quotable, quota_hard, quota_resources};
use bytes::Bytes;
use jiff::Timestamp;
use machinery::{Object, Quantity};
use objects::{ObjectKey, kind_prefix, namespace_prefix, parse};
use serde::Deserialize;
use serde_json::value::RawValue;
use store::{Event, KeyRange, KeyValue, State};

use crate::tables::Account;

/// What is used of all quotas, by namespace and name.
#[derive(Default)]
pub(super) struct Usage {
    quotas: HashMap<String, BTreeMap<String, Tally>>,
    /// How many objects were decoded so far.
    decoded: usize,
}

/// What is used of one quota.
pub(super) struct Tally {
    quota: Object,
    hard: Amounts,
    resources: BTreeSet<(String, String)>,
    /// With pods counted that were given up.
    used: Amounts,
    /// Whether it is still to be counted.
    is_new: bool,
    /// When pods on their way out are given up, whether they have ended or not.
    ends: BTreeSet<(Timestamp, Bytes)>,
}

impl Account for Usage {
    fn open(state: &State) -> Self {
        let mut usage = Usage::default();
        let quotas = KeyRange::prefix(kind_prefix("", "resourcequotas"));
        for kv in state.range(&quotas) {
            if let Some(place) = parse(&kv.key) {
                usage.put_quota(place, kv);
            }
        }
        usage.settle(state);
        usage
    }

    fn take(&mut self, event: &Event) {
        let Some(place) = parse(event.key()) else { return };
        let (old, new) = match event {
            Event::Put { current, previous } => (previous.as_ref(), Some(current)),
            Event::Delete { previous, .. } => (Some(previous), None),
        };
        if (place.group, place.resource) == ("", "resourcequotas") {
            match new {
                Some(kv) => self.put_quota(place, kv),
                None => self.remove_quota(place),
            }
        }
        let Some(tallies) = self.quotas.get_mut(place.namespace) else { return };
        let counts = |tally: &Tally| {
            !tally.is_new
                && tally.resources.iter().any(|(group, plural)| (&**group, &**plural) == resource(place))
        };
        if !tallies.values().any(counts) || uses_the_same(place, old, new) {
            return;
        }
        for (kv, sign) in
            old.map(|old| (old, Sign::Minus)).into_iter().chain(new.map(|new| (new, Sign::Plus)))
        {
            self.decoded += 1;
            // What an object uses that is damaged nobody can say.
            let Ok(object) = serde_json::from_slice::<Object>(&kv.value.bytes()) else { continue };
            for tally in tallies.values_mut().filter(|tally| counts(tally)) {
                tally.count(place, &kv.key, &object, sign);
            }
        }
    }

    fn settle(&mut self, state: &State) {
        for (namespace, tallies) in &mut self.quotas {
            for tally in tallies.values_mut().filter(|tally| tally.is_new) {
                self.decoded += tally.begin(namespace, state);
            }
        }
    }
}

impl Usage {
    fn put_quota(&mut self, place: ObjectKey<'_>, kv: &KeyValue) {
        let Ok(quota) = serde_json::from_slice::<Object>(&kv.value.bytes()) else {
            return self.remove_quota(place);
        };
        let tallies = self.quotas.entry(place.namespace.to_owned()).or_default();
        if tallies.get(place.name).is_none_or(|known| known.quota.0.get("spec") != quota.0.get("spec")) {
            tallies.insert(place.name.to_owned(), Tally::new(quota));
        }
    }

    fn remove_quota(&mut self, place: ObjectKey<'_>) {
        if let Some(tallies) = self.quotas.get_mut(place.namespace) {
            tallies.remove(place.name);
            if tallies.is_empty() {
                self.quotas.remove(place.namespace);
            }
        }
    }

    /// What is known of one quota.
    pub fn of(&self, namespace: &str, name: &str) -> Option<&Tally> {
        self.quotas.get(namespace)?.get(name)
    }
}

#[derive(Clone, Copy)]
enum Sign {
    Plus,
    Minus,
}

impl Tally {
    fn new(quota: Object) -> Self {
        let hard = quota_hard(&quota);
        Tally {
            resources: quota_resources(&hard),
            used: Amounts::default(),
            is_new: true,
            ends: BTreeSet::new(),
            hard,
            quota,
        }
    }

    /// Counts what there is; the answer is how many objects that are.
    fn begin(&mut self, namespace: &str, state: &State) -> usize {
        let mut decoded = 0;
        self.is_new = false;
        for (name, _) in self.hard.iter() {
            self.used.set(name, Quantity::default());
        }
        for (group, plural) in self.resources.clone() {
            for kv in state.range(&KeyRange::prefix(namespace_prefix(&group, &plural, namespace))) {
                let (Some(place), Ok(object)) = (parse(&kv.key), serde_json::from_slice(&kv.value.bytes()))
                else {
                    continue;
                };
                self.count(place, &kv.key, &object, Sign::Plus);
                decoded += 1;
            }
        }
        decoded
    }

    fn count(&mut self, place: ObjectKey<'_>, key: &Bytes, object: &Object, sign: Sign) {
        let quotable = Quotable { group: place.group, plural: place.resource, object };
        if !quotable.is_in_scope(&self.quota) {
            return;
        }
        add(&mut self.used, &self.hard, &quotable.usage(Timestamp::MIN), sign);
        let end = quotable.given_up_at().map(|at| (at, key.clone()));
        match (end, sign) {
            (Some(end), Sign::Plus) => drop(self.ends.insert(end)),
            (Some(end), Sign::Minus) => drop(self.ends.remove(&end)),
            (None, _) => {}
        }
    }

    /// What the quota limits.
    pub fn hard(&self) -> &Amounts {
        &self.hard
    }

    /// What is used, at a time.
    pub fn used(&self, state: &State, now: Timestamp) -> Amounts {
        let mut used = self.used.clone();
        for (_, key) in self.ends.iter().take_while(|(end, _)| *end <= now) {
            let object =
                state.get(key).and_then(|kv| serde_json::from_slice::<Object>(&kv.value.bytes()).ok());
            if let Some(object) = object {
                let pod = Quotable { group: "", plural: "pods", object: &object };
                add(&mut used, &self.hard, &pod.usage(Timestamp::MIN), Sign::Minus);
                add(&mut used, &self.hard, &pod.usage(now), Sign::Plus);
            }
        }
        used
    }

    /// When the next pod is given up: until then only a change changes what is used.
    pub fn next_end(&self, now: Timestamp) -> Option<Timestamp> {
        self.ends.iter().map(|(end, _)| *end).find(|end| *end > now)
    }
}

fn add(used: &mut Amounts, hard: &Amounts, usage: &Amounts, sign: Sign) {
    for (name, amount) in usage.iter().filter(|(name, _)| hard.get(name).is_some()) {
        used.add(
            name,
            match sign {
                Sign::Plus => *amount,
                Sign::Minus => Quantity::default() - *amount,
            },
        );
    }
}

fn resource(place: ObjectKey<'_>) -> (&str, &str) {
    (place.group, place.resource)
}

/// Whether an object certainly uses what it used before, by a look that costs less than decoding it: most changes are
/// reports of a pod's status.
fn uses_the_same(place: ObjectKey<'_>, old: Option<&Arc<KeyValue>>, new: Option<&Arc<KeyValue>>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    match resource(place) {
        ("", "pods") => {
            let (old, new) = (old.value.bytes(), new.value.bytes());
            match (serde_json::from_slice::<Footing<'_>>(&old), serde_json::from_slice(&new)) {
                (Ok(old), Ok(new)) => old.is_same(&new),
                _ => false,
            }
        }
        ("", "services" | "persistentvolumeclaims") => false,
        // They count as one, whatever they say.
        _ => true,
    }
}

/// What of a pod decides what it uses.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Footing<'a> {
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    metadata: End,
    status: Standing,
}

#[derive(Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct End {
    deletion_timestamp: Option<String>,
    deletion_grace_period_seconds: Option<i64>,
}

#[derive(Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Standing {
    phase: Option<String>,
    qos_class: Option<String>,
}

impl Footing<'_> {
    fn is_same(&self, other: &Self) -> bool {
        self.spec.map(RawValue::get) == other.spec.map(RawValue::get)
            && self.metadata == other.metadata
            && self.status == other.status
    }
}

#[cfg(test)]
mod tests {
    use objects::quota_usage;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use store::{Memory, Op, Store, Txn};

    use super::*;

    /// A namespace, a resource, and a name there.
    type At = (&'static str, &'static str, u8);

    fn key(place: At) -> String {
        let (namespace, resource, name) = place;
        objects::key("", resource, namespace, &name.to_string())
    }

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn named(place: At, mut object: Value) -> Value {
        object["metadata"]["name"] = place.2.to_string().into();
        object["metadata"]["namespace"] = place.0.into();
        object
    }

    fn pod(cpu: u8, ends: Option<i64>, phase: &str, class: &str) -> Value {
        let deleted = ends.map(|at| time(at).to_string());
        json!({
            "metadata": {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": ends.map(|_| 5)},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m")}}}]},
            "status": {"phase": phase, "qosClass": class},
        })
    }

    fn quota(hard: Value, scopes: Value) -> Value {
        json!({"metadata": {}, "spec": {"hard": hard, "scopes": scopes}})
    }

    fn object(resource: &'static str) -> BoxedStrategy<Value> {
        match resource {
            "pods" => (
                1..5u8,
                prop::option::of(0..20i64),
                prop::sample::select(vec!["Pending", "Running", "Succeeded"]),
                prop::sample::select(vec!["BestEffort", "Burstable"]),
            )
                .prop_map(|(cpu, ends, phase, class)| pod(cpu, ends, phase, class))
                .boxed(),
            "services" => prop::sample::select(vec!["ClusterIP", "NodePort", "LoadBalancer"])
                .prop_map(|kind| json!({"metadata": {}, "spec": {"type": kind, "ports": [{"port": 1}]}}))
                .boxed(),
            "persistentvolumeclaims" => (1..5u8)
                .prop_map(|size| {
                    let storage = json!({"requests": {"storage": format!("{size}Gi")}});
                    json!({"metadata": {}, "spec": {"storageClassName": "fast", "resources": storage}})
                })
                .boxed(),
            "resourcequotas" => prop::sample::select(vec![
                quota(json!({"pods": "9", "requests.cpu": "1", "count/configmaps": "4"}), json!(null)),
                quota(json!({"pods": "9", "cpu": "1"}), json!(["BestEffort"])),
                quota(
                    json!({"services.nodeports": "3", "requests.storage": "9Gi", "resourcequotas": "2"}),
                    json!([]),
                ),
                quota(
                    json!({"fast.storageclass.storage.k8s.io/requests.storage": "9Gi", "count/pods": "7"}),
                    json!([]),
                ),
            ])
            .boxed(),
            _ => Just(json!({"metadata": {}, "data": {}})).boxed(),
        }
    }

    fn step() -> impl Strategy<Value = (At, Option<Value>)> {
        let resources =
            ["pods", "pods", "services", "persistentvolumeclaims", "configmaps", "resourcequotas"];
        let place = (prop::sample::select(vec!["a", "b"]), prop::sample::select(resources.to_vec()), 0..4u8);
        place.prop_flat_map(|place| (Just(place), prop::option::weighted(0.8, object(place.1))))
    }

    async fn take(store: &Memory, place: At, object: Option<Value>) {
        let txn = match object {
            Some(object) => Txn::put(key(place), named(place, object).to_string()),
            None => Txn { success: vec![Op::Delete(KeyRange::key(key(place)))], ..Txn::default() },
        };
        store.txn(txn).await.unwrap();
    }

    proptest! {
        /// Whatever happens: what is kept is what a walk over all objects finds.
        #[test]
        fn what_is_kept_is_what_there_is(batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..20)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let store = Memory::default();
            let mut usage = Usage::open(&store.snapshot());
            for batch in batches {
                let from = store.snapshot().revision().next();
                for (place, object) in batch {
                    runtime.block_on(take(&store, place, object));
                }
                let state = store.snapshot();
                state.events(from).for_each(|event| usage.take(event));
                usage.settle(&state);
                let mut known = 0;
                for kv in state.range(&KeyRange::prefix(kind_prefix("", "resourcequotas"))) {
                    let place = parse(&kv.key).unwrap();
                    let quota: Object = serde_json::from_slice(&kv.value.bytes()).unwrap();
                    let tally = usage.of(place.namespace, place.name).unwrap();
                    for now in [0, 7, 13, 40].map(time) {
                        let walked = quota_usage(&quota, &quota_hard(&quota), &state, now);
                        prop_assert_eq!(tally.used(&state, now), walked, "{:?} at {}", place, now);
                    }
                    known += 1;
                }
                prop_assert_eq!(usage.quotas.values().map(BTreeMap::len).sum::<usize>(), known);
            }
        }
    }

    #[tokio::test]
    async fn a_change_costs_what_changed_and_a_report_nothing() {
        let store = Memory::default();
        let running = |n: u8| pod(n % 4 + 1, None, "Running", "Burstable");
        for n in 0..200 {
            take(&store, ("a", "pods", n), Some(running(n))).await;
            take(&store, ("b", "pods", n), Some(running(n))).await;
        }
        take(&store, ("a", "resourcequotas", 0), Some(quota(json!({"pods": "300"}), json!([])))).await;
        let mut usage = Usage::open(&store.snapshot());
        assert_eq!(usage.decoded, 200, "the namespace, once");
        let mut cost = async |steps: Vec<(At, Option<Value>)>| {
            let (from, before) = (store.snapshot().revision().next(), usage.decoded);
            for (place, object) in steps {
                take(&store, place, object).await;
            }
            store.snapshot().events(from).for_each(|event| usage.take(event));
            usage.settle(&store.snapshot());
            let used = usage.of("a", "0").unwrap().used(&store.snapshot(), time(0));
            (usage.decoded - before, used.get("pods").unwrap().to_string())
        };
        let reported = |n: u8| {
            let mut pod = running(n);
            pod["status"]["podIP"] = "10.0.0.1".into();
            pod
        };
        let of_a = |n: u8| ("a", "pods", n);
        assert_eq!(cost((0..200).map(|n| (of_a(n), Some(reported(n)))).collect()).await, (0, "200".into()));
        assert_eq!(cost(vec![(of_a(1), None), (of_a(2), None)]).await, (2, "198".into()));
        assert_eq!(cost((0..200).map(|n| (("b", "pods", n), None)).collect()).await, (0, "198".into()));
        let status =
            json!({"metadata": {}, "spec": {"hard": {"pods": "300"}, "scopes": []}, "status": {"used": {}}});
        assert_eq!(cost(vec![(("a", "resourcequotas", 0), Some(status))]).await, (0, "198".into()));
    }
}
