//! The preload: pods that only lie in the store, so that the cluster which is cut has as much to keep in mind as a
//! user's has.
//!
//! Pods, then ReplicaSets, then Deployments, each made through the API. In this order the controllers have nothing to
//! make or to delete: a ReplicaSet adopts the pods that its selector means, and a Deployment the ReplicaSet whose
//! template is its own. Every pod has a scheduling gate (KEP-3521), so that it is placed and started nowhere.

mod objects;

use crate::clock::Clock;
use crate::{Error, Moment};
use client::Client;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Pods of one Deployment.
const A_DEPLOYMENT: usize = 10;
/// Pods of one namespace, until there are [`MOST_NAMESPACES`].
const A_NAMESPACE: usize = 500;
const MOST_NAMESPACES: usize = 20;
/// Requests under way at a time: as many as the client keeps connections.
const AT_A_TIME: usize = 16;
/// Between two looks at what the controllers have done, and before something refused is tried again.
const LOOK: Duration = Duration::from_millis(200);

/// What lies in the cluster beside the workload.
pub(crate) struct Preload {
    pods: usize,
    groups: Vec<Group>,
}

/// One Deployment with its ReplicaSet and its pods.
#[derive(Debug, PartialEq)]
struct Group {
    namespace: String,
    name: String,
    pods: usize,
}

impl Preload {
    /// A load of `pods` pods, in namespaces whose names begin with `prefix`.
    pub(crate) fn of(pods: usize, prefix: &str) -> Self {
        let namespaces = pods.div_ceil(A_NAMESPACE).clamp(1, MOST_NAMESPACES);
        let groups = (0..pods.div_ceil(A_DEPLOYMENT)).map(|number| Group {
            namespace: format!("{prefix}-load-{:02}", number % namespaces),
            name: format!("load-{number:05}"),
            pods: A_DEPLOYMENT.min(pods - number * A_DEPLOYMENT),
        });
        Preload { pods, groups: groups.collect() }
    }

    /// Says what it is.
    pub(crate) fn describe(&self) -> String {
        let (pods, deployments, namespaces) = (self.pods, self.groups.len(), self.namespaces().len());
        let count =
            |number: usize, noun: &str| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        format!(
            "preloading {} of {} in {}",
            count(pods, "pod"),
            count(deployments, "Deployment"),
            count(namespaces, "namespace")
        )
    }

    /// The groups of each namespace.
    fn namespaces(&self) -> BTreeMap<&str, Vec<&Group>> {
        let mut found: BTreeMap<&str, Vec<&Group>> = BTreeMap::new();
        for group in &self.groups {
            found.entry(&group.namespace).or_default().push(group);
        }
        found
    }

    /// Makes everything, and waits until the controllers have taken it as it is. `patience` is for each single
    /// request that fails, and for the controllers while nothing changes.
    pub(crate) async fn fill(&self, client: &Client, clock: Clock, patience: Duration) -> Result<(), Error> {
        let maker = Maker { client, clock, patience };
        let namespaces = self.namespaces();
        maker.make_all(namespaces.keys().map(|name| objects::namespace(name))).await?;
        for namespace in namespaces.keys() {
            // A pod is refused until its namespace has this.
            maker.read(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/default")).await?;
        }
        maker.make_all(self.groups.iter().flat_map(|g| (0..g.pods).map(|n| objects::pod(g, n)))).await?;
        maker.make_all(self.groups.iter().map(objects::replica_set)).await?;
        maker.make_all(self.groups.iter().map(objects::deployment)).await?;
        maker.settle(namespaces).await
    }

    /// Takes everything away; a cluster that is about to go does not mind when that fails.
    pub(crate) async fn remove(&self, client: &Client) {
        let namespaces = self.namespaces();
        let deletions = namespaces.keys().map(|name| async move {
            drop(client.delete(&format!("/api/v1/namespaces/{name}"), &json!({})).await);
        });
        futures::future::join_all(deletions).await;
    }
}

/// Makes objects, many at a time.
struct Maker<'a> {
    client: &'a Client,
    clock: Clock,
    patience: Duration,
}

/// An object, and the collection that it is posted to.
type Made = (String, Value);

impl Maker<'_> {
    async fn make_all(&self, objects: impl Iterator<Item = Made>) -> Result<(), Error> {
        let made = objects.map(|(path, object)| async move { self.make(&path, &object).await });
        stream::iter(made).buffer_unordered(AT_A_TIME).try_collect().await
    }

    /// Makes one object. A server that is busy or away for a moment is asked again.
    async fn make(&self, path: &str, object: &Value) -> Result<(), Error> {
        let until = self.clock.now() + self.patience;
        let mut tries = 0;
        loop {
            tries += 1;
            let Err(error) = self.client.create(path, object).await else {
                return Ok(());
            };
            match error.code() {
                // Made by the try before, whose answer was lost: the names are ours alone.
                Some(409) if tries > 1 => return Ok(()),
                Some(429) => {}
                Some(400..500) => return Err(error.into()),
                _ => {}
            }
            self.pause(until, error).await?;
        }
    }

    /// What there is at a path, as soon as there is something. A server that is away for a moment is asked again.
    async fn read(&self, path: &str) -> Result<Value, Error> {
        let until = self.clock.now() + self.patience;
        loop {
            match self.client.get(path).await {
                Ok(value) => return Ok(value),
                Err(error) => self.pause(until, error).await?,
            }
        }
    }

    async fn pause(&self, until: Moment, error: client::Error) -> Result<(), Error> {
        if self.clock.now() > until {
            return Err(error.into());
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }

    /// Waits until each Deployment counts the pods that were made for it, and nothing else was made.
    async fn settle(&self, mut namespaces: BTreeMap<&str, Vec<&Group>>) -> Result<(), Error> {
        let all: usize = namespaces.values().map(Vec::len).sum();
        let (mut fewest, mut until) = (usize::MAX, Moment::ZERO);
        loop {
            let mut open = 0;
            for (namespace, groups) in std::mem::take(&mut namespaces) {
                let path = format!("/apis/apps/v1/namespaces/{namespace}");
                let sets = self.read(&format!("{path}/replicasets")).await?;
                let deployments = self.read(&format!("{path}/deployments")).await?;
                let unsettled = groups.iter().filter(|g| !g.is_settled(&sets, &deployments)).count();
                if unsettled > 0 {
                    open += unsettled;
                    namespaces.insert(namespace, groups);
                }
            }
            if open == 0 {
                return Ok(());
            }
            if open < fewest {
                (fewest, until) = (open, self.clock.now() + self.patience);
            }
            if self.clock.now() > until {
                return Err(Error::Preload { after: self.patience, open, all });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Group {
    /// Whether the controllers' own counts say that these pods are all there is.
    fn is_settled(&self, sets: &Value, deployments: &Value) -> bool {
        let counts = |object: &Value, count: &str| object["status"][count].as_u64() == Some(self.pods as u64);
        let prefix = format!("{}-", self.name);
        let mut own = items(sets).filter(|set| name(set).starts_with(&prefix));
        let is_whole = own.next().is_some_and(|set| counts(set, "replicas")) && own.next().is_none();
        let deployment = items(deployments).find(|deployment| name(deployment) == self.name);
        is_whole && deployment.is_some_and(|d| counts(d, "replicas") && counts(d, "updatedReplicas"))
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn pods_are_spread_and_counted() {
        for (pods, groups, namespaces, last) in
            [(1, 1, 1, 1), (10, 1, 1, 10), (500, 50, 1, 10), (501, 51, 2, 1), (30_000, 3_000, 20, 10)]
        {
            let preload = Preload::of(pods, "x");
            let spread = preload.namespaces();
            assert_eq!((preload.groups.len(), spread.len()), (groups, namespaces), "{pods}");
            assert_eq!(preload.groups.last().unwrap().pods, last, "{pods}");
            assert_eq!(preload.groups.iter().map(|g| g.pods).sum::<usize>(), pods);
            let sizes: BTreeSet<usize> = spread.values().map(Vec::len).collect();
            assert!(sizes.last().unwrap() - sizes.first().unwrap() <= 1, "{pods}: {sizes:?}");
            let all: Vec<Made> =
                (preload.groups.iter()).flat_map(|g| (0..g.pods).map(|n| objects::pod(g, n))).collect();
            let names: BTreeSet<&str> =
                all.iter().filter_map(|(_, pod)| pod["metadata"]["name"].as_str()).collect();
            assert_eq!(names.len(), pods, "names are unique");
        }
    }

    #[test]
    fn a_group_is_settled_when_its_own_pods_are_counted_and_no_others_made() {
        let group = Group { namespace: "x".into(), name: "load-1".into(), pods: 2 };
        let set =
            |name: &str, replicas: u64| json!({"metadata": {"name": name}, "status": {"replicas": replicas}});
        let deployment = |replicas: u64, updated: u64| {
            json!({"items": [{"metadata": {"name": "load-1"},
                "status": {"replicas": replicas, "updatedReplicas": updated}}]})
        };
        for (sets, deployments, settled) in [
            (vec![set("load-1-a", 2)], deployment(2, 2), true),
            (vec![set("load-1-a", 2), set("load-10-a", 9)], deployment(2, 2), true),
            (vec![set("load-1-a", 1)], deployment(2, 2), false),
            (vec![set("load-1-a", 2)], deployment(2, 0), false),
            (vec![set("load-1-a", 2)], deployment(3, 2), false),
            (vec![set("load-1-a", 2), set("load-1-b", 2)], deployment(2, 2), false),
            (vec![], deployment(2, 2), false),
            (vec![set("load-1-a", 2)], json!({"items": []}), false),
        ] {
            let list = json!({"items": sets});
            assert_eq!(group.is_settled(&list, &deployments), settled, "{list} {deployments}");
        }
    }
}
