//! Selectors by the fields that kinds have for them.

#![allow(missing_docs, clippy::unwrap_used)]

use api::resource;
use machinery::{FieldSelector, LabelSelector, Object, Selectable};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn fields_select() {
    let pods = resource("", "v1", "pods").unwrap();
    let pod = Object::from_value(json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}})).unwrap();
    for yes in
        ["", "metadata.name=a", "spec.nodeName!=n2", "metadata.name==a,spec.nodeName=n1", "status.phase="]
    {
        assert!(FieldSelector::parse(pods, yes).unwrap().matches(&pod), "{yes}");
    }
    for no in ["metadata.name=b", "spec.nodeName!=n1", "metadata.name=a,status.phase=Running"] {
        assert!(!FieldSelector::parse(pods, no).unwrap().matches(&pod), "{no}");
    }
    for bad in ["a=b", "metadata.name", "spec.containers=x", "metadata.name=a=b", "metadata.name=\\x"] {
        assert_eq!(FieldSelector::parse(pods, bad).unwrap_err().code, 400, "{bad}");
    }
    assert_eq!(FieldSelector::parse(pods, "metadata.name=a").unwrap().name(), Some("a"));
    let node =
        |text: &str| FieldSelector::parse(pods, text).unwrap().value_at("/spec/nodeName").map(str::to_owned);
    assert_eq!(node("status.phase=Running,spec.nodeName=n1").as_deref(), Some("n1"));
    assert_eq!(node("spec.nodeName=").as_deref(), Some(""));
    assert_eq!((node("spec.nodeName!=n1"), node("metadata.name=n1")), (None, None));
}

proptest! {
    #[test]
    fn any_text_is_a_selector_or_an_error(text in "(metadata.name|[=!,\\\\a-z\\PC]){0,20}") {
        let _ = FieldSelector::parse(resource("", "v1", "pods").unwrap(), &text);
    }
}

#[test]
fn what_can_be_selected_by_is_read_and_nothing_else() {
    let pods = resource("", "v1", "pods").unwrap();
    let pod = json!({
        "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "y"}, "uid": "u", "annotations": {"big": "b"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "env": [{"name": "A"}]}], "hostNetwork": true},
        "status": null,
    });
    let part = Selectable::of(pods).read(pod.to_string().as_bytes()).unwrap();
    let expected = json!({
        "metadata": {"name": "a", "labels": {"x": "y"}},
        "spec": {"nodeName": "n1", "hostNetwork": true},
        "status": null,
    });
    assert_eq!(json!(part), expected);
    for odd in [
        "{\"spec\": [1, {\"a\": 2}], \"metadata\": 5}",
        "{\"spec\": \"text\", \"metadata\": {\"labels\": 1.5}}",
    ] {
        assert!(Selectable::of(pods).read(odd.as_bytes()).is_ok(), "{odd}");
    }
    for wrong in ["", "5", "[]", "{\"spec\": {", "{} {}"] {
        assert!(Selectable::of(pods).read(wrong.as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn selectors_mean_the_same_of_the_part_as_of_the_whole() {
    let pods = resource("", "v1", "pods").unwrap();
    let part = Selectable::of(pods);
    let objects = [
        json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1", "restartPolicy": "Never"}}),
        json!({"metadata": {"name": "b", "labels": {"app": "web"}}, "status": {"phase": "Running", "podIP": "1.2.3.4"}}),
        json!({"metadata": {"name": "c", "namespace": "d", "labels": {}}, "spec": {"schedulerName": "s"}}),
    ];
    let fields = [
        "spec.nodeName=n1",
        "spec.nodeName!=",
        "status.phase=Running",
        "metadata.name=c",
        "metadata.namespace=d",
        "spec.schedulerName=s",
        "status.podIP=1.2.3.4",
        "spec.restartPolicy!=Never",
    ];
    for object in objects {
        let whole = Object::from_value(object.clone()).unwrap();
        let read = part.read(object.to_string().as_bytes()).unwrap();
        for text in fields {
            let selector = FieldSelector::parse(pods, text).unwrap();
            assert_eq!(selector.matches(&read), selector.matches(&whole), "{text} of {object}");
        }
        for text in ["app=web", "app", "!app", "app notin (web)"] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&read), selector.matches(&whole), "{text} of {object}");
        }
    }
}
