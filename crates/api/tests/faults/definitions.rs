//! What is wrong with definitions of custom resources: their names, versions, schemas and rules.

use api::resource_of_kind;
use machinery::{Object, prepare_update, validate_update};
use serde_json::{Value, json};

use crate::{NONE, faults, named, prepared};

#[test]
fn definitions_of_custom_resources() {
    let version = |schema: Value| json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let of = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut spec = json!({
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [version(json!({"type": "object"}))],
        });
        change(&mut spec);
        faults("apiextensions.k8s.io/v1", "CustomResourceDefinition", name, json!({"spec": spec}))
    };
    assert_eq!(of("widgets.example.com", &|_| {}), NONE);
    assert_eq!(of("x.example.com", &|_| {}), ["Invalid metadata.name"]);
    assert_eq!(
        of("widgets.x.k8s.io", &|spec| spec["group"] = "x.k8s.io".into()),
        ["Required metadata.annotations[api-approved.kubernetes.io]"]
    );
    assert_eq!(of("widgets.example.com", &|spec| spec["scope"] = "All".into()), ["NotSupported spec.scope"]);
    assert_eq!(
        of("widgets.example.com", &|spec| spec["versions"][0]["storage"] = false.into()),
        ["Invalid spec.versions", "Invalid status.storedVersions"]
    );
    assert_eq!(
        of("widgets.example.com", &|spec| spec["versions"][0]["schema"] = json!({})),
        ["Required spec.versions[0].schema.openAPIV3Schema"]
    );
    let root = "spec.validation.openAPIV3Schema";
    for (schema, expected) in [
        (json!({}), vec![format!("Required {root}.type")]),
        (json!({"type": "string"}), vec![format!("Invalid {root}.type")]),
        (
            json!({"type": "object", "properties": {"spec": {"properties": {"a": {"type": "wrong"}}}}}),
            vec![
                format!("Required {root}.properties[spec].type"),
                format!("NotSupported {root}.properties[spec].properties[a].type"),
            ],
        ),
        (
            json!({"type": "object", "properties": {"l": {"type": "array"}}}),
            vec![format!("Required {root}.properties[l].items")],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "additionalProperties": {"type": "string"},
                "properties": {"b": {"type": "string"}}}}}),
            vec![format!("Forbidden {root}.properties[a].additionalProperties")],
        ),
        (
            json!({"type": "object", "properties": {"l": {"type": "array", "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}}}}}}),
            vec![format!("Required {root}.properties[l].items.properties[name].default")],
        ),
        (
            json!({"type": "object", "properties": {"p": {"x-kubernetes-int-or-string": true,
                "anyOf": [{"type": "integer"}, {"type": "string"}]}}}),
            vec![],
        ),
        (
            json!({"type": "object", "properties": {"p": {"type": "string", "anyOf": [{"type": "string"}]}}}),
            vec![format!("Forbidden {root}.properties[p].anyOf[0].type")],
        ),
        // Conditions are schemas like others, and say nothing that the schema doesn't.
        (
            json!({"type": "object", "anyOf": [{"x-kubernetes-list-type": "odd"}, {"items": {}}]}),
            vec![
                format!("Forbidden {root}.anyOf[0].x-kubernetes-list-type"),
                format!("Required {root}.items"),
                format!("Required {root}.anyOf[0].type"),
                format!("NotSupported {root}.anyOf[0].x-kubernetes-list-type"),
            ],
        ),
        (
            json!({"type": "object", "not": {"dependencies": {}}}),
            vec![format!("Forbidden {root}.not.dependencies")],
        ),
        (json!({"type": "object", "items": 5}), vec![]),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object",
                "properties": {"labels": {"type": "object"}}}}}),
            vec![format!("Forbidden {root}.properties[metadata]")],
        ),
    ] {
        let found = of("widgets.example.com", &|spec| spec["versions"][0] = version(schema.clone()));
        assert_eq!(found, expected, "{schema}");
    }
    // Versions that differ are named one by one.
    let two = json!([version(json!({"type": "object"})),
        {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": {}}}]);
    assert_eq!(
        of("widgets.example.com", &|spec| spec["versions"] = two.clone()),
        ["Required spec.versions[1].schema.openAPIV3Schema.type"]
    );
    // Where they differ only in what is empty, they say the same.
    let empty = json!([version(json!({"type": "object"})),
        {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object", "anyOf": []}}}]);
    assert_eq!(of("widgets.example.com", &|spec| spec["versions"] = empty.clone()), NONE);
    // Only conditions on the whole must be about what there is.
    let items = json!({"type": "object", "properties": {"spec": {"type": "object", "not": {"items": {}}}}});
    assert_eq!(of("widgets.example.com", &|spec| spec["versions"][0] = version(items.clone())), NONE);
    let scale = |spec_path: &str| json!({"scale": {"specReplicasPath": spec_path, "statusReplicasPath": ".status.n"}});
    for (path, faults) in [(".status.n", 1), ("spec.n", 1), (".spec", 1), (".spec.n", 0), (".spec.n[0]", 0)] {
        let found = of("widgets.example.com", &|spec| spec["versions"][0]["subresources"] = scale(path));
        assert_eq!(found, vec!["Invalid spec.subresources.scale.specReplicasPath"; faults], "{path}");
    }
    let selectable = |path: &str| json!([{"jsonPath": path}]);
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "color": {"type": "string"}, "sizes": {"type": "object", "additionalProperties": {"type": "integer"}}}}}});
    for (path, faults) in [
        (".spec.color", 0),
        (".spec.sizes.large", 0),
        (".spec", 1),
        (".spec.none", 1),
        ("spec.color", 1),
        (".spec['color']", 1),
        (".metadata.name", 1),
    ] {
        let found = of("widgets.example.com", &|spec| {
            spec["versions"][0] = version(schema.clone());
            spec["versions"][0]["selectableFields"] = selectable(path);
        });
        assert_eq!(found, vec!["Invalid spec.selectableFields[0].jsonPath"; faults], "{path}");
    }
}

#[test]
fn schemas_of_definitions_may_not_say_what_they_do_not_mean() {
    let root = "spec.validation.openAPIV3Schema";
    let spec = |property: Value| {
        let schema = json!({"type": "object", "properties": {"a": property}});
        json!({"spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
    };
    const KIND: (&str, &str) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let set = |items: Value| json!({"type": "array", "x-kubernetes-list-type": "set", "items": items});
    let rule = |rule: Value| json!({"type": "integer", "x-kubernetes-validations": [rule]});
    let of_items = |key: &str| vec![format!("Invalid {root}.properties[a].items.{key}")];
    let of_rule =
        |key: &str| vec![format!("Required {root}.properties[a].x-kubernetes-validations[0].{key}")];
    for (property, expected) in [
        (set(json!({"type": "string"})), vec![]),
        (set(json!({"type": "object"})), of_items("x-kubernetes-map-type")),
        (
            set(json!({"type": "object", "x-kubernetes-map-type": "granular"})),
            of_items("x-kubernetes-map-type"),
        ),
        (set(json!({"type": "object", "x-kubernetes-map-type": "atomic"})), vec![]),
        (set(set(json!({"type": "string"}))), of_items("x-kubernetes-list-type")),
        (set(json!({"type": "array", "items": {"type": "string"}})), vec![]),
        (
            set(json!({"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "string"}})),
            vec![],
        ),
        (rule(json!({"rule": "self > 1 &&\nself < 3", "message": "must be two"})), vec![]),
        (rule(json!({"rule": "self > 1\n"})), vec![]),
        (rule(json!({"rule": "self > 1 &&\nself < 3"})), of_rule("message")),
        (rule(json!({"rule": "self > 1 &&\rself < 3", "messageExpression": "'two'"})), of_rule("message")),
        (rule(json!({"rule": "self > 1", "messageExpression": " "})), of_rule("messageExpression")),
        (
            rule(json!({"rule": "self > 1", "message": "x".repeat(2049)})),
            vec![format!("Invalid {root}.properties[a].x-kubernetes-validations[0].message")],
        ),
        (
            json!({"type": "integer", "default": "x"}),
            vec![format!("TypeInvalid {root}.properties[a].default")],
        ),
        // What is no schema has no defaults either.
        (json!({"type": "odd", "default": "x"}), vec![format!("NotSupported {root}.properties[a].type")]),
    ] {
        let found = faults(KIND.0, KIND.1, "widgets.example.com", spec(property.clone()));
        assert_eq!(found, expected, "{property}");
    }

    // What was stored once stays, and only a change of the schema has to be right.
    let resource = resource_of_kind(KIND.0, KIND.1).unwrap();
    let mut manifest = spec(json!({"type": "integer", "default": "x"}));
    manifest["apiVersion"] = KIND.0.into();
    manifest["kind"] = KIND.1.into();
    manifest["metadata"] = json!({"name": "widgets.example.com"});
    let old = prepared(&manifest);
    let update = |change: &dyn Fn(&mut Value)| {
        let mut new = old.clone().into_value();
        change(&mut new);
        let mut new = Object::from_value(new).unwrap();
        prepare_update(resource, "", &mut new, &old);
        named(validate_update(resource, "", &new, &old))
    };
    assert_eq!(update(&|new| new["spec"]["names"]["shortNames"] = json!(["w"])), NONE);
    let place = "/spec/versions/0/schema/openAPIV3Schema/properties/a";
    assert_eq!(
        update(&|new| {
            new.pointer_mut(place).unwrap()["minimum"] = 1.into();
        }),
        [format!("TypeInvalid {root}.properties[a].default")]
    );
}

#[test]
fn a_deep_schema_is_refused_and_harms_nobody() {
    let mut schema = json!({"type": "object"});
    for _ in 0..55 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    let spec = json!({
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    });
    let found = faults(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "widgets.example.com",
        json!({"spec": spec}),
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("Forbidden spec.validation"), "{found:?}");
}

#[test]
fn the_stored_versions_of_a_definition_grow() {
    let resource = resource_of_kind("apiextensions.k8s.io/v1", "CustomResourceDefinition").unwrap();
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let mut manifest = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [version("v1", true)]},
    });
    let old = prepared(&manifest);
    assert_eq!(old.pointer("/status/storedVersions"), Some(&json!(["v1"])));
    manifest["spec"]["versions"] = json!([version("v1", false), version("v2", true)]);
    let mut new = prepared(&manifest);
    prepare_update(resource, "", &mut new, &old);
    assert_eq!(new.pointer("/status/storedVersions"), Some(&json!(["v1", "v2"])));
    assert_eq!(named(validate_update(resource, "", &new, &old)), NONE);
    let mut gone = new.clone();
    gone.0["spec"]["versions"] = json!([version("v2", true)]);
    prepare_update(resource, "", &mut gone, &new);
    assert_eq!(named(validate_update(resource, "", &gone, &new)), ["Invalid status.storedVersions[0]"]);
}
