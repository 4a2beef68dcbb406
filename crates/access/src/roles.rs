//! Roles and their bindings, kept as they are in a state of the store.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use store::{Event, KeyRange, KeyValue, Revision, State};

use crate::{Rule, UserInfo, Wanted};

/// The group of roles and bindings.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
const PREFIX: &str = "/registry/rbac.authorization.k8s.io/";

/// All roles and bindings as of a revision.
///
/// `by_subject` names exactly the bindings in `bindings`, each under every subject in it.
#[derive(Debug, Default)]
pub(crate) struct Roles {
    revision: Revision,
    rules: HashMap<String, Arc<[Rule]>>,
    bindings: HashMap<String, Arc<Binding>>,
    /// Keys of bindings, by namespace (empty for the cluster's) and subject.
    by_subject: HashMap<(String, Subject), BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// Binds subjects to a role.
#[derive(Debug)]
pub(crate) struct Binding {
    namespace: String,
    name: String,
    role: String,
    role_kind: String,
    role_name: String,
    subjects: Vec<(Subject, String)>,
}

/// Why something is allowed: a binding, and whom in it is meant.
#[derive(Debug)]
pub struct Grant {
    binding: Arc<Binding>,
    subject: String,
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Binding { namespace, name, role_kind, role_name, .. } = &*self.binding;
        let (kind, full) = match namespace.as_str() {
            "" => ("ClusterRoleBinding", name.clone()),
            namespace => ("RoleBinding", format!("{name}/{namespace}")),
        };
        write!(f, "RBAC: allowed by {kind} {full:?} of {role_kind} {role_name:?} to {}", self.subject)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredRole {
    #[serde(default)]
    rules: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredBinding {
    #[serde(default)]
    subjects: Option<Vec<StoredSubject>>,
    role_ref: StoredSubject,
}

#[derive(Deserialize)]
struct StoredSubject {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

impl Roles {
    /// The revision that these are of.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Follows the store to `state`: by its history, or by reading all anew where that doesn't reach back.
    pub(crate) fn follow(&mut self, state: &State) {
        if state.revision() <= self.revision {
            return;
        }
        let from = self.revision.next();
        if self.revision > Revision::ZERO && state.check_history(from).is_ok() {
            for event in state.events(from) {
                match event {
                    Event::Put { current, .. } => self.put(current),
                    Event::Delete { previous, .. } => self.remove(&previous.key),
                }
            }
        } else {
            *self = Roles::default();
            for kv in state.range(&KeyRange::prefix(PREFIX)) {
                self.put(kv);
            }
        }
        self.revision = state.revision();
    }

    fn remove(&mut self, key: &[u8]) {
        let Some(key) = std::str::from_utf8(key).ok().filter(|key| key.starts_with(PREFIX)) else { return };
        self.rules.remove(key);
        let Some(binding) = self.bindings.remove(key) else { return };
        for (subject, _) in &binding.subjects {
            let entry = (binding.namespace.clone(), subject.clone());
            if let Some(keys) = self.by_subject.get_mut(&entry) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_subject.remove(&entry);
                }
            }
        }
    }

    fn put(&mut self, kv: &KeyValue) {
        if !kv.key.starts_with(PREFIX.as_bytes()) {
            return;
        }
        self.remove(&kv.key);
        let (Some(place), Ok(key)) = (objects::parse(&kv.key), std::str::from_utf8(&kv.key)) else { return };
        // What can't be read grants nothing.
        match place.resource {
            "roles" | "clusterroles" => {
                if let Ok(role) = serde_json::from_slice::<StoredRole>(&kv.value.bytes()) {
                    self.rules.insert(key.to_owned(), role.rules.unwrap_or_default().into());
                }
            }
            "rolebindings" | "clusterrolebindings" => {
                if let Ok(stored) = serde_json::from_slice::<StoredBinding>(&kv.value.bytes()) {
                    self.bind(key, place.namespace, place.name, stored);
                }
            }
            _ => {}
        }
    }

    fn bind(&mut self, key: &str, namespace: &str, name: &str, stored: StoredBinding) {
        let StoredSubject { kind: role_kind, name: role_name, .. } = stored.role_ref;
        let subjects = stored.subjects.unwrap_or_default().into_iter().filter_map(|subject| {
            let StoredSubject { kind, name, namespace: of } = subject;
            let meant = format!("{kind} {name:?}");
            match kind.as_str() {
                "User" => Some((Subject::User(name), meant)),
                "Group" => Some((Subject::Group(name), meant)),
                "ServiceAccount" => {
                    let of = if of.is_empty() { namespace.to_owned() } else { of };
                    let meant = format!("{kind} {:?}", format!("{name}/{of}"));
                    Some((Subject::User(format!("system:serviceaccount:{of}:{name}")), meant))
                }
                _ => None,
            }
        });
        let subjects: Vec<_> = subjects.collect();
        for (subject, _) in &subjects {
            let keys = self.by_subject.entry((namespace.to_owned(), subject.clone())).or_default();
            keys.insert(key.to_owned());
        }
        let binding = Binding {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            role: role_key(&role_kind, namespace, &role_name),
            role_kind,
            role_name,
            subjects,
        };
        self.bindings.insert(key.to_owned(), Arc::new(binding));
    }

    /// The rules of a role.
    pub(crate) fn rules_of(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        self.rules.get(&role_key(kind, namespace, name))
    }

    /// What allows it, if anything does.
    pub(crate) fn grant(&self, who: &UserInfo, wanted: &Wanted<'_>) -> Option<Grant> {
        let namespace = wanted.namespace();
        self.bound(who, namespace).find_map(|(binding, subject)| {
            let rules = self.rules.get(&binding.role)?;
            let allowed = rules.iter().any(|rule| rule.allows(wanted));
            allowed.then(|| {
                let (_, meant) = &binding.subjects[subject];
                Grant { binding: binding.clone(), subject: meant.clone() }
            })
        })
    }

    /// All rules that somebody has in a namespace, those of the whole cluster among them.
    pub(crate) fn rules_in(&self, who: &UserInfo, namespace: &str) -> Vec<Rule> {
        let bound = self.bound(who, namespace);
        let rules = bound.filter_map(|(binding, _)| self.rules.get(&binding.role));
        rules.flat_map(|rules| rules.iter().cloned()).collect()
    }

    /// The bindings of a user and the user's groups, with the number of the subject in them: the cluster's
    /// and then the namespace's.
    fn bound<'a>(
        &'a self,
        who: &'a UserInfo,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<Binding>, usize)> + 'a {
        let user = std::iter::once(Subject::User(who.user.clone()));
        let subjects: Vec<Subject> = user.chain(who.groups.iter().cloned().map(Subject::Group)).collect();
        let spaces = std::iter::once("").chain((!namespace.is_empty()).then_some(namespace));
        spaces
            .flat_map(move |space| {
                subjects.clone().into_iter().map(move |subject| (space.to_owned(), subject))
            })
            .flat_map(move |entry| {
                let keys = self.by_subject.get(&entry).into_iter().flatten();
                keys.filter_map(move |key| {
                    let binding = self.bindings.get(key)?;
                    let number = binding.subjects.iter().position(|(subject, _)| *subject == entry.1)?;
                    Some((binding, number))
                })
            })
    }
}

fn role_key(kind: &str, namespace: &str, name: &str) -> String {
    match kind {
        "Role" => objects::key(GROUP, "roles", namespace, name),
        _ => objects::key(GROUP, "clusterroles", "", name),
    }
}
