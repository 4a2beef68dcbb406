use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, DeviceRequestAllocationResult, ResourceClaimSpec, ResourceSlice,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DRIVER: &str = "gpu.example.com";

fn device(name: &str, more: Value) -> Value {
    let mut device = json!({"name": name});
    device.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    device
}

/// A slice of a pool of a node, which is the whole pool unless `more` says otherwise.
fn slice(name: &str, node: &str, devices: Value, more: Value) -> Arc<ResourceSlice> {
    let mut spec = json!({"driver": DRIVER, "nodeName": node, "devices": devices,
        "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
}

fn inventory(slices: &[Arc<ResourceSlice>]) -> Inventory {
    let mut inventory = Inventory::default();
    slices.iter().for_each(|slice| inventory.set_slice(None, Some(slice)));
    inventory
}

fn classes(name: &str) -> Option<Arc<DeviceClass>> {
    let spec = match name {
        "any" => json!({}),
        "big" => json!({"selectors": [{"cel": {"expression": "device.attributes['gpu.example.com'].big"}}],
            "config": [{"opaque": {"driver": DRIVER, "parameters": {"of": "class"}}}]}),
        _ => return None,
    };
    Some(Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()))
}

fn ask(devices: Value) -> Result<Arc<Ask>, String> {
    let spec: ResourceClaimSpec = serde_json::from_value(json!({"devices": devices})).unwrap();
    Ask::of(&spec, classes).map(Arc::new)
}

/// A claim with one request.
fn one(more: Value) -> Arc<Ask> {
    let mut exactly = json!({"deviceClassName": "any"});
    exactly.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(json!({"requests": [{"name": "r", "exactly": exactly}]})).unwrap()
}

fn with_selector(expression: &str) -> Arc<Ask> {
    one(json!({"selectors": [{"cel": {"expression": expression}}]}))
}

fn place(name: &str) -> Place<'_> {
    Place { name, labels: None }
}

fn results(allocation: &AllocationResult) -> Vec<DeviceRequestAllocationResult> {
    allocation.devices.as_ref().unwrap().results.clone().unwrap()
}

/// What claims get on a node: each device as `REQUEST=DEVICE`.
fn got(inventory: &Inventory, asks: &[Arc<Ask>], node: &str) -> Option<Vec<Vec<String>>> {
    let allocations = allocate(asks, place(node), inventory).unwrap()?;
    let of = |allocation: &AllocationResult| {
        results(allocation)
            .into_iter()
            .map(|result| format!("{}={}", result.request, result.device))
            .collect()
    };
    Some(allocations.iter().map(of).collect())
}

fn texts(texts: &[&[&str]]) -> Option<Vec<Vec<String>>> {
    Some(texts.iter().map(|of| of.iter().map(|text| (*text).to_owned()).collect()).collect())
}

#[test]
fn a_claim_gets_a_device_of_its_node_that_nobody_has() {
    let mut inventory = inventory(&[
        slice("s1", "n1", json!([device("a", json!({})), device("b", json!({}))]), json!({})),
        slice("s2", "n2", json!([device("c", json!({}))]), json!({})),
    ]);
    let claim = one(json!({}));
    let first = allocate(std::slice::from_ref(&claim), place("n1"), &inventory).unwrap().unwrap();
    let result = &results(&first[0])[0];
    assert_eq!((&*result.driver, &*result.pool, &*result.device), (DRIVER, "n1", "a"));
    let only_here = first[0].node_selector.as_ref().unwrap();
    assert!(objects::selects_node(only_here, "n1", None) && !objects::selects_node(only_here, "n2", None));
    inventory.set_taken(&first[0], true);
    assert_eq!(got(&inventory, std::slice::from_ref(&claim), "n1"), texts(&[&["r=b"]]));
    assert_eq!(got(&inventory, &[claim.clone(), claim.clone()], "n1"), None, "two of one pod");
    assert_eq!(got(&inventory, &[one(json!({"count": 2}))], "n1"), None);
    assert_eq!(got(&inventory, &[one(json!({"allocationMode": "All"}))], "n1"), None, "one is somebody's");
    let admin = one(json!({"allocationMode": "All", "adminAccess": true}));
    assert_eq!(got(&inventory, &[admin], "n1"), texts(&[&["r=a", "r=b"]]));
    inventory.set_taken(&first[0], false);
    assert_eq!(got(&inventory, &[claim.clone(), claim.clone()], "n1"), texts(&[&["r=a"], &["r=b"]]));
    assert_eq!(got(&inventory, &[claim], "n3"), None);
}

#[test]
fn selectors_of_class_and_request_see_what_the_driver_says() {
    let attributes = json!({"big": {"bool": true}, "model": {"string": "x1"}, "number": {"int": 7},
        "firmware": {"version": "1.10.0"}, "other.example.com/slot": {"int": 2}});
    let capacity = json!({"memory": {"value": "8Gi"}});
    let inventory = inventory(&[slice(
        "s",
        "n1",
        json!([
            device("small", json!({"attributes": {"big": {"bool": false}}})),
            device("large", json!({"attributes": attributes, "capacity": capacity})),
        ]),
        json!({}),
    )]);
    for expression in [
        "device.driver == 'gpu.example.com' && device.attributes['gpu.example.com'].big",
        "device.attributes['gpu.example.com'].?model.orValue('') == 'x1'",
        "'number' in device.attributes['gpu.example.com'] && device.attributes['gpu.example.com'].number > 6",
        "device.attributes['gpu.example.com'].?firmware.orValue(semver('0.0.1')).isGreaterThan(semver('1.9.0'))",
        "device.attributes['other.example.com'].?slot.orValue(0) == 2",
        "device.capacity['gpu.example.com'].?memory.orValue(quantity('0')).compareTo(quantity('8Gi')) >= 0",
        "!('a' in device.attributes[\"nobody.example.com\"]) && device.attributes['gpu.example.com'].big",
        "!device.allowMultipleAllocations && device.attributes['gpu.example.com'].big",
    ] {
        assert_eq!(
            got(&inventory, &[with_selector(expression)], "n1"),
            texts(&[&["r=large"]]),
            "{expression}"
        );
    }
    assert_eq!(got(&inventory, &[with_selector("false")], "n1"), None);
    assert_eq!(got(&inventory, &[one(json!({"deviceClassName": "big"}))], "n1"), texts(&[&["r=large"]]));
    let large = one(json!({"capacity": {"requests": {"memory": "4Gi"}}}));
    assert_eq!(got(&inventory, &[large], "n1"), texts(&[&["r=large"]]));

    // What nobody can say keeps the claim from every node, with the reason.
    let fails = with_selector("device.attributes['gpu.example.com'].model == 'x1'");
    let why = allocate(&[fails], place("n1"), &inventory).unwrap_err();
    assert!(why.starts_with("CEL runtime error: "), "{why}");
    let missing = ask(json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "none"}}]}));
    assert_eq!(missing.unwrap_err(), "request r: device class none does not exist");
}

#[test]
fn alternatives_are_tried_in_their_order_and_configuration_says_for_whom_it_is() {
    let inventory = inventory(&[slice(
        "s",
        "n1",
        json!([device("a", json!({"attributes": {"big": {"bool": false}}}))]),
        json!({}),
    )]);
    let config =
        |requests: Value| json!({"requests": requests, "opaque": {"driver": DRIVER, "parameters": {}}});
    let claim = ask(json!({
        "requests": [{"name": "r", "firstAvailable": [
            {"name": "big", "deviceClassName": "big"}, {"name": "two", "deviceClassName": "any", "count": 2},
            {"name": "any", "deviceClassName": "any"}]}],
        "config": [config(json!([])), config(json!(["r/big"])), config(json!(["r/any"])), config(json!(["r"]))],
    }))
    .unwrap();
    let allocation = &allocate(&[claim], place("n1"), &inventory).unwrap().unwrap()[0];
    assert_eq!(results(allocation)[0].request, "r/any");
    let config = allocation.devices.as_ref().unwrap().config.as_ref().unwrap();
    let of: Vec<_> = config.iter().map(|config| config.requests.clone().unwrap_or_default()).collect();
    assert_eq!(of, [vec![], vec!["r/any".to_owned()], vec!["r".to_owned()]]);

    let inventory = crate::tests::inventory(&[slice(
        "s",
        "n1",
        json!([device("a", json!({"attributes": {"big": {"bool": true}}}))]),
        json!({}),
    )]);
    let allocation =
        &allocate(&[one(json!({"deviceClassName": "big"}))], place("n1"), &inventory).unwrap().unwrap()[0];
    let config = &allocation.devices.as_ref().unwrap().config.as_ref().unwrap()[0];
    assert_eq!((&*config.source, config.requests.as_deref().unwrap()), ("FromClass", &["r".to_owned()][..]));
}

#[test]
fn constraints_hold_between_the_devices_of_a_claim() {
    let numa = |numa: i64| json!({"attributes": {"numa": {"int": numa}}});
    let inventory = inventory(&[slice(
        "s",
        "n1",
        json!([device("a", numa(0)), device("b", numa(1)), device("c", numa(1)), device("d", json!({}))]),
        json!({}),
    )]);
    let request = |name: &str| json!({"name": name, "exactly": {"deviceClassName": "any"}});
    let claim = |constraint: Value| {
        ask(json!({"requests": [request("x"), request("y")], "constraints": [constraint]})).unwrap()
    };
    let name = "gpu.example.com/numa";
    assert_eq!(got(&inventory, &[claim(json!({"matchAttribute": name}))], "n1"), texts(&[&["x=b", "y=c"]]));
    assert_eq!(
        got(&inventory, &[claim(json!({"distinctAttribute": name}))], "n1"),
        texts(&[&["x=a", "y=b"]])
    );
    let of_one = claim(json!({"matchAttribute": name, "requests": ["x"]}));
    assert_eq!(got(&inventory, &[of_one], "n1"), texts(&[&["x=a", "y=b"]]));
}

#[test]
fn tainted_shared_and_unfinished_devices_are_for_those_who_may_have_them() {
    let taint = json!({"taints": [{"key": "broken", "value": "yes", "effect": "NoExecute"}]});
    let pool = json!({"name": "n2", "generation": 2, "resourceSliceCount": 2});
    let mut inventory = inventory(&[
        slice(
            "s1",
            "n1",
            json!([device("tainted", taint), device("shared", json!({"allowMultipleAllocations": true}))]),
            json!({}),
        ),
        slice(
            "old",
            "n2",
            json!([device("old", json!({}))]),
            json!({"pool": {"name": "n2", "generation": 1, "resourceSliceCount": 1}}),
        ),
        slice("new", "n2", json!([device("new", json!({}))]), json!({"pool": pool})),
    ]);
    assert_eq!(got(&inventory, &[one(json!({}))], "n1"), None);
    let tolerates = one(json!({"tolerations": [{"key": "broken", "operator": "Exists"}]}));
    assert_eq!(got(&inventory, &[tolerates], "n1"), texts(&[&["r=tainted"]]));
    assert_eq!(got(&inventory, &[one(json!({}))], "n2"), None, "a slice is missing");
    let second = slice("newer", "n2", json!([device("newer", json!({}))]), json!({"pool": pool}));
    inventory.set_slice(None, Some(&second));
    assert_eq!(
        got(&inventory, &[one(json!({"allocationMode": "All"}))], "n2"),
        texts(&[&["r=new", "r=newer"]])
    );
}

#[test]
fn parts_of_one_device_take_no_more_than_it_has() {
    let part = |name: &str, memory: &str| {
        let counters = json!([{"counterSet": "gpu", "counters": {"memory": {"value": memory}}}]);
        device(name, json!({"consumesCounters": counters}))
    };
    let whole = json!({"sharedCounters": [{"name": "gpu", "counters": {"memory": {"value": "8Gi"}}}]});
    let devices =
        json!([part("whole", "8Gi"), part("half-1", "4Gi"), part("half-2", "4Gi"), part("half-3", "4Gi")]);
    let mut inventory = inventory(&[slice("s", "n1", devices, whole)]);
    let two = one(json!({"count": 2}));
    let half = allocate(&[two], place("n1"), &inventory).unwrap().unwrap();
    let names: Vec<_> = results(&half[0]).into_iter().map(|result| result.device).collect();
    assert_eq!(names, ["half-1", "half-2"]);
    inventory.set_taken(&half[0], true);
    assert_eq!(got(&inventory, &[one(json!({}))], "n1"), None);
}

#[test]
fn devices_of_several_nodes_are_reached_from_there() {
    let zone = |zone: &str| BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
    let of_a = json!({"nodeSelectorTerms": [{"matchExpressions":
        [{"key": "zone", "operator": "In", "values": ["a"]}]}]});
    let pool = |name: &str| json!({"name": name, "generation": 1, "resourceSliceCount": 1});
    let each = json!([device("mine", json!({"nodeName": "n1"})), device("all", json!({"allNodes": true}))]);
    let inventory = inventory(&[
        slice(
            "s1",
            "",
            json!([device("in-a", json!({}))]),
            json!({"nodeName": null, "nodeSelector": of_a, "pool": pool("a")}),
        ),
        slice("s2", "", each, json!({"nodeName": null, "perDeviceNodeSelection": true, "pool": pool("b")})),
    ]);
    let on = |name: &'static str, labels: &BTreeMap<String, String>| {
        let place = Place { name, labels: Some(labels) };
        let all = one(json!({"allocationMode": "All"}));
        let found = allocate(&[all], place, &inventory).unwrap().unwrap();
        let names: BTreeSet<_> = results(&found[0]).into_iter().map(|result| result.device).collect();
        (names.into_iter().collect::<Vec<_>>().join(" "), found[0].node_selector.clone())
    };
    let (names, selector) = on("n1", &zone("a"));
    assert_eq!(names, "all in-a mine");
    assert!(objects::selects_node(&selector.unwrap(), "n1", None), "one of them is of this node alone");
    let (names, selector) = on("n2", &zone("a"));
    assert_eq!(names, "all in-a");
    assert!(objects::selects_node(&selector.unwrap(), "n3", Some(&zone("a"))));
    let (names, selector) = on("n2", &zone("b"));
    assert_eq!((names.as_str(), selector), ("all", None));
}

#[test]
fn a_search_ends() {
    let devices: Vec<_> =
        (0..30).map(|n| device(&format!("d{n}"), json!({"attributes": {"n": {"int": n}}}))).collect();
    let inventory = inventory(&[slice("s", "n1", json!(devices), json!({}))]);
    let claim = ask(json!({
        "requests": [{"name": "r", "exactly": {"deviceClassName": "any", "count": 15}},
            {"name": "q", "exactly": {"deviceClassName": "any", "count": 15}}, {"name": "p", "exactly": {"deviceClassName": "any"}}],
    }));
    assert_eq!(got(&inventory, &[claim.unwrap()], "n1"), None);
}

proptest! {
    /// Whatever comes and goes: an inventory that was kept change by change gives what one made of what is left gives, keeps nothing
    /// of what is gone, and no device is given twice.
    #[test]
    fn an_inventory_is_what_is_left(
        steps in prop::collection::vec((0..4usize, prop::option::of((1..3u8, 0..4usize))), 0..20),
        counts in prop::collection::vec(1..3usize, 1..4),
    ) {
        let mut kept = Inventory::default();
        let mut there: BTreeMap<usize, Arc<ResourceSlice>> = BTreeMap::new();
        for (name, now) in steps {
            let now = now.map(|(node, count)| {
                let devices: Vec<_> = (0..count).map(|n| device(&format!("d{name}-{n}"), json!({}))).collect();
                let pool = json!({"pool": {"name": format!("p{name}"), "generation": 1, "resourceSliceCount": 1}});
                slice(&format!("s{name}"), &format!("n{node}"), json!(devices), pool)
            });
            kept.set_slice(there.get(&name), now.as_ref());
            match now {
                Some(now) => there.insert(name, now),
                None => there.remove(&name),
            };
        }
        let anew = inventory(&there.values().cloned().collect::<Vec<_>>());
        let asks: Vec<_> = counts.iter().map(|count| one(json!({"count": count}))).collect();
        for node in ["n1", "n2"] {
            let found = got(&kept, &asks, node);
            prop_assert_eq!(&found, &got(&anew, &asks, node));
            let here: usize = there.values().filter(|slice| slice.spec.node_name.as_deref() == Some(node))
                .map(|slice| slice.spec.devices.as_ref().map_or(0, Vec::len)).sum();
            prop_assert_eq!(found.is_some(), here >= counts.iter().sum::<usize>());
            let given: Vec<_> = found.into_iter().flatten().flatten().collect();
            prop_assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len());
        }
        for slice in there.values() {
            kept.set_slice(Some(slice), None);
        }
        prop_assert_eq!(format!("{kept:?}"), format!("{:?}", Inventory::default()));
    }
}
