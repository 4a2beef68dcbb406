//! Watching the cluster through its API, across every break.

use crate::clock::Clock;
use crate::sight::{Change, Watched, text};
use crate::{Moment, workload::Workload};
use ::tasks::SpawnIn;
use client::{Client, Error, WatchKind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tracing::info_span;

/// Between two tries to reach a server that does not answer.
const AGAIN: Duration = Duration::from_millis(50);

/// What an observer reports.
pub(crate) enum Seen {
    /// The first list of a kind has been read; changes are reported from here on.
    Synced,
    /// An object changed.
    Change(Moment, Change),
}

/// Watches nodes, the workload's pods, those of its StatefulSet and its endpoints. Dropping it ends it.
pub(crate) struct Observer {
    /// Counted up, every watch begins anew.
    again: Sender<u64>,
    /// How many kinds it watches: it says [`Seen::Synced`] once for each.
    pub(crate) kinds: usize,
    _tasks: JoinSet<()>,
}

impl Observer {
    pub(crate) fn start(
        clock: Clock,
        client: &Client,
        workload: &Workload,
        out: UnboundedSender<Seen>,
    ) -> Self {
        let (again, told) = channel(0);
        let Workload { namespace, service, .. } = workload;
        let slices = "/apis/discovery.k8s.io/v1/namespaces";
        let mut paths: Vec<(Watched, String)> = vec![
            (Watched::Nodes, "/api/v1/nodes?".into()),
            (
                Watched::Pods,
                format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}&", workload.selector()),
            ),
            (
                Watched::Slices,
                format!(
                    "{slices}/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}&"
                ),
            ),
        ];
        if let Ok(stateful) = &workload.stateful {
            let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}&", stateful.selector());
            paths.push((Watched::StatefulPods, path));
        }
        let kinds = paths.len();
        let client = client.with_timeout(Duration::from_secs(2));
        let mut tasks = JoinSet::new();
        for (kind, path) in paths {
            let follow = Follow {
                clock,
                client: client.clone(),
                kind,
                path,
                out: out.clone(),
                known: BTreeMap::new(),
            };
            tasks.spawn_in(info_span!("observe"), follow.run(told.clone()));
        }
        Observer { again, kinds, _tasks: tasks }
    }

    /// The way to the server may have changed: list and watch anew.
    pub(crate) fn begin_anew(&self) {
        self.again.send_modify(|n| *n += 1);
    }
}

struct Follow {
    clock: Clock,
    client: Client,
    kind: Watched,
    path: String,
    out: UnboundedSender<Seen>,
    known: BTreeMap<String, Value>,
}

/// What makes an object itself and no other of its name.
fn identity(object: &Value) -> String {
    let uid = text(object, "/metadata/uid");
    if uid.is_empty() { text(object, "/metadata/name").to_owned() } else { uid.to_owned() }
}

impl Follow {
    async fn run(mut self, mut told: Receiver<u64>) {
        let mut synced = false;
        loop {
            told.borrow_and_update();
            tokio::select! {
                ended = self.once(&mut synced) => drop(ended),
                changed = told.changed() => if changed.is_err() { return },
            }
            // One that is kept may lead to the host whose power was cut, which answers nothing and refuses nothing.
            self.client.forget_connections();
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// One list and the watch from there on.
    async fn once(&mut self, synced: &mut bool) -> Result<(), Error> {
        let path = self.path.trim_end_matches(['?', '&']).to_owned();
        let list = self.client.get(&path).await?;
        let items = list.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut gone = std::mem::take(&mut self.known);
        for item in items {
            let id = identity(&item);
            let old = gone.remove(&id);
            if *synced && old.as_ref() != Some(&item) {
                self.tell(old, Some(item.clone()));
            }
            self.known.insert(id, item);
        }
        for (_, old) in gone {
            self.tell(Some(old), None);
        }
        if !*synced {
            *synced = true;
            // The other end is the drill: when it is gone, so is this task.
            let _ = self.out.send(Seen::Synced);
        }
        let revision = text(&list, "/metadata/resourceVersion").to_owned();
        let mut watch = self.client.watch(&format!("{}resourceVersion={revision}", self.path), None).await?;
        while let Some(event) = watch.next().await? {
            let id = identity(&event.object);
            match event.kind {
                WatchKind::Bookmark => {}
                WatchKind::Deleted => {
                    let old = self.known.remove(&id).unwrap_or(event.object);
                    self.tell(Some(old), None);
                }
                WatchKind::Added | WatchKind::Modified => {
                    let old = self.known.insert(id, event.object.clone());
                    self.tell(old, Some(event.object));
                }
            }
        }
        Ok(())
    }

    fn tell(&self, old: Option<Value>, new: Option<Value>) {
        let change = Change { kind: self.kind, old, new };
        let _ = self.out.send(Seen::Change(self.clock.now(), change));
    }
}
