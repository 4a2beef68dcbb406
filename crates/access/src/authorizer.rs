//! What a user may do: administrators everything, hosts' agents what the Node authorizer says, and everybody
//! what roles and their bindings grant (RBAC).

use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard};

use machinery::Status;
use store::State;

use crate::node::{self, Opinion};
use crate::roles::Roles;
use crate::uses::Uses;
use crate::{Attributes, Grant, MASTERS, Rule, UserInfo, Wanted};

/// Why something is allowed.
#[derive(Debug)]
pub enum Reason {
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
#[derive(Debug)]
pub struct Authorizer {
    /// What hosts' agents may, beside what their pods need.
    node_rules: Vec<Rule>,
    roles: RwLock<Roles>,
    uses: RwLock<Uses>,
}

impl Authorizer {
    /// One that allows hosts' agents what these rules allow, also before the role `system:node` is in the store.
    pub fn new(node_rules: Vec<Rule>) -> Self {
        Authorizer { node_rules, roles: RwLock::default(), uses: RwLock::default() }
    }

    /// Why `who` may do it; nothing if `who` may not.
    pub fn allows(&self, state: &State, who: &UserInfo, wanted: &Wanted<'_>) -> Option<Reason> {
        if who.is_in(MASTERS) {
            return Some(Reason::Masters);
        }
        // A request that doesn't name a host gets nothing by it.
        let host = who.node().filter(|host| !host.is_empty());
        let of_role = || self.node_rules.iter().any(|rule| rule.allows(wanted));
        if let (Some(host), Wanted::Object(attributes)) = (host, wanted) {
            let is_used =
                |kind, namespace: &str, name: &str| self.uses(state).holds(host, kind, namespace, name);
            match node::decide(host, attributes, state, &is_used) {
                Opinion::Yes => return Some(Reason::Node),
                Opinion::AsRole if of_role() => return Some(Reason::Node),
                Opinion::AsRole | Opinion::No => {}
            }
        } else if host.is_some() && of_role() {
            return Some(Reason::Node);
        }
        self.roles(state).grant(who, wanted).map(Reason::Role)
    }

    /// Whether `who` may do it.
    ///
    /// # Errors
    /// 403 unless `who` may.
    pub fn check(&self, state: &State, who: &UserInfo, wanted: &Wanted<'_>) -> Result<(), Status> {
        self.judge(state, who, wanted).map(|_| ())
    }

    /// Why `who` may do it.
    ///
    /// # Errors
    /// 403 unless `who` may.
    pub fn judge(&self, state: &State, who: &UserInfo, wanted: &Wanted<'_>) -> Result<Reason, Status> {
        self.allows(state, who, wanted).ok_or_else(|| refused(who, wanted))
    }

    /// All rules that somebody has in a namespace.
    pub fn rules(&self, state: &State, who: &UserInfo, namespace: &str) -> Vec<Rule> {
        let mut rules = self.roles(state).rules_in(who, namespace);
        if who.is_in(MASTERS) {
            rules.extend(everything().iter().cloned());
        }
        if who.node().is_some() {
            rules.extend(self.node_rules.iter().cloned());
        }
        rules
    }

    /// The rules of a role.
    pub(crate) fn role(&self, state: &State, kind: &str, namespace: &str, name: &str) -> Option<Vec<Rule>> {
        Some(self.roles(state).rules_of(kind, namespace, name)?.to_vec())
    }

    /// What pods use, at least as new as `state`.
    fn uses(&self, state: &State) -> RwLockReadGuard<'_, Uses> {
        let known = self.uses.read().unwrap_or_else(PoisonError::into_inner);
        if known.revision() >= state.revision() {
            return known;
        }
        // The lock can't be made one for writing: with this one still held, the next line would wait for itself.
        drop(known);
        self.uses.write().unwrap_or_else(PoisonError::into_inner).follow(state);
        self.uses.read().unwrap_or_else(PoisonError::into_inner)
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

pub(crate) fn everything() -> &'static [Rule] {
    static RULES: OnceLock<[Rule; 2]> = OnceLock::new();
    RULES.get_or_init(|| {
        let all = || vec!["*".to_owned()];
        [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), urls: all(), ..Rule::default() },
        ]
    })
}

fn refused(who: &UserInfo, wanted: &Wanted<'_>) -> Status {
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
