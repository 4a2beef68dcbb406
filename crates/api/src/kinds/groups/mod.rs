//! What is served, one table a group.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
mod core;
mod discovery;
mod events;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
mod storage;

use machinery::Resource;

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const PARTLY: &[&str] = &["get", "patch", "update"];
/// The verbs of a proxy, for the methods that it carries.
const CARRIED: &[&str] = &["create", "delete", "get", "patch", "update"];
/// The verbs of what goes both ways, for the methods that begin it.
const STREAMED: &[&str] = &["create", "get"];

/// Groups in the order in which discovery lists them; within a group the preferred version first, within a version
/// resources by name.
static GROUPS: [&[Resource]; 21] = [
    core::RESOURCES,
    apiregistration::RESOURCES,
    apps::RESOURCES,
    events::RESOURCES,
    authentication::RESOURCES,
    authorization::RESOURCES,
    autoscaling::RESOURCES,
    batch::RESOURCES,
    certificates::RESOURCES,
    networking::RESOURCES,
    policy::RESOURCES,
    rbac::RESOURCES,
    storage::RESOURCES,
    admissionregistration::RESOURCES,
    apiextensions::RESOURCES,
    scheduling::RESOURCES,
    coordination::RESOURCES,
    node::RESOURCES,
    discovery::RESOURCES,
    resource::RESOURCES,
    flowcontrol::RESOURCES,
];

/// Everything that the API serves; resources of one group and version stand together, by name.
pub fn resources() -> impl Iterator<Item = &'static Resource> + Clone {
    GROUPS.iter().copied().flatten()
}

/// The resource of a path.
pub fn resource(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    of_group(group)?.iter().find(|r| r.version == version && r.plural == plural)
}

/// The resource of an object's `apiVersion` and `kind`.
pub fn resource_of_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    of_group(group)?.iter().find(|r| r.version == version && r.kind == kind)
}

fn of_group(group: &str) -> Option<&'static [Resource]> {
    GROUPS.iter().copied().find(|resources| resources.first().is_some_and(|r| r.group == group))
}
