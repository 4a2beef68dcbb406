use machinery::{FieldManager, FieldSet, Object, Patch, StructuralType, Typing};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{apply, deployment, fields, manager};

fn element() -> impl Strategy<Value = String> {
    prop_oneof![
        "f:[a-c]{1,2}",
        r#"k:\{"name":"[a-c]"\}"#,
        r#"v:"[a-c]""#,
        (0..3).prop_map(|index| format!("i:{index}")),
    ]
}

fn field_set() -> impl Strategy<Value = FieldSet> {
    prop::collection::vec(prop::collection::vec(element(), 1..5), 0..12).prop_map(|paths| {
        let mut set = FieldSet::default();
        for path in paths {
            set.insert(&path.iter().map(String::as_str).collect::<Vec<_>>());
        }
        set
    })
}

/// Any JSON whose keys have the look of a field set's.
fn any_fields() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!({})), Just(json!(1)), Just(Value::Null)];
    let key = prop_oneof![element(), "\\PC{0,6}", "[fkvi]:\\PC{0,6}", Just(".".to_owned())];
    leaf.prop_recursive(5, 32, 5, move |inner| {
        prop::collection::btree_map(key.clone(), inner, 0..4).prop_map(|map| json!(map))
    })
}

/// Specs of deployments with the containers and variables that are asked for.
fn spec(containers: &'static str, variables: &'static str) -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map(variables, "[x-z]", 0..3).prop_map(|map| {
        map.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Value>()
    });
    let container = (env, prop::option::of("[x-z]")).prop_map(|(env, image)| {
        let mut container = json!({"env": env});
        if let Some(image) = image {
            container["image"] = json!(image);
        }
        container
    });
    let containers = prop::collection::btree_map(containers, container, 1..3).prop_map(|map| {
        let named = map.into_iter().map(|(name, mut container)| {
            container["name"] = json!(name);
            container
        });
        named.collect::<Value>()
    });
    containers.prop_map(|containers| json!({"template": {"spec": {"containers": containers}}}))
}

fn labelled(key: &'static str) -> impl Strategy<Value = Object> {
    prop::collection::btree_map(key, "[x-z]", 0..3).prop_map(|labels| {
        let mut object = deployment(&json!({}));
        object.0.remove("spec");
        object.set_meta("labels", json!(labels));
        object
    })
}

/// JSON with the names that objects have.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(a|b|TCP|\\PC{0,4})".prop_map(Value::from),
    ];
    let key = "(metadata|spec|status|name|labels|template|containers|env|ports|containerPort|protocol|finalizers|\
        ownerReferences|uid|resources|limits|selector|managedFields|fieldsV1|x)";
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..6).prop_map(|map| json!(map)),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Object> {
    prop::collection::btree_map("(metadata|spec|status|x)", any_json(), 0..4).prop_map(|map| {
        let mut object = Object::from_value(json!(map)).unwrap();
        object.0.insert("kind".into(), json!("Deployment"));
        object.0.insert("apiVersion".into(), json!("apps/v1"));
        object
    })
}

proptest! {
    #[test]
    fn field_sets_survive_their_encoding(set in field_set()) {
        prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()).unwrap(), set);
    }

    #[test]
    fn any_fields_are_a_set_or_none(fields in any_fields()) {
        if let Some(set) = FieldSet::from_fields_v1(&fields) {
            prop_assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()).unwrap(), set);
        }
    }

    #[test]
    fn field_sets_are_sets(a in field_set(), b in field_set()) {
        let union = a.clone().union(b.clone());
        let both = a.intersection(&b);
        prop_assert_eq!(&union, &b.clone().union(a.clone()));
        prop_assert_eq!(union.len() + both.len(), a.len() + b.len());
        prop_assert_eq!(a.clone().difference(&b).union(both.clone()), a.clone());
        prop_assert!(a.clone().difference(&b).intersection(&b).is_empty());
        prop_assert!(both.clone().difference(&a).is_empty() && both.difference(&b).is_empty());
        for path in a.paths() {
            prop_assert!(union.has(&path));
        }
    }

    #[test]
    fn applied_again_nothing_changes(first in spec("[a-c]", "[A-C]"), second in spec("[a-c]", "[A-C]")) {
        let live = apply(manager("m"), None, &deployment(&first), false).unwrap();
        let patch = deployment(&second);
        let mut once = apply(manager("m"), Some(&live), &patch, false).unwrap();
        let later = FieldManager { now: "2026-02-02T00:00:00Z", ..manager("m") };
        let mut again = apply(later, Some(&once), &patch, false).unwrap();
        // Only the time may: a list that is empty is none, once it is stored.
        prop_assert!(machinery::same_but_times(again.meta("managedFields"), once.meta("managedFields")));
        again.remove_meta("managedFields");
        once.remove_meta("managedFields");
        prop_assert_eq!(again, once);
    }

    #[test]
    fn an_object_is_what_its_only_applier_wants(first in spec("[a-c]", "[A-C]"), second in spec("[a-c]", "[A-C]")) {
        let live = apply(manager("m"), None, &deployment(&first), false).unwrap();
        let changed = apply(manager("m"), Some(&live), &deployment(&second), false).unwrap();
        let fresh = apply(manager("m"), None, &deployment(&second), false).unwrap();
        prop_assert_eq!(fields(&changed, "m"), fields(&fresh, "m"));
        let containers = |object: &Object| {
            let mut list = object.pointer("/spec/template/spec/containers").unwrap().as_array().unwrap().clone();
            for container in &mut list {
                if let Some(Value::Array(env)) = container.get_mut("env") {
                    env.sort_by_key(|variable| variable["name"].to_string());
                }
            }
            list.sort_by_key(|container| container["name"].to_string());
            list
        };
        prop_assert_eq!(containers(&changed), containers(&fresh));
    }

    #[test]
    fn appliers_of_other_fields_commute(one in spec("[a-b]", "[A-B]"), two in spec("[c-d]", "[A-D]"),
        labels in labelled("[a-b]")) {
        let start = apply(manager("start"), None, &labels, false).unwrap();
        let (one, two) = (deployment(&one), deployment(&two));
        let both = |first: (&str, &Object), second: (&str, &Object)| {
            let live = apply(manager(first.0), Some(&start), first.1, false).unwrap();
            apply(manager(second.0), Some(&live), second.1, false).unwrap()
        };
        let (ours, theirs) = (both(("one", &one), ("two", &two)), both(("two", &two), ("one", &one)));
        for name in ["start", "one", "two"] {
            prop_assert_eq!(fields(&ours, name), fields(&theirs, name));
        }
        let names = |object: &Object| {
            let list = object.pointer("/spec/template/spec/containers").unwrap().as_array().unwrap().clone();
            let mut texts: Vec<String> = list.iter().map(Value::to_string).collect();
            texts.sort();
            texts
        };
        prop_assert_eq!(names(&ours), names(&theirs));
    }

    #[test]
    fn nobody_loses_a_field_without_force(mine in spec("[a-b]", "[A-B]"), theirs in spec("[a-b]", "[A-B]")) {
        let live = apply(manager("mine"), None, &deployment(&mine), false).unwrap();
        let patch = deployment(&theirs);
        match apply(manager("theirs"), Some(&live), &patch, false) {
            Ok(merged) => prop_assert_eq!(fields(&merged, "mine"), fields(&live, "mine")),
            Err(status) => {
                prop_assert_eq!(status.code, 409);
                let causes = status.details.unwrap().causes;
                prop_assert!(!causes.is_empty());
                // By force they get just these.
                let forced = apply(manager("theirs"), Some(&live), &patch, true).unwrap();
                let left = FieldSet::from_fields_v1(&fields(&forced, "mine")).unwrap();
                let before = FieldSet::from_fields_v1(&fields(&live, "mine")).unwrap();
                prop_assert_eq!(left.len() + causes.len(), before.len());
            }
        }
    }

    #[test]
    fn what_is_owned_is_there(first in spec("[a-c]", "[A-C]"), second in spec("[a-c]", "[A-C]"), third in spec("[a-c]", "[A-C]")) {
        let mut live = apply(manager("one"), None, &deployment(&first), false).unwrap();
        live = apply(manager("two"), Some(&live), &deployment(&second), true).unwrap();
        live = apply(manager("one"), Some(&live), &deployment(&third), true).unwrap();
        let mut updated = deployment(&first);
        manager("three").update(Some(&live), &mut updated).unwrap();
        for object in [&live, &updated] {
            let mut all = object.clone();
            all.remove_meta("managedFields");
            let fresh = apply(manager("all"), None, &all, false).unwrap();
            let there = FieldSet::from_fields_v1(&fields(&fresh, "all")).unwrap();
            for name in ["one", "two", "three"] {
                let owned = fields(object, name);
                if owned.is_null() {
                    continue;
                }
                for path in FieldSet::from_fields_v1(&owned).unwrap().paths() {
                    let leaf = there.has(&path) || path.last().is_some_and(|last| last.starts_with("f:"));
                    prop_assert!(leaf, "{:?} is owned by {} and not there: {:?}", path, name, object);
                }
            }
        }
    }

    #[test]
    fn any_object_is_applied_or_told_off(live in any_object(), patch in any_object(), schema in any_json()) {
        let structural = StructuralType::of_resource(&schema);
        let typings =
            [manager("m").typing, Typing::Deduced, Typing::Structural(&structural), Typing::Published(api::SCALE)];
        for typing in typings {
            let by = FieldManager { typing, ..manager("m") };
            let patch = Patch { object: &patch, force: true };
            let _ = by.apply(None, &patch);
            let _ = by.apply(Some(&live), &patch);
            let mut new = patch.object.clone();
            by.update(Some(&live), &mut new).unwrap();
            let mut new = patch.object.clone();
            by.update(None, &mut new).unwrap();
        }
    }
}
