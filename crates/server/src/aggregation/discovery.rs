//! What aggregated APIs serve, beside what is served here.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Aggregation, Remote};

impl Aggregation {
    /// The aggregated API that a path is below, and what follows its version.
    pub(crate) fn remote<'a>(&self, path: &'a str) -> Option<(Arc<Remote>, &'a str)> {
        let remotes = self.remotes(&self.registry.store().snapshot());
        if remotes.list.is_empty() {
            return None;
        }
        let below = path.strip_prefix("/apis/")?;
        let (group, below) = below.split_once('/')?;
        let (version, rest) = match below.find('/') {
            Some(at) => below.split_at(at),
            None => (below, ""),
        };
        Some((remotes.find(group, version)?.clone(), rest))
    }

    fn all_remotes(&self) -> Vec<Arc<Remote>> {
        self.remotes(&self.registry.store().snapshot()).list.clone()
    }

    /// Adds aggregated groups that answer to an `APIGroupList`.
    pub(crate) fn add_remote_groups(&self, list: &mut Value) {
        for remote in self.all_remotes().iter().filter(|remote| remote.available) {
            add_group(list, &remote.group, &remote.version);
        }
    }

    /// Adds aggregated groups to an `APIGroupDiscoveryList`: of servers that don't answer, what they said last, as stale.
    pub(crate) fn add_remote_discovery(&self, list: &mut Value) {
        for remote in self.all_remotes() {
            let (resources, current) = self.probes.resources(&remote.name);
            add_discovered(list, &remote.group, discovered(&remote.version, resources.as_ref(), current));
        }
    }

    /// Adds aggregated APIs' documents to the index of OpenAPI v3.
    pub(crate) fn add_remote_openapi(&self, index: &mut Value) {
        for remote in self.all_remotes() {
            if let Some(url) = self.probes.openapi(&remote.name) {
                let path = format!("apis/{}/{}", remote.group, remote.version);
                index["paths"][path] = json!({"serverRelativeURL": url});
            }
        }
    }

    /// What the documents of aggregated APIs are known by now.
    pub(crate) fn remote_openapi(&self) -> Vec<(Arc<Remote>, String)> {
        let probes = &self.probes;
        self.all_remotes().into_iter().filter_map(|r| Some((r.clone(), probes.openapi(&r.name)?))).collect()
    }

    /// The OpenAPI v3 document of an aggregated API, if it can be had.
    pub(crate) async fn fetch_openapi(&self, remote: &Remote, url: &str) -> Option<Value> {
        self.fetch(remote, url).await.ok()
    }
}

/// Adds a group's version to an `APIGroupList`.
pub(crate) fn add_group(list: &mut Value, group: &str, version: &str) {
    let entry = json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let new = json!({"name": group, "versions": [], "preferredVersion": entry});
    add_version(&mut list["groups"], |known| known["name"] == group, new, entry);
}

/// Adds a group's version to an `APIGroupDiscoveryList`.
pub(crate) fn add_discovered(list: &mut Value, group: &str, version: Value) {
    let new = json!({"metadata": {"name": group}, "versions": []});
    add_version(&mut list["items"], |known| known["metadata"]["name"] == group, new, version);
}

/// Adds a version to the group of a list that is the one, or to the new one if there is none.
fn add_version(groups: &mut Value, is_it: impl Fn(&Value) -> bool, new: Value, version: Value) {
    let Some(groups) = groups.as_array_mut() else { return };
    let at = groups.iter().position(is_it).unwrap_or_else(|| {
        groups.push(new);
        groups.len() - 1
    });
    if let Some(versions) = groups[at]["versions"].as_array_mut() {
        versions.push(version);
    }
}

/// A version as an `APIGroupDiscoveryList` has it, of the resources of an `APIResourceList`.
pub(crate) fn discovered(version: &str, resources: Option<&Value>, current: bool) -> Value {
    let resources = aggregated(resources);
    let freshness = if current { "Current" } else { "Stale" };
    let mut version = json!({"version": version, "freshness": freshness});
    if !resources.is_empty() {
        version["resources"] = resources.into();
    }
    version
}

/// The resources of an `APIResourceList` as an `APIGroupDiscoveryList` has them.
fn aggregated(resources: Option<&Value>) -> Vec<Value> {
    let all = || resources.and_then(Value::as_array).into_iter().flatten();
    let name = |resource: &Value| resource["name"].as_str().unwrap_or_default().to_owned();
    let kind = |resource: &Value| {
        json!({
            "group": resource["group"].as_str().unwrap_or_default(),
            "version": resource["version"].as_str().unwrap_or_default(),
            "kind": resource["kind"],
        })
    };
    let whole = all().filter(|resource| !name(resource).contains('/'));
    let entries = whole.map(|resource| {
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut entry = json!({
            "resource": resource["name"], "responseKind": kind(resource), "scope": scope,
            "singularResource": resource["singularName"], "verbs": resource["verbs"],
        });
        for key in ["shortNames", "categories"] {
            if resource[key].is_array() {
                entry[key] = resource[key].clone();
            }
        }
        let plural = name(resource);
        let parts: Vec<Value> = all()
            .filter_map(|other| {
                let full = name(other);
                let sub = full.strip_prefix(&plural)?.strip_prefix('/')?;
                Some(json!({"subresource": sub, "responseKind": kind(other), "verbs": other["verbs"]}))
            })
            .collect();
        if !parts.is_empty() {
            entry["subresources"] = parts.into();
        }
        entry
    });
    entries.collect()
}
