//! Discovery: what the API serves, in the three forms that clients ask for.

use machinery::{Resource, Subresource, api_version};
use serde_json::{Map, Value, json};

use crate::catalog::Catalog;

/// What `GET /api` answers.
pub fn discovery_api_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
    })
}

/// What `GET /apis` answers.
pub fn discovery_groups(catalog: &Catalog) -> Value {
    let groups = catalog.groups().into_iter().filter(|group| !group.is_empty());
    let groups: Vec<Value> = groups.map(|group| group_entry(catalog, group)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// What `GET /apis/GROUP` answers; nothing if there is no such group.
pub fn discovery_group(catalog: &Catalog, group: &str) -> Option<Value> {
    let group = catalog.groups().into_iter().find(|known| !known.is_empty() && *known == group)?;
    let mut answer = json!({ "kind": "APIGroup", "apiVersion": "v1" });
    if let (Value::Object(answer), Value::Object(entry)) = (&mut answer, group_entry(catalog, group)) {
        answer.extend(entry);
    }
    Some(answer)
}

/// What `GET /api/v1` or `GET /apis/GROUP/VERSION` answers; nothing if there is no such version.
pub fn discovery_resources(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let mut list = Vec::new();
    for resource in catalog.resources().filter(|r| r.group == group && r.version == version) {
        list.push(resource_entry(resource));
        list.extend(resource.subresources.iter().map(|sub| subresource_entry(resource, sub)));
    }
    if list.is_empty() {
        return None;
    }
    let mut answer = Map::new();
    answer.insert("kind".into(), "APIResourceList".into());
    // Upstream leaves it out for the core group.
    if !group.is_empty() {
        answer.insert("apiVersion".into(), "v1".into());
    }
    answer.insert("groupVersion".into(), api_version(group, version).into());
    answer.insert("resources".into(), list.into());
    Some(answer.into())
}

/// What `GET /api` (`core`) or `GET /apis` answers to clients that ask for all at once: KEP-3352.
pub fn discovery_aggregated(catalog: &Catalog, core: bool) -> Value {
    let items = catalog.groups().into_iter().filter(|group| group.is_empty() == core).map(|group| {
        let metadata = if core { json!({}) } else { json!({ "name": group }) };
        let versions = catalog.versions(group).into_iter().map(|version| {
            let resources = catalog.resources().filter(|r| r.group == group && r.version == version);
            let resources: Vec<Value> = resources.map(aggregated_entry).collect();
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        });
        json!({ "metadata": metadata, "versions": versions.collect::<Value>() })
    });
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items.collect::<Value>(),
    })
}

fn group_entry(catalog: &Catalog, group: &str) -> Value {
    let versions: Vec<Value> = catalog
        .versions(group)
        .into_iter()
        .map(|version| json!({ "groupVersion": api_version(group, version), "version": version }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions[0] })
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": resource.verbs,
    });
    add_names(&mut entry, resource);
    if !resource.storage_version_hash.is_empty() {
        entry["storageVersionHash"] = resource.storage_version_hash.into();
    }
    entry
}

fn subresource_entry(resource: &Resource, sub: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, sub.name), "singularName": "",
        "namespaced": resource.namespaced,
    });
    if !sub.version.is_empty() {
        entry["group"] = sub.group.into();
        entry["version"] = sub.version.into();
    }
    entry["kind"] = sub.kind.into();
    entry["verbs"] = json!(sub.verbs);
    entry
}

fn aggregated_entry(resource: &Resource) -> Value {
    let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
    // As upstream: of what is built in, a kind of the same group and version has neither.
    let (group, version) = match resource.custom() {
        Some(_) => (resource.group, resource.version),
        None => ("", ""),
    };
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": { "group": group, "version": version, "kind": resource.kind },
        "scope": scope, "singularResource": resource.singular, "verbs": resource.verbs,
    });
    add_names(&mut entry, resource);
    let subresources = resource.subresources.iter().map(|sub| {
        let (group, version) =
            if sub.version.is_empty() { (group, version) } else { (sub.group, sub.version) };
        let kind = json!({ "group": group, "version": version, "kind": sub.kind });
        json!({ "subresource": sub.name, "responseKind": kind, "verbs": sub.verbs })
    });
    if !resource.subresources.is_empty() {
        entry["subresources"] = subresources.collect();
    }
    entry
}

fn add_names(entry: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
}
