//! What a write may change and what it may not.

#![allow(missing_docs, clippy::unwrap_used)]

use api::resource;
use machinery::{
    Object, Resource, prepare_create, prepare_update, set_defaults, validate_create, validate_update,
};
use serde_json::{Value, json};

fn of(group: &str, plural: &str) -> &'static Resource {
    resource(group, "v1", plural).unwrap()
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn created(resource: &Resource, value: Value) -> Object {
    let mut object = object(value);
    set_defaults(resource, &mut object).unwrap();
    prepare_create(resource, &mut object);
    assert_eq!(validate_create(resource, &object), [], "{object:?}");
    object
}

/// The object after an update, and the fields that were found wrong.
fn updated(resource: &Resource, subresource: &str, value: Value, old: &Object) -> (Object, Vec<String>) {
    let mut object = object(value);
    set_defaults(resource, &mut object).unwrap();
    prepare_update(resource, subresource, &mut object, old);
    let faults = validate_update(resource, subresource, &object, old);
    (object, faults.into_iter().map(|fault| fault.field).collect())
}

fn service(spec: Value) -> Value {
    json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec})
}

#[test]
fn a_service_keeps_what_the_server_gave_it() {
    let services = of("", "services");
    let mut old = created(services, service(json!({"type": "NodePort", "ports": [{"port": 80}]})));
    old.0["spec"]["clusterIP"] = "10.96.0.9".into();
    old.0["spec"]["clusterIPs"] = json!(["10.96.0.9"]);
    old.0["spec"]["ports"][0]["nodePort"] = 30_001.into();

    let ports = json!([{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]);
    let (new, faults) = updated(services, "", service(json!({"type": "NodePort", "ports": ports})), &old);
    assert_eq!(faults, [""; 0]);
    assert_eq!(new.pointer("/spec/clusterIPs"), Some(&json!(["10.96.0.9"])));
    assert_eq!(new.pointer("/spec/ports/0/nodePort"), Some(&json!(30_001)));
    assert_eq!(new.pointer("/spec/ports/1/nodePort"), None);

    let moved = service(json!({"clusterIP": "10.96.0.10", "type": "NodePort", "ports": [{"port": 80}]}));
    assert_eq!(updated(services, "", moved, &old).1, ["spec.clusterIPs[0]"]);
}

#[test]
fn a_service_loses_what_its_new_type_lacks() {
    let services = of("", "services");
    let mut old = created(services, service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]})));
    old.0["spec"]["clusterIP"] = "10.96.0.9".into();
    old.0["spec"]["clusterIPs"] = json!(["10.96.0.9"]);
    old.0["spec"]["ports"][0]["nodePort"] = 30_001.into();

    let mut value = old.clone().into_value();
    value["spec"]["type"] = "ClusterIP".into();
    let (new, faults) = updated(services, "", value.clone(), &old);
    assert_eq!(faults, [""; 0]);
    for gone in
        ["/spec/ports/0/nodePort", "/spec/externalTrafficPolicy", "/spec/allocateLoadBalancerNodePorts"]
    {
        assert_eq!(new.pointer(gone), None, "{gone}");
    }
    assert_eq!(new.pointer("/spec/clusterIP"), Some(&json!("10.96.0.9")));

    value["spec"]["type"] = "ExternalName".into();
    value["spec"]["externalName"] = "db.example.com".into();
    let (new, faults) = updated(services, "", value, &old);
    assert_eq!(faults, [""; 0]);
    for gone in ["/spec/clusterIP", "/spec/clusterIPs", "/spec/ipFamilies"] {
        assert_eq!(new.pointer(gone), None, "{gone}");
    }
}

#[test]
fn status_and_spec_change_each_by_their_own_path() {
    let deployments = of("apps", "deployments");
    let spec = |replicas: u32| {
        json!({"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}})
    };
    let body = |replicas: u32, ready: u32| json!({"metadata": {"name": "d"}, "spec": spec(replicas), "status": {"readyReplicas": ready}});
    let old = created(deployments, body(1, 1));
    assert_eq!(old.0["status"], json!({}), "a new object has no status");
    assert_eq!(old.meta("generation"), Some(&json!(1)));

    let (new, _) = updated(deployments, "", body(2, 2), &old);
    assert_eq!(
        (new.pointer("/spec/replicas"), new.pointer("/status/readyReplicas")),
        (Some(&json!(2)), None)
    );
    assert_eq!(new.meta("generation"), Some(&json!(2)));

    let (new, _) = updated(deployments, "status", body(5, 3), &old);
    assert_eq!(
        (new.pointer("/spec/replicas"), new.pointer("/status/readyReplicas")),
        (Some(&json!(1)), Some(&json!(3)))
    );
    assert_eq!(new.meta("generation"), Some(&json!(1)));
}

#[test]
fn the_servers_metadata_stays() {
    let maps = of("", "configmaps");
    let mut old = created(maps, json!({"metadata": {"name": "m", "namespace": "d"}}));
    old.set_meta("uid", "u");
    old.set_meta("creationTimestamp", "2026-01-31T12:00:00Z");
    old.set_meta("deletionTimestamp", "2026-01-31T12:00:01Z");
    let body = json!({"metadata": {"name": "m", "creationTimestamp": "1999-01-01T00:00:00Z", "finalizers": ["a.b/c"]}});
    let (new, faults) = updated(maps, "", body, &old);
    assert_eq!(new.meta("creationTimestamp"), Some(&json!("2026-01-31T12:00:00Z")));
    assert_eq!((new.uid(), new.namespace()), ("u", "d"));
    assert_eq!(faults, ["metadata.finalizers"], "an object that is being deleted gets no new finalizer");
}

#[test]
fn a_pod_changes_its_images_and_little_else() {
    let pods = of("", "pods");
    let body = |image: &str, node: Option<&str>| {
        let mut pod =
            json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": image}]}});
        if let Some(node) = node {
            pod["spec"]["nodeName"] = node.into();
        }
        pod
    };
    let old = created(pods, body("i:1", None));
    assert_eq!(updated(pods, "", body("i:2", None), &old).1, [""; 0]);
    assert_eq!(updated(pods, "", body("i:1", Some("n1")), &old).1, ["spec"]);
    assert_eq!(updated(pods, "binding", body("i:1", Some("n1")), &old).1, [""; 0]);
}

#[test]
fn processes_of_the_host_need_no_image() {
    let pods = of("", "pods");
    let pod = json!({"metadata": {"name": "p"},
        "spec": {"runtimeClassName": "host", "containers": [{"name": "c", "command": ["/bin/true"]}]}});
    created(pods, pod.clone());
    let mut elsewhere = object(pod);
    elsewhere.0["spec"].as_object_mut().unwrap().remove("runtimeClassName");
    let fields: Vec<String> =
        validate_create(pods, &elsewhere).into_iter().map(|fault| fault.field).collect();
    assert_eq!(fields, ["spec.containers[0].image"]);
}

#[test]
fn a_namespace_is_finalized_by_its_subresource_alone() {
    let namespaces = of("", "namespaces");
    let old = created(namespaces, json!({"metadata": {"name": "n"}}));
    assert_eq!(old.0["status"]["phase"], "Active");
    assert_eq!(old.labels().get("kubernetes.io/metadata.name"), Some(&"n"));
    let body = json!({"metadata": {"name": "n"}, "spec": {}});
    assert_eq!(
        updated(namespaces, "", body.clone(), &old).0.0["spec"],
        json!({"finalizers": ["kubernetes"]})
    );
    assert_eq!(updated(namespaces, "finalize", body, &old).0.0["spec"], json!({}));
}

fn gated(rest: Value) -> Value {
    let mut spec = json!({"schedulingGates": [{"name": "ex.io/a"}, {"name": "ex.io/b"}],
        "containers": [{"name": "c", "image": "i:1"}]});
    spec.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-31T12:00:00Z"}, "spec": spec})
}

fn required(terms: Value) -> Value {
    json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}})
}

#[test]
fn a_gated_pod_says_so_from_the_start() {
    let pods = of("", "pods");
    let pod = created(pods, gated(json!({})));
    let conditions = json!([{
        "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
        "lastProbeTime": null, "lastTransitionTime": "2026-01-31T12:00:00Z",
    }]);
    assert_eq!(pod.pointer("/status/conditions"), Some(&conditions));
    for gates in [json!(null), json!([])] {
        let pod = created(pods, gated(json!({"schedulingGates": gates})));
        assert_eq!(pod.pointer("/status/conditions"), None);
    }
    let faults = |rest: Value| -> Vec<String> {
        let faults = validate_create(pods, &object(gated(rest)));
        faults.into_iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect()
    };
    assert_eq!(
        faults(json!({"nodeName": "n1"})),
        ["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"]
    );
    assert_eq!(faults(json!({"nodeName": ""})), [""; 0]);
    assert_eq!(faults(json!({"nodeName": "n1", "schedulingGates": []})), [""; 0]);
    let twice = faults(json!({"schedulingGates": [{"name": "a"}, {"name": "a"}]}));
    assert_eq!(twice, ["spec.schedulingGates[1]: Duplicate value: \"a\""]);
    let bad = faults(json!({"schedulingGates": [{"name": "no name"}]}));
    assert!(bad[0].starts_with("spec.schedulingGates[0]: Invalid value: \"no name\""), "{bad:?}");
}

#[test]
fn a_gated_pod_is_narrowed_and_never_widened() {
    let pods = of("", "pods");
    let key = |name: &str| json!({"key": name, "operator": "Exists"});
    let terms =
        |list: Vec<Value>| required(list.into_iter().map(|e| json!({"matchExpressions": e})).collect());
    let both = |affinity: Value| {
        let mut affinity = affinity;
        affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] =
            json!([{"weight": 1, "preference": {"matchExpressions": [key("p")]}}]);
        affinity
    };
    let path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let first = format!("{path}[0]");
    let (path, first) = (path, first.as_str());
    let one = || terms(vec![json!([key("a")])]);
    let anti = json!({"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "t", "labelSelector": {"matchLabels": {"a": "b"}}}]});
    let cases: Vec<(Value, Value, Vec<&str>)> = vec![
        // Gates go, and none comes.
        (json!({}), json!({"schedulingGates": [{"name": "ex.io/b"}]}), vec![]),
        (json!({}), json!({"schedulingGates": []}), vec![]),
        (
            json!({}),
            json!({"schedulingGates": [{"name": "ex.io/a"}, {"name": "c"}]}),
            vec!["spec.schedulingGates[1].name"],
        ),
        // A selector may say more, and take nothing back.
        (json!({}), json!({"nodeSelector": {"k": "v"}}), vec![]),
        (
            json!({"nodeSelector": {"k": "v"}}),
            json!({"nodeSelector": {"k": "v", "l": "w"}, "schedulingGates": []}),
            vec![],
        ),
        (json!({"nodeSelector": {"k": "v"}}), json!({"nodeSelector": {"k": "w"}}), vec!["spec.nodeSelector"]),
        (json!({"nodeSelector": {"k": "v"}}), json!({"nodeSelector": {"l": "v"}}), vec!["spec.nodeSelector"]),
        (json!({"nodeSelector": {"k": "v"}}), json!({}), vec!["spec.nodeSelector"]),
        // Where there was no required term, any may come.
        (json!({}), json!({"affinity": one()}), vec![]),
        (json!({}), json!({"affinity": both(one())}), vec![]),
        (json!({"affinity": {}}), json!({"affinity": one()}), vec![]),
        (json!({"affinity": {"podAntiAffinity": anti}}), json!({"affinity": one()}), vec!["spec"]),
        (json!({}), json!({"affinity": {"podAntiAffinity": anti}}), vec!["spec"]),
        // Preferences are free.
        (json!({"affinity": both(one())}), json!({"affinity": one()}), vec![]),
        (json!({"affinity": both(json!({}))}), json!({}), vec![]),
        // A term gets further requirements behind those that it had.
        (json!({"affinity": one()}), json!({"affinity": terms(vec![json!([key("a"), key("b")])])}), vec![]),
        (
            json!({"affinity": one()}),
            json!({"affinity": required(json!([{"matchExpressions": [key("a")],
            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]))}),
            vec![],
        ),
        (
            json!({"affinity": one()}),
            json!({"affinity": terms(vec![json!([key("b"), key("a")])])}),
            vec![first],
        ),
        (json!({"affinity": one()}), json!({"affinity": terms(vec![json!([key("b")])])}), vec![first]),
        (json!({"affinity": one()}), json!({"affinity": required(json!([{}]))}), vec![first]),
        (json!({"affinity": required(json!([{}]))}), json!({"affinity": one()}), vec![first]),
        (
            json!({"affinity": one()}),
            json!({"affinity": terms(vec![json!([key("a")]), json!([key("b")])])}),
            vec![path],
        ),
        (json!({"affinity": one()}), json!({}), vec![path]),
    ];
    for (old, new, expected) in cases {
        let told = format!("{old} -> {new}");
        let before = created(pods, gated(old.clone()));
        assert_eq!(updated(pods, "", gated(new.clone()), &before).1, expected, "{told}");
        // Without gates nothing of that may change.
        let open = |mut spec: Value| {
            spec["schedulingGates"] = json!([]);
            gated(spec)
        };
        let stays =
            old.get("affinity") == new.get("affinity") && old.get("nodeSelector") == new.get("nodeSelector");
        let before = created(pods, open(old));
        let faults = updated(pods, "", open(new), &before).1;
        assert_eq!(faults.iter().any(|field| field == "spec"), !stays, "{told}");
    }
}

#[test]
fn a_pod_that_began_without_an_image_may_change() {
    let pods = of("", "pods");
    let pod = |container: Value, labels: Value| {
        json!({"metadata": {"name": "p", "namespace": "d", "labels": labels},
            "spec": {"runtimeClassName": "host", "containers": [container]}})
    };
    let (bare, full) = (json!({"name": "c", "command": ["true"]}), json!({"name": "c", "image": "i:1"}));
    let old = created(pods, pod(bare.clone(), json!({})));
    assert_eq!(updated(pods, "", pod(bare.clone(), json!({"a": "b"})), &old).1, [""; 0]);
    let old = created(pods, pod(full, json!({})));
    let faults = updated(pods, "", pod(bare, json!({})), &old).1;
    assert!(faults.contains(&"spec.containers[0].image".to_owned()), "{faults:?}");
}
