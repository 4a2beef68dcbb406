//! What is found wrong with objects of each kind, named by its field, and what becomes of other versions.

#![allow(missing_docs, clippy::unwrap_used)]

use api::{resource, resources};
use machinery::{
    Object, Resource, from_stored, prepare_create, prepare_update, set_defaults, to_stored, validate_create,
    validate_update,
};
use serde_json::{Value, json};

fn made(resource: &Resource, spec: &Value) -> Object {
    let value = json!({"metadata": {"name": "x", "namespace": "d", "uid": "u"}, "spec": spec});
    let mut object = Object::from_value(value).unwrap();
    set_defaults(resource, &mut object).unwrap();
    prepare_create(resource, &mut object);
    object
}

/// The fields that are wrong in a new object with that spec.
fn wrong(group: &str, version: &str, plural: &str, spec: Value) -> Vec<String> {
    let resource = resource(group, version, plural).unwrap();
    let faults = validate_create(resource, &made(resource, &spec));
    faults
        .into_iter()
        .map(|fault| format!("{} {}", fault.field, fault.reason.replace("FieldValue", "")))
        .collect()
}

/// The fields that may not change from one spec to another.
fn fixed(group: &str, plural: &str, from: Value, to: Value) -> Vec<String> {
    let resource = resource(group, "v1", plural).unwrap();
    let (old, mut new) = (made(resource, &from), made(resource, &to));
    assert_eq!(validate_create(resource, &old), []);
    prepare_update(resource, "", &mut new, &old);
    validate_update(resource, "", &new, &old).into_iter().map(|fault| fault.field).collect()
}

/// A pod template whose pods restart as `policy` says.
fn template(policy: &str) -> Value {
    let spec = json!({"containers": [{"name": "a", "image": "i"}], "restartPolicy": policy});
    json!({"metadata": {"labels": {"app": "a"}}, "spec": spec})
}

fn with(mut base: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        base[key] = value.clone();
    }
    base
}

#[test]
fn faults_of_jobs_and_their_schedules() {
    let job = |more| wrong("batch", "v1", "jobs", with(json!({"template": template("Never")}), more));
    assert_eq!(job(json!({})), [""; 0]);
    assert_eq!(job(json!({"parallelism": -1})), ["spec.parallelism Invalid"]);
    assert_eq!(job(json!({"template": template("Always")})), ["spec.template.spec.restartPolicy Required"]);
    let indexed = json!({"completionMode": "Indexed", "parallelism": 1});
    assert_eq!(job(indexed), ["spec.completions Required"]);
    assert_eq!(job(json!({"managedBy": "me"})), ["spec.managedBy Invalid"]);
    let rule = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3, 0]}});
    assert_eq!(
        job(json!({"podFailurePolicy": {"rules": [rule]}})),
        [
            "spec.podFailurePolicy.rules[0].onExitCodes.values[1] Invalid",
            "spec.podFailurePolicy.rules[0].onExitCodes.values Invalid"
        ]
    );

    let cron = |more| {
        let spec = json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template("Never")}}});
        wrong("batch", "v1", "cronjobs", with(spec, more))
    };
    assert_eq!(cron(json!({})), [""; 0]);
    assert_eq!(cron(json!({"schedule": "61 * * * *"})), ["spec.schedule Invalid"]);
    assert_eq!(cron(json!({"schedule": "TZ=UTC 1 * * * *"})), ["spec.schedule Invalid"]);
    assert_eq!(cron(json!({"timeZone": "Mars/Olympus"})), ["spec.timeZone Invalid"]);
    assert_eq!(cron(json!({"startingDeadlineSeconds": -1})), ["spec.startingDeadlineSeconds Invalid"]);
}

#[test]
fn what_of_a_job_may_change() {
    let job = |more| with(json!({"template": template("Never"), "suspend": true, "completions": 1}), more);
    let change = |to| fixed("batch", "jobs", job(json!({})), job(to));
    assert_eq!(change(json!({"parallelism": 3, "suspend": false, "backoffLimit": 1})), [""; 0]);
    assert_eq!(change(json!({"completions": 3})), ["spec.completions"]);
    assert_eq!(change(json!({"template": template("OnFailure")})), ["spec.template"]);
    let mut moved = template("Never");
    moved["spec"]["nodeSelector"] = json!({"zone": "b"});
    assert_eq!(change(json!({"template": moved})), [""; 0], "nothing of it runs yet");
}

#[test]
fn faults_of_sets() {
    let base = json!({"selector": {"matchLabels": {"app": "a"}}, "template": template("Always")});
    let daemons = |more| wrong("apps", "v1", "daemonsets", with(base.clone(), more));
    let rolling = |unavailable: Value, surge: Value| {
        let rolling = json!({"maxUnavailable": unavailable, "maxSurge": surge});
        json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}})
    };
    assert_eq!(daemons(json!({})), [""; 0]);
    let path = "spec.updateStrategy.rollingUpdate";
    assert_eq!(daemons(rolling(json!(0), json!(0))), [format!("{path}.maxUnavailable Required")]);
    assert_eq!(daemons(rolling(json!(1), json!("10%"))), [format!("{path}.maxSurge Invalid")]);
    let sets = |more| wrong("apps", "v1", "statefulsets", with(base.clone(), more));
    assert_eq!(sets(json!({})), [""; 0]);
    assert_eq!(sets(json!({"podManagementPolicy": "Sometimes"})), ["spec.podManagementPolicy Invalid"]);
    assert_eq!(sets(json!({"ordinals": {"start": -1}})), ["spec.ordinals.start Invalid"]);
    let set = |more| with(base.clone(), more);
    let change = |to| fixed("apps", "statefulsets", set(json!({})), set(to));
    assert_eq!(change(json!({"replicas": 3, "ordinals": {"start": 1}})), [""; 0]);
    assert_eq!(change(json!({"serviceName": "other"})), ["spec"]);
}

#[test]
fn faults_of_volumes_and_claims() {
    let claim = |more| {
        let base = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        with(base, more)
    };
    let claims = |more| wrong("", "v1", "persistentvolumeclaims", claim(more));
    assert_eq!(claims(json!({})), [""; 0]);
    assert_eq!(claims(json!({"accessModes": []})), ["spec.accessModes Required"]);
    assert_eq!(claims(json!({"accessModes": ["Sometimes"]})), ["spec.accessModes NotSupported"]);
    assert_eq!(claims(json!({"resources": {}})), ["spec.resources[storage] Required"]);
    let change = |to| fixed("", "persistentvolumeclaims", claim(json!({"storageClassName": "a"})), claim(to));
    assert_eq!(change(json!({"storageClassName": "a", "volumeName": "v"})), [""; 0]);
    assert_eq!(change(json!({"storageClassName": "b"})), ["spec"]);

    let volume = |more| {
        let base = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/v"}});
        with(base, more)
    };
    let volumes = |more| {
        let resource = resource("", "v1", "persistentvolumes").unwrap();
        let mut object = made(resource, &volume(more));
        object.remove_meta("namespace");
        let faults = validate_create(resource, &object);
        faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>()
    };
    assert_eq!(volumes(json!({})), [""; 0]);
    assert_eq!(volumes(json!({"hostPath": null})), ["spec"]);
    assert_eq!(volumes(json!({"nfs": {"server": "s", "path": "/"}})), ["spec.nfs"]);
    assert_eq!(volumes(json!({"hostPath": null, "local": {"path": "/v"}})), ["spec.nodeAffinity"]);
    assert_eq!(volumes(json!({"capacity": {"storage": "0"}})), ["spec.capacity[storage]"]);
}

#[test]
fn faults_of_limits_quotas_and_budgets() {
    let limits = |item| wrong("", "v1", "limitranges", json!({"limits": [item]}));
    assert_eq!(limits(json!({"type": "Container", "max": {"cpu": "1"}})), [""; 0]);
    let upside_down = json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}});
    assert!(limits(upside_down).contains(&"spec.limits[0].min[cpu] Invalid".to_owned()));
    let of_pod = json!({"type": "Pod", "default": {"cpu": "1"}});
    assert_eq!(limits(of_pod), ["spec.limits[0].default Forbidden"]);

    let quota = |spec| wrong("", "v1", "resourcequotas", spec);
    assert_eq!(quota(json!({"hard": {"pods": "5", "requests.cpu": "1", "count/jobs.batch": "2"}})), [""; 0]);
    assert_eq!(quota(json!({"hard": {"pods": "1.5"}})), ["spec.hard[pods] Invalid"]);
    assert_eq!(quota(json!({"hard": {"wishes": "3"}})), ["spec.hard[wishes] Invalid"; 2]);
    assert_eq!(quota(json!({"scopes": ["Terminating", "NotTerminating"]})), ["spec.scopes Invalid"]);

    let budget = |spec| wrong("policy", "v1", "poddisruptionbudgets", spec);
    assert_eq!(budget(json!({"minAvailable": "50%"})), [""; 0]);
    assert_eq!(budget(json!({"minAvailable": 1, "maxUnavailable": 1})), ["spec Invalid"]);
    assert_eq!(budget(json!({"maxUnavailable": "110%"})), ["spec.maxUnavailable Invalid"]);
}

fn target() -> Value {
    json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"})
}

#[test]
fn faults_of_autoscalers() {
    let scaler = |more| {
        let spec = with(json!({"scaleTargetRef": target(), "maxReplicas": 5}), more);
        wrong("autoscaling", "v2", "horizontalpodautoscalers", spec)
    };
    assert_eq!(scaler(json!({})), [""; 0]);
    assert_eq!(scaler(json!({"minReplicas": 6})), ["spec.maxReplicas Invalid"]);
    assert_eq!(
        scaler(json!({"scaleTargetRef": {"kind": "Deployment"}})),
        ["spec.scaleTargetRef.name Required", "spec.scaleTargetRef.apiVersion Invalid"]
    );
    let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}});
    let field = "spec.metrics[0].resource.target.averageUtilization Required";
    assert_eq!(scaler(json!({"metrics": [metric]})), [field]);
    let policy = json!({"type": "Pods", "value": 0, "periodSeconds": 10});
    assert_eq!(
        scaler(json!({"behavior": {"scaleUp": {"policies": [policy]}}})),
        ["spec.behavior.scaleUp.policies[0].value Invalid"]
    );
}

#[test]
fn an_autoscaler_survives_both_versions() {
    let first = resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let second = resource("autoscaling", "v2", "horizontalpodautoscalers").unwrap();
    let mut object = made(
        first,
        &json!({"scaleTargetRef": target(), "maxReplicas": 5, "targetCPUUtilizationPercentage": 60}),
    );
    let before = object.clone();
    to_stored(first, &mut object);
    assert_eq!(object.pointer("/spec/metrics/0/resource/target/averageUtilization"), Some(&json!(60)));
    assert_eq!(object.api_version(), "autoscaling/v2");
    from_stored(first, &mut object);
    assert_eq!(object.0.get("spec"), before.0.get("spec"));

    let memory = json!({"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "1Gi"}}});
    let mut object =
        made(second, &json!({"scaleTargetRef": target(), "maxReplicas": 5, "metrics": [memory]}));
    let before = object.clone();
    from_stored(first, &mut object);
    let annotations = object.meta("annotations").unwrap();
    assert!(annotations["autoscaling.alpha.kubernetes.io/metrics"].as_str().unwrap().contains("memory"));
    to_stored(first, &mut object);
    assert_eq!(object.pointer("/spec/metrics"), before.pointer("/spec/metrics"));
    assert_eq!(object.meta("annotations"), None);
}

#[test]
fn the_first_autoscaler_says_the_rest_in_annotations_as_upstream() {
    let first = resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let annotation = |name: &str| format!("autoscaling.alpha.kubernetes.io/{name}");
    let annotated = |annotations: Value| {
        let annotations: serde_json::Map<String, Value> = annotations
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (annotation(name), value.to_string().into()))
            .collect();
        let mut object = Object::from_value(json!({
            "metadata": {"name": "x", "namespace": "d", "annotations": annotations},
            "spec": {"scaleTargetRef": target(), "maxReplicas": 5, "targetCPUUtilizationPercentage": 70},
        }))
        .unwrap();
        set_defaults(first, &mut object).unwrap();
        prepare_create(first, &mut object);
        object
    };
    let faults = |object: &Object| -> Vec<String> {
        validate_create(first, object).into_iter().map(|fault| fault.field).collect()
    };
    let policies = json!([{"Type": "Percent", "Value": 50, "PeriodSeconds": 15}]);
    let mut object = annotated(json!({
        "metrics": [{"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": 70}},
            {"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "5"}}],
        "behavior": {"ScaleDown": {"StabilizationWindowSeconds": 33, "SelectPolicy": "Max", "Policies": policies}},
        "conditions": [{"type": "AbleToScale", "status": "True"}],
    }));
    assert_eq!(faults(&object), [""; 0]);
    let conditions = annotation("conditions");
    assert_eq!(object.meta("annotations").unwrap().get(&conditions), None, "a new one has no status");
    to_stored(first, &mut object);
    assert_eq!(object.meta("annotations"), None);
    let metrics: Vec<&Value> = object.pointer("/spec/metrics").unwrap().as_array().unwrap().iter().collect();
    assert_eq!(metrics.len(), 3);
    assert_eq!(metrics[0]["resource"]["target"], json!({"type": "Utilization", "averageUtilization": 70}));
    assert_eq!(metrics[1]["pods"]["target"], json!({"type": "AverageValue", "averageValue": "5"}));
    assert_eq!(metrics[2]["resource"]["name"], "cpu");
    assert_eq!(object.pointer("/spec/behavior/scaleDown/policies/0/value"), Some(&json!(50)));
    assert_eq!(object.pointer("/spec/behavior/ScaleDown"), None);

    // Status and conditions go back the same way, and only a write of the status may change them.
    object.0.insert(
        "status".into(),
        json!({"conditions": [{"type": "AbleToScale", "status": "True"}], "desiredReplicas": 1}),
    );
    let stored = object.clone();
    from_stored(first, &mut object);
    assert_eq!(object.pointer("/spec/targetCPUUtilizationPercentage"), Some(&json!(70)));
    let read = |object: &Object, name: &str| -> Value {
        let text = object.meta("annotations").unwrap()[&annotation(name)].as_str().unwrap();
        serde_json::from_str(text).unwrap()
    };
    assert_eq!(
        read(&object, "metrics")[1],
        json!({"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "5"}})
    );
    assert_eq!(read(&object, "behavior")["ScaleDown"]["Policies"], policies);
    assert_eq!(read(&object, "conditions")[0]["type"], "AbleToScale");
    let old = object.clone();
    let forged = json!([{"type": "Forged", "status": "True"}]).to_string();
    for (subresource, kept) in [("", "AbleToScale"), ("status", "Forged")] {
        let mut new = old.clone();
        let mut annotations = new.meta("annotations").unwrap().clone();
        annotations[&conditions] = forged.clone().into();
        annotations[annotation("metrics")] = "[]".into();
        new.set_meta("annotations", annotations);
        prepare_update(first, subresource, &mut new, &old);
        assert_eq!(read(&new, "conditions")[0]["type"], kept, "{subresource}");
        let left = read(&new, "metrics").as_array().unwrap().len();
        assert_eq!(left, if subresource == "status" { 2 } else { 0 }, "{subresource}");
    }
    to_stored(first, &mut object);
    assert_eq!(
        (
            object.0.get("spec"),
            object.0.get("status").unwrap().get("conditions").unwrap()[0]["type"].as_str()
        ),
        (stored.0.get("spec"), Some("AbleToScale"))
    );

    // What is wrong is found where v2 has it; what can't be read is as if it weren't there.
    let wrong = annotated(json!({"metrics": [{"type": "Resource", "resource": {"name": "memory",
        "target": {"type": "AverageValue", "averageValue": "1Gi"}}}]}));
    assert_eq!(faults(&wrong), ["spec.metrics[0].resource.target.averageUtilization"]);
    let wrong = annotated(
        json!({"behavior": {"ScaleUp": {"Policies": [{"Type": "Pods", "Value": 0, "PeriodSeconds": 1}]}}}),
    );
    assert_eq!(faults(&wrong), ["spec.behavior.scaleUp.policies[0].value"]);
    assert_eq!(faults(&annotated(json!({"metrics": "x", "behavior": 1}))), [""; 0]);
}

#[test]
fn an_event_is_the_same_in_both_groups() {
    let newer = resource("events.k8s.io", "v1", "events").unwrap();
    let event = json!({"metadata": {"name": "e", "namespace": "d"}, "eventTime": "2026-01-31T12:00:00.000000Z",
        "reportingController": "example.com/c", "reportingInstance": "c-1", "action": "Test", "reason": "Why",
        "type": "Normal", "note": "all is well", "regarding": {"kind": "Pod", "namespace": "d", "name": "p"}});
    let mut object = Object::from_value(event).unwrap();
    set_defaults(newer, &mut object).unwrap();
    prepare_create(newer, &mut object);
    assert_eq!(validate_create(newer, &object), []);
    let before = object.clone();
    to_stored(newer, &mut object);
    assert_eq!(object.api_version(), "v1");
    assert_eq!(object.0["message"], "all is well");
    assert_eq!(object.pointer("/involvedObject/name"), Some(&json!("p")));
    from_stored(newer, &mut object);
    for field in ["note", "regarding", "reportingController", "eventTime"] {
        assert_eq!(object.0.get(field), before.0.get(field), "{field}");
    }
    object.0.remove("action");
    let faults = validate_create(newer, &object);
    assert_eq!(faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>(), ["action"]);
}

#[test]
fn parts_of_a_pod_change_through_their_own_paths_alone() {
    let pods = resource("", "v1", "pods").unwrap();
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let spec = |cpu: &str, image: &str| json!({"containers": [{"name": "a", "image": image, "resources": resources(cpu)}]});
    let old = made(pods, &spec("1", "i"));
    let update = |subresource: &str, spec: Value| {
        let mut new = made(pods, &spec);
        prepare_update(pods, subresource, &mut new, &old);
        let faults = validate_update(pods, subresource, &new, &old);
        (new, faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>())
    };
    let (new, faults) = update("resize", spec("2", "other"));
    assert_eq!(faults, [""; 0]);
    assert_eq!(new.pointer("/spec/containers/0/resources/requests/cpu"), Some(&json!("2")));
    assert_eq!(new.pointer("/spec/containers/0/image"), Some(&json!("i")), "not resized, but kept");
    assert_eq!(update("", spec("2", "i")).1, ["spec"]);
    assert_eq!(
        update("resize", json!({"containers": [{"name": "a", "image": "i"}]})).1,
        ["spec", "spec.containers[0].resources.requests"]
    );

    // The class of service stays, and no more than processors and memory changes; of the whole and at the start too.
    let mut guaranteed = spec("1", "i");
    guaranteed["containers"][0]["resources"] =
        json!({"requests": {"cpu": "1", "memory": "1"}, "limits": {"cpu": "1", "memory": "1"}});
    assert_eq!(update("resize", guaranteed).1, ["spec"]);
    let mut more = spec("1", "i");
    more["containers"][0]["resources"]["requests"]["example.com/x"] = json!("1");
    more["containers"][0]["resources"]["limits"] = json!({"example.com/x": "1"});
    assert_eq!(
        update("resize", more).1,
        ["spec.containers[0].resources.requests", "spec.containers[0].resources.limits"]
    );
    let whole = |cpu: &str, init: &str| {
        let mut whole = with(spec("1", "i"), json!({"resources": resources(cpu)}));
        whole["initContainers"] = json!([{"name": "first", "image": "i", "resources": resources(init)}]);
        whole
    };
    let old = made(pods, &whole("2", "1"));
    let resized = |spec: Value| {
        let mut new = made(pods, &spec);
        prepare_update(pods, "resize", &mut new, &old);
        let faults = validate_update(pods, "resize", &new, &old);
        (new, faults.into_iter().map(|fault| fault.field).collect::<Vec<_>>())
    };
    let (new, faults) = resized(whole("3", "2"));
    assert_eq!(faults, [""; 0]);
    assert_eq!(new.pointer("/spec/resources/requests/cpu"), Some(&json!("3")));
    assert_eq!(new.pointer("/spec/initContainers/0/resources/requests/cpu"), Some(&json!("2")));
    let mut without = whole("3", "2");
    without.as_object_mut().unwrap().remove("resources");
    assert!(resized(without).1.contains(&"spec.resources.requests".to_owned()));

    // A mirror shows a pod that another amount would make another pod.
    let (mut mirror, mut new) = (made(pods, &spec("1", "i")), made(pods, &spec("2", "i")));
    mirror.set_meta("annotations", json!({"kubernetes.io/config.mirror": "hash"}));
    prepare_update(pods, "resize", &mut new, &mirror);
    let faults = validate_update(pods, "resize", &new, &mirror);
    assert!(faults.iter().any(|fault| fault.message.contains("static pods cannot be resized")), "{faults:?}");

    let helper = with(spec("1", "i"), json!({"ephemeralContainers": [{"name": "b", "image": "d"}]}));
    let (with_helper, faults) = update("ephemeralcontainers", helper.clone());
    assert_eq!(faults, [""; 0]);
    assert_eq!(with_helper.meta("generation"), Some(&json!(2)));
    let mut without = made(pods, &spec("1", "i"));
    prepare_update(pods, "ephemeralcontainers", &mut without, &with_helper);
    let faults = validate_update(pods, "ephemeralcontainers", &without, &with_helper);
    assert_eq!(faults[0].field, "spec.ephemeralContainers");
    assert_eq!(wrong("", "v1", "pods", helper), ["spec.ephemeralContainers Forbidden"]);
}

#[test]
fn versions_of_the_same_objects_lead_to_each_other() {
    let mut pairs = 0;
    for resource in resources() {
        for other in resources().filter(|other| other.stored_under() == resource.stored_under()) {
            let found = resource.in_version(&other.api_version());
            assert_eq!(found, Some(other), "{resource:?}");
            pairs += usize::from(other != resource);
        }
        assert_eq!(resource.in_version("example.com/v1"), None, "{resource:?}");
    }
    assert!(pairs >= 4, "events and autoscalers are served in two versions each");
}
