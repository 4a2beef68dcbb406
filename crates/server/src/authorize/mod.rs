//! What a user may do: administrators everything, hosts' agents what the Node authorizer says, and everybody
//! what roles and their bindings grant (RBAC).

mod node;
mod privilege;
mod review;
mod roles;
mod rule;

use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

use api::Status;
use store::State;

use crate::bootstrap::node_rules;
use crate::http::Identity;
use crate::http::identity::MASTERS;
use node::Verdict;
use roles::{Grant, Roles};

pub(crate) use privilege::Decided;
pub(crate) use review::review;
pub(crate) use rule::Rule;

/// The group of roles and bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";

/// What somebody wants to do with objects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// The field selector of a list or a watch.
    pub(crate) fields: &'a str,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted<'a> {
    Object(Attributes<'a>),
    /// Something with a path that is no resource's.
    Path {
        verb: &'a str,
        path: &'a str,
    },
}

impl Wanted<'_> {
    fn namespace(&self) -> &str {
        match self {
            Wanted::Object(attributes) => attributes.namespace,
            Wanted::Path { .. } => "",
        }
    }
}

/// Why something is allowed.
#[derive(Debug)]
pub(crate) enum Reason {
    /// To administrators, always.
    Masters,
    /// To the agent of a host.
    Node,
    /// By a binding.
    Role(Grant),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Upstream gives no reasons for these two either.
            Reason::Masters | Reason::Node => Ok(()),
            Reason::Role(grant) => grant.fmt(f),
        }
    }
}

/// Decides, from the roles and bindings in the store.
#[derive(Debug, Default)]
pub(crate) struct Authorizer {
    roles: RwLock<Roles>,
}

impl Authorizer {
    /// Why `who` may do it; nothing if `who` may not.
    pub(crate) fn allows(&self, state: &State, who: &Identity, wanted: &Wanted<'_>) -> Option<Reason> {
        if who.is_in(MASTERS) {
            return Some(Reason::Masters);
        }
        // Who doesn't say of which host gets nothing by it.
        let host = who.node().filter(|host| !host.is_empty());
        if let (Some(host), Wanted::Object(attributes)) = (host, wanted) {
            let of_role = || node_rules().iter().any(|rule| rule.allows(wanted));
            match node::decide(host, attributes, state) {
                Verdict::Yes => return Some(Reason::Node),
                Verdict::AsRole if of_role() => return Some(Reason::Node),
                Verdict::AsRole | Verdict::No => {}
            }
        }
        self.roles(state).grant(who, wanted).map(Reason::Role)
    }

    /// 403 unless `who` may do it.
    pub(crate) fn check(&self, state: &State, who: &Identity, wanted: &Wanted<'_>) -> Result<(), Status> {
        match self.allows(state, who, wanted) {
            Some(_) => Ok(()),
            None => Err(refused(who, wanted)),
        }
    }

    /// All rules that somebody has in a namespace.
    pub(crate) fn rules(&self, state: &State, who: &Identity, namespace: &str) -> Vec<Rule> {
        let mut rules = self.roles(state).rules_in(who, namespace);
        if who.is_in(MASTERS) {
            rules.extend(everything().iter().cloned());
        }
        if who.node().is_some() {
            rules.extend(node_rules().iter().cloned());
        }
        rules
    }

    /// The rules of a role.
    pub(crate) fn role(&self, state: &State, kind: &str, namespace: &str, name: &str) -> Option<Vec<Rule>> {
        Some(self.roles(state).rules_of(kind, namespace, name)?.to_vec())
    }

    /// The roles, at least as new as `state`.
    fn roles(&self, state: &State) -> RwLockReadGuard<'_, Roles> {
        let known = self.roles.read().unwrap_or_else(PoisonError::into_inner);
        if known.revision() >= state.revision() {
            return known;
        }
        drop(known);
        self.roles.write().unwrap_or_else(PoisonError::into_inner).follow(state);
        self.roles.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn everything() -> &'static [Rule] {
    static RULES: OnceLock<[Rule; 2]> = OnceLock::new();
    RULES.get_or_init(|| {
        let all = || vec!["*".to_owned()];
        [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), urls: all(), ..Rule::default() },
        ]
    })
}

fn refused(who: &Identity, wanted: &Wanted<'_>) -> Status {
    let Attributes { verb, group, resource, subresource, namespace, name, .. } = match *wanted {
        Wanted::Object(attributes) => attributes,
        Wanted::Path { verb, path } => {
            let why = format!("forbidden: User {:?} cannot {verb} path {path:?}", who.user);
            return Status::new(403, "Forbidden", why).about("", "", "");
        }
    };
    let full = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
    let scope = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let why = format!("User {:?} cannot {verb} resource {full:?} in API group {group:?} {scope}", who.user);
    Status::forbidden(group, resource, name, &why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(user: &str, group: &str) -> Identity {
        Identity::new(user, [group])
    }

    #[test]
    fn without_roles_administrators_may_do_everything_and_hosts_what_agents_need() {
        let admin = user("kubernetes-admin", "system:masters");
        let node = user("system:node:n1", "system:nodes");
        let other = user("somebody", "people");
        let (authorizer, state) = (Authorizer::default(), State::default());
        for (verb, resource, subresource, nodes_may) in [
            ("get", "secrets", "", false),
            ("watch", "services", "", true),
            ("patch", "pods", "status", true),
            ("delete", "pods", "", true),
            ("create", "pods", "binding", false),
            ("get", "pods", "log", false),
            ("get", "services", "proxy", false),
            ("update", "nodes", "status", true),
            ("delete", "nodes", "", false),
            ("create", "events", "", true),
            ("deletecollection", "pods", "", false),
        ] {
            let wanted = Wanted::Object(Attributes {
                verb,
                group: "",
                resource,
                subresource,
                namespace: "",
                name: "n1",
                fields: "",
            });
            assert!(authorizer.allows(&state, &admin, &wanted).is_some(), "{wanted:?}");
            assert_eq!(authorizer.allows(&state, &node, &wanted).is_some(), nodes_may, "{wanted:?}");
            assert!(authorizer.allows(&state, &other, &wanted).is_none(), "{wanted:?}");
        }
    }
}
