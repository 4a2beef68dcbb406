//! Time and chance come from outside: the same requests make the same objects where both are the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Value, json};
use server::{Edge, SystemEdge};
use store::{KeyRange, Store};

use crate::house::House;

/// A clock that stands, and numbers that follow from a seed.
#[derive(Debug)]
struct Seeded(AtomicU64);

const NOW: &str = "2030-01-02T03:04:05Z";

impl Edge for Seeded {
    fn now(&self) -> Timestamp {
        NOW.parse().unwrap()
    }

    fn instant(&self) -> Instant {
        SystemEdge.instant()
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// All that is in the store after some requests.
async fn story(seed: u64) -> Vec<(String, String)> {
    let house = House::driven(Arc::new(Seeded(AtomicU64::new(seed)))).await;
    let pod =
        json!({"metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let (code, made) = house.ask("POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(code, 201, "{made}");
    let (code, answer) = house.ask("POST", "/api/v1/namespaces/default/services", Some(service)).await;
    assert_eq!(code, 201, "{answer}");
    let path = format!("/api/v1/namespaces/default/pods/{}", made["metadata"]["name"].as_str().unwrap());
    let binding = json!({"target": {"kind": "Node", "name": "n1"}});
    let (code, answer) = house.ask("POST", &format!("{path}/binding"), Some(binding)).await;
    assert_eq!(code, 201, "{answer}");
    assert_eq!(house.ask("DELETE", &path, None).await.0, 200);
    let state = house.store.snapshot();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    state.range(&KeyRange::prefix("/")).map(|kv| (text(&kv.key), text(&kv.value.bytes()))).collect()
}

/// The times of an object, wherever in it.
fn times(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|item| times(item, found)),
        Value::Object(map) => {
            for (key, item) in map {
                match item.as_str() {
                    Some(text) if key == "time" || key.ends_with("Time") || key == "creationTimestamp" => {
                        found.push(text.to_owned());
                    }
                    _ => times(item, found),
                }
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_same_requests_make_the_same_objects_where_time_and_chance_are_the_same() {
    let (first, again, other) = (story(1).await, story(1).await, story(2).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    let mut found = Vec::new();
    for (_, value) in first.iter().filter(|(key, _)| key.starts_with("/registry/")) {
        times(&serde_json::from_str(value).unwrap(), &mut found);
    }
    assert!(found.len() > 200, "{}", found.len());
    assert!(found.iter().all(|time| time == NOW), "{found:?}");
}
