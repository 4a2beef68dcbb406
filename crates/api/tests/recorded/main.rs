//! What kube-apiserver answered, held against what this crate makes of the same requests.

#![allow(missing_docs, clippy::unwrap_used)]

mod registry;
mod steps;

use api::{
    Catalog, discovery_aggregated, discovery_api_versions, discovery_group, discovery_groups,
    discovery_resources, resources,
};
use registry::Registry;
use serde_json::{Value, json};
use steps::{case, cases, like_recorded};

/// Replays a case; at least `least` of its steps must be about this crate.
fn replay(name: &str, least: usize) {
    let mut registry = Registry::default();
    let mut compared = 0;
    for (index, step) in case(name).iter().enumerate() {
        let Some((code, body)) = registry.answer(step) else { continue };
        let expected = &step["answer"];
        let (ours, theirs) = (like_recorded(&body), like_recorded(&expected["body"]));
        assert_eq!(
            (code, &ours),
            (expected["code"].as_u64().unwrap(), &theirs),
            "{name}, step {index}: {} {}\nours:   {ours}\ntheirs: {theirs}",
            step["method"],
            step["path"],
        );
        compared += 1;
    }
    assert!(compared >= least, "{name}: only {compared} steps were held against the recording");
}

fn built_in() -> Catalog {
    Catalog::default()
}

#[test]
fn a_life_of_every_kind() {
    let mut lives = 0;
    for name in cases().filter(|name| name.starts_with("life ")) {
        replay(&name, 4);
        lives += 1;
    }
    assert!(lives >= 18, "{lives}");
}

#[test]
fn errors() {
    replay("errors", 31);
}

#[test]
fn patches_of_every_kind() {
    replay("patch kinds", 23);
}

#[test]
fn subresources() {
    replay("subresources", 12);
}

#[test]
fn selectors() {
    replay("lists and selectors", 20);
    replay("pod selectors", 8);
}

#[test]
fn defaults_of_a_rich_pod() {
    replay("defaults of a rich pod", 3);
}

/// What of a recorded list of resources is served here.
fn served(group: &str, list: &Value) -> Vec<Value> {
    let is_served = |name: &str| {
        let (plural, sub) = name.split_once('/').unwrap_or((name, ""));
        let resource = resources().find(|r| r.group == group && r.plural == plural);
        resource.is_some_and(|r| sub.is_empty() || r.subresource(sub).is_some())
    };
    let list = list.as_array().unwrap().iter();
    list.filter(|entry| is_served(entry["name"].as_str().unwrap())).cloned().collect()
}

#[test]
fn discovery() {
    let recorded = |name: &str| case(name)[0]["answer"]["body"].clone();
    assert_eq!(discovery_api_versions("10.0.0.100:6443"), recorded("discovery /api"));
    for name in cases().filter(|name| name.starts_with("discovery ")) {
        let step = &case(&name)[0];
        if step["answer"]["code"] != 200 {
            continue;
        }
        let path = step["path"].as_str().unwrap().to_owned();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            ["apis", group] => {
                assert_eq!(discovery_group(&built_in(), group).unwrap(), recorded(&name), "{name}")
            }
            ["apis", group, version] | ["api", group @ version] => {
                let group = if parts[0] == "api" { "" } else { *group };
                let mut expected = recorded(&name);
                expected["resources"] = served(group, &expected["resources"]).into();
                assert_eq!(discovery_resources(&built_in(), group, version).unwrap(), expected, "{name}");
            }
            _ => {}
        }
    }
    let known: Vec<Value> = recorded("discovery /apis")["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|group| resources().any(|r| group["name"] == r.group))
        .cloned()
        .collect();
    assert_eq!(discovery_groups(&built_in())["groups"], Value::from(known));
}

#[test]
fn discovery_of_all_at_once() {
    let steps = case("discovery aggregated");
    for (core, step) in [(true, &steps[0]), (false, &steps[1])] {
        let ours = discovery_aggregated(&built_in(), core);
        let theirs = &step["answer"]["body"];
        for item in ours["items"].as_array().unwrap() {
            let same = theirs["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(|i| i["metadata"] == item["metadata"])
                .unwrap();
            for resource in item["versions"][0]["resources"].as_array().unwrap() {
                let list = same["versions"][0]["resources"].as_array().unwrap();
                let mut expected =
                    list.iter().find(|r| r["resource"] == resource["resource"]).unwrap().clone();
                let mine: Vec<&Value> = resource["subresources"].as_array().into_iter().flatten().collect();
                if let Some(subresources) = expected["subresources"].as_array_mut() {
                    subresources
                        .retain(|sub| mine.iter().any(|own| own["subresource"] == sub["subresource"]));
                    if subresources.is_empty() {
                        expected.as_object_mut().unwrap().remove("subresources");
                    }
                }
                if expected["subresources"].is_null() {
                    expected.as_object_mut().unwrap().remove("subresources");
                }
                assert_eq!(resource, &expected);
            }
        }
        assert_eq!(ours["kind"], json!("APIGroupDiscoveryList"));
    }
}
