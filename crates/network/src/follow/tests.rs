use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use membership::Liveness;
use serde_json::json;
use store::{Memory, Txn};
use tokio::sync::mpsc;

use super::*;
use crate::ServiceChange;

/// A backend that says what it hears, and is never done with the first that it hears.
struct Recording {
    heard: mpsc::UnboundedSender<Vec<ServiceChange>>,
    is_first: bool,
}

impl ServiceBackend for Recording {
    fn apply<'a>(&'a mut self, changes: &'a [ServiceChange]) -> BoxFuture<'a, Outcome> {
        let _ = self.heard.send(changes.to_vec());
        let outcome = if std::mem::take(&mut self.is_first) { Outcome::Left } else { Outcome::Done };
        async move { outcome }.boxed()
    }
}

async fn put(store: &Memory, (group, resource): (&str, &str), name: &str, object: serde_json::Value) {
    store.txn(Txn::put(objects::key(group, resource, "d", name), object.to_string())).await.unwrap();
}

async fn serve(store: &Memory, name: &str, address: &str) {
    let labels = json!({"kubernetes.io/service-name": name});
    let slice = json!({"metadata": {"name": name, "namespace": "d", "labels": labels}, "addressType": "IPv4",
        "ports": [{"port": 8080}], "endpoints": [{"addresses": [address], "nodeName": "n2"}]});
    put(store, ("discovery.k8s.io", "endpointslices"), name, slice).await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_hears_of_the_one_service_of_two_thousand_that_changed() {
    let store = Arc::new(Memory::default());
    for number in 0..2000 {
        let name = format!("s{number}");
        let service =
            json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"ports": [{"port": 80}]}});
        put(&store, ("", "services"), &name, service).await;
        serve(&store, &name, "10.0.0.1").await;
    }
    let hosts = watch::Sender::new(Arc::new(Hosts::default()));
    let (heard, mut hears) = mpsc::unbounded_channel();
    let backend = Recording { heard, is_first: true };
    let networks = watch::Sender::default();
    let (more, others) = mpsc::unbounded_channel();
    let following =
        tokio::spawn(follow("n1", store.clone(), hosts.subscribe(), networks.subscribe(), others, backend));
    assert_eq!(hears.recv().await.unwrap().len(), 2000, "the first time all that there is");
    assert_eq!(hears.recv().await.unwrap(), [], "once more, since it wasn't done");

    serve(&store, "s1234", "10.0.0.2").await;
    let changes = hears.recv().await.unwrap();
    let [ServiceChange::Served(served)] = changes.as_slice() else { panic!("{changes:?}") };
    assert_eq!(served.id.to_string(), "d/s1234");
    assert_eq!(served.ports[0].endpoints[0].address, ([10, 0, 0, 2], 8080).into());

    #[allow(clippy::disallowed_methods)] // Some instant; nothing depends on which.
    let silent = Liveness { last_heard: Instant::now(), silent: true, incarnation: None };
    hosts.send_replace(Arc::new(Hosts([("n2".to_owned(), silent)].into())));
    assert_eq!(hears.recv().await.unwrap(), [ServiceChange::Silent("n2".into())]);

    let gone = ServiceChange::Gone(served.id.clone());
    more.send(gone.clone()).unwrap();
    assert_eq!(hears.recv().await.unwrap(), [gone]);

    // What changes nothing for callers is passed on as nothing.
    serve(&store, "s1234", "10.0.0.2").await;
    assert_eq!(hears.recv().await.unwrap(), []);
    drop(hosts);
    following.await.unwrap();
}
