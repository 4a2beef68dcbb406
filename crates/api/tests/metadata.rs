//! Faults of metadata, as often as each kind's code looks for them.

#![allow(missing_docs, clippy::unwrap_used)]

use api::resource;
use machinery::metadata::{validate_own, validate_update};
use machinery::{Faults, Object, Resource};
use serde_json::{Value, json};

fn told(faults: Faults) -> Vec<String> {
    faults.into_iter().map(|fault| fault.field).collect()
}

fn object(kind: &str, metadata: Value) -> (&'static Resource, Object) {
    let group = if kind == "deployments" { "apps" } else { "" };
    let resource = resource(group, "v1", kind).unwrap();
    (resource, Object::from_value(json!({ "metadata": metadata })).unwrap())
}

#[test]
fn what_names_begin_with_is_a_name_too() {
    for (prefix, faults) in [("a-", 0), ("a.b-", 0), ("A", 1), ("a/b", 1), ("-", 1)] {
        let (resource, object) = object("configmaps", json!({"name": "n", "generateName": prefix}));
        let mut own = Faults::default();
        validate_own(resource, &object, &mut own);
        assert_eq!(told(own), vec!["metadata.generateName"; faults], "{prefix}");
    }
}

#[test]
fn owners_are_told_without_their_index() {
    let (resource, object) = object(
        "pods",
        json!({"name": "n", "ownerReferences": [{"apiVersion": "a/b/c", "kind": "K", "name": "n"}]}),
    );
    let mut own = Faults::default();
    validate_own(resource, &object, &mut own);
    assert_eq!(told(own), ["metadata.ownerReferences.apiVersion", "metadata.ownerReferences.uid"]);
}

#[test]
fn updates_tell_as_often_as_upstream_looks() {
    for (kind, times, whole) in
        [("events", 2, 1), ("deployments", 3, 1), ("configmaps", 4, 1), ("persistentvolumes", 4, 2)]
    {
        let (resource, object) = object(kind, json!({"name": "n", "labels": {"a": "b c"}}));
        let mut faults = Faults::default();
        assert_eq!(validate_update(resource, &object, &mut faults), whole, "{kind}");
        assert_eq!(told(faults), vec!["metadata.labels"; times], "{kind}");
    }
}
