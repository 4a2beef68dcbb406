//! One Deployment with many pods, from nothing to available, rolled over and gone: the controllers' driver over the real
//! write path and a store in memory, and hosts that place, start and end pods at once. How fast it goes with ten thousand is
//! measured by `bench -- scale`.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use objects::{Delete, ObjectRef, Pod, Pool, Propagation, Reader, TypedRef, Uid, Write, Writer};
use serde_json::json;
use store::{Event, KeyRange, State, Store};
use tokio::sync::watch;

use crate::cluster::{Cluster, wire};

/// What hosts do about one changed pod.
fn step(event: &Event, nodes: usize, now: jiff::Timestamp) -> Option<Write> {
    let Event::Put { current, .. } = event else { return None };
    if !current.key.starts_with(objects::kind_prefix("", "pods").as_bytes()) {
        return None;
    }
    let pod: Pod = objects::decode(current).ok()?;
    let name = pod.metadata.name.clone()?;
    let subject = subject("v1", "Pod", &name);
    if pod.metadata.deletion_timestamp.is_some() {
        let options = Delete { grace_seconds: Some(0), ..Delete::default() };
        return Some(Write::Delete { subject, options });
    }
    let number = usize::try_from(current.mod_revision.0).ok()?;
    if pod.node().is_none() {
        let node = format!("n{}", number % nodes);
        return Some(Write::Bind { pod: ObjectRef::of(&pod), uid: Uid::of(&pod)?, node });
    }
    if pod.status.as_ref().and_then(|status| status.phase) == Some("Running") {
        return None;
    }
    let ip = format!("10.{}.{}.{}", 1 + number / 62_500 % 250, number / 250 % 250, 1 + number % 250);
    let status = json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": wire(now)}],
    }});
    Some(Write::Merge { subject, subresource: "status", patch: status })
}

fn subject(api_version: &str, kind: &str, name: &str) -> TypedRef {
    TypedRef {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: "default".into(),
        name: name.into(),
    }
}

/// The hosts of the cluster: every pod is placed, started and ended as soon as that is asked for.
async fn hosts(store: Arc<dyn Store>, writer: Arc<dyn Writer>, nodes: usize) {
    let mut states = store.states();
    let mut seen = states.borrow().revision();
    loop {
        let state = states.borrow_and_update().clone();
        let now = jiff::Timestamp::now();
        let writes: Vec<_> = state.events(seen.next()).filter_map(|event| step(event, nodes, now)).collect();
        seen = state.revision();
        let writer = &writer;
        futures::stream::iter(writes)
            .map(|write| async move { drop(writer.write("kubernetes-admin", write).await) })
            .buffer_unordered(64)
            .collect::<Vec<_>>()
            .await;
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until that is so; the answer is how many writes it took.
async fn until(states: &mut watch::Receiver<Arc<State>>, mut holds: impl FnMut(&State) -> bool) -> u64 {
    let first = states.borrow().revision();
    loop {
        let state = states.borrow_and_update().clone();
        if holds(&state) {
            return state.revision().0 - first.0;
        }
        states.changed().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_pods_come_roll_over_and_go() {
    let (pods, nodes) = (250, 100);
    let names: Vec<String> = (0..nodes).map(|n| format!("n{n}")).collect();
    let cluster = Cluster::new(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let store: Arc<dyn Store> = cluster.store.clone();
    let (_silent, silence) = watch::channel(controllers::Silence::new());
    let options = controllers::Options {
        part: controllers::Part::All,
        store: store.clone(),
        writer: cluster.writer.clone(),
        asker: std::sync::Arc::new(crate::cluster::Nobody),
        silence,
        pods: Pool::default(),
        ended: watch::channel(Default::default()).1,
        grace: controllers::GRACE,
        fenced_after: controllers::FENCED_AFTER,
        api_port: 6443,
        addresses: objects::AddressPool::default(),
        root_certificate: "a certificate".into(),
        signer: None,
        load: watch::Sender::default(),
    };
    // A thread of its own, as the program has it.
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(controllers::run(options));
    });
    tokio::spawn(hosts(store.clone(), cluster.writer.clone(), nodes));
    let mut states = store.states();
    cluster.deploy("web", pods, json!({})).await;
    let complete = move |state: &State| {
        let deployment: Deployment = Reader::get(state, "default", "web").unwrap();
        let wanted = i32::try_from(pods).ok();
        deployment.status.is_some_and(|status| {
            status.observed_generation == deployment.metadata.generation
                && status.replicas == wanted
                && status.updated_replicas == wanted
                && status.available_replicas == wanted
        })
    };
    let behind = move |state: &State| {
        let slices = Reader::<EndpointSlice>::list_in(state, "default");
        assert!(slices.iter().all(|slice| slice.endpoints.iter().flatten().count() <= 100));
        let all = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        all.filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true))).count() == pods as usize
    };
    until(&mut states, complete).await;
    until(&mut states, behind).await;
    cluster.set_image("web", "web:2").await;
    until(&mut states, complete).await;
    until(&mut states, behind).await;
    let options = Delete { propagation: Some(Propagation::Background), ..Delete::default() };
    let delete = Write::Delete { subject: subject("apps/v1", "Deployment", "web"), options };
    cluster.writer.write("kubernetes-admin", delete).await.unwrap();
    let all = KeyRange::prefix(objects::kind_prefix("", "pods"));
    until(&mut states, |state| state.range(&all).next().is_none()).await;
}
