//! What a user may do, in this first form without roles: administrators everything, hosts read everything
//! and write what an agent has to tell.

use api::Status;

use crate::http::Identity;
use crate::http::identity::{MASTERS, NODES};

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// Whether `who` may do it.
pub(crate) fn may(who: &Identity, attributes: &Attributes<'_>) -> bool {
    if who.is_in(MASTERS) {
        return true;
    }
    let Attributes { verb, group, resource, subresource, .. } = *attributes;
    if (group, resource) == ("authorization.k8s.io", "selfsubjectaccessreviews") {
        return verb == "create";
    }
    if !who.is_in(NODES) {
        return false;
    }
    match verb {
        "get" | "list" | "watch" => matches!(subresource, "" | "status" | "scale"),
        "create" | "update" | "patch" => matches!(
            (group, resource, subresource),
            ("", "nodes", "" | "status")
                | ("", "pods", "status" | "eviction")
                | ("" | "events.k8s.io", "events", "")
                | ("coordination.k8s.io", "leases", "")
        ),
        "delete" => {
            matches!((group, resource, subresource), ("", "pods", "") | ("coordination.k8s.io", "leases", ""))
        }
        _ => false,
    }
}

/// 403 unless `who` may do it.
pub(crate) fn check(who: &Identity, attributes: &Attributes<'_>) -> Result<(), Status> {
    if may(who, attributes) {
        return Ok(());
    }
    let Attributes { verb, group, resource, subresource, namespace, name } = *attributes;
    let full = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
    let scope = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let why = format!("User {:?} cannot {verb} resource {full:?} in API group {group:?} {scope}", who.user);
    Err(Status::forbidden(group, resource, name, &why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(user: &str, group: &str) -> Identity {
        Identity { user: user.into(), groups: vec![group.into()] }
    }

    #[test]
    fn only_administrators_may_do_everything() {
        let admin = user("kubernetes-admin", "system:masters");
        let node = user("system:node:n1", "system:nodes");
        let other = user("somebody", "people");
        for (verb, resource, subresource, nodes_may) in [
            ("get", "secrets", "", true),
            ("watch", "pods", "", true),
            ("patch", "pods", "status", true),
            ("delete", "pods", "", true),
            ("create", "pods", "", false),
            ("create", "pods", "binding", false),
            ("get", "pods", "log", false),
            ("get", "services", "proxy", false),
            ("update", "nodes", "status", true),
            ("delete", "nodes", "", false),
            ("create", "events", "", true),
            ("deletecollection", "pods", "", false),
        ] {
            let wanted = Attributes { verb, group: "", resource, subresource, namespace: "", name: "" };
            assert!(may(&admin, &wanted), "{wanted:?}");
            assert_eq!(may(&node, &wanted), nodes_may, "{wanted:?}");
            assert!(!may(&other, &wanted), "{wanted:?}");
        }
    }
}
