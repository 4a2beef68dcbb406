//! Policies and webhooks as they are configured, compiled once for each version of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::policy::{Condition, Policy, compile_conditions};
use bytes::Bytes;
use machinery::{Faults, Object};
use objects::load;
use serde_json::Value;
use store::{KeyRange, Revision, State};

const GROUP: &str = "admissionregistration.k8s.io";

/// A policy of either kind.
pub(super) struct PolicyEntry {
    pub(super) name: String,
    pub(super) spec: Value,
    pub(super) compiled: Policy,
}

/// A binding of a policy.
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) spec: Value,
}

/// A webhook of a configuration.
pub(super) struct Hook {
    pub(super) name: String,
    pub(super) value: Value,
    pub(super) conditions: Vec<Condition>,
}

/// What is configured.
#[derive(Default)]
pub(super) struct Configured {
    validating: Kept<PolicyEntry>,
    mutating: Kept<PolicyEntry>,
    validating_bindings: Kept<Binding>,
    mutating_bindings: Kept<Binding>,
    validating_hooks: Kept<Vec<Hook>>,
    mutating_hooks: Kept<Vec<Hook>>,
}

/// A policy with the bindings that put it to use.
pub(super) type Bound = (Arc<PolicyEntry>, Vec<Arc<Binding>>);

impl Configured {
    /// Whether anything is configured that changes objects.
    pub(super) fn has_mutating(state: &State) -> bool {
        let mut kinds = ["mutatingadmissionpolicies", "mutatingwebhookconfigurations"].into_iter();
        kinds.any(|plural| {
            state.range(&KeyRange::prefix(objects::kind_prefix(GROUP, plural))).next().is_some()
        })
    }

    pub(super) fn validating_policies(&self, state: &State) -> Vec<Bound> {
        let policies = self.validating.list(state, "validatingadmissionpolicies", policy);
        bound(policies, || self.validating_bindings.list(state, "validatingadmissionpolicybindings", binding))
    }

    pub(super) fn mutating_policies(&self, state: &State) -> Vec<Bound> {
        let policies = self.mutating.list(state, "mutatingadmissionpolicies", policy);
        bound(policies, || self.mutating_bindings.list(state, "mutatingadmissionpolicybindings", binding))
    }

    pub(super) fn validating_hooks(&self, state: &State) -> Vec<Arc<Vec<Hook>>> {
        self.validating_hooks.list(state, "validatingwebhookconfigurations", hooks)
    }

    pub(super) fn mutating_hooks(&self, state: &State) -> Vec<Arc<Vec<Hook>>> {
        self.mutating_hooks.list(state, "mutatingwebhookconfigurations", hooks)
    }
}

fn policy(object: Object) -> PolicyEntry {
    // What can't be compiled was refused when it was written.
    let compiled = Policy::compile(&object, &mut Faults::default());
    PolicyEntry { name: object.name().to_owned(), spec: spec(object), compiled }
}

fn binding(object: Object) -> Binding {
    Binding { name: object.name().to_owned(), spec: spec(object) }
}

fn spec(mut object: Object) -> Value {
    object.0.remove("spec").unwrap_or_default()
}

fn hooks(mut object: Object) -> Vec<Hook> {
    let hooks = object.0.remove("webhooks").unwrap_or_default();
    let Value::Array(hooks) = hooks else { return Vec::new() };
    let hook = |value: Value| {
        let conditions = compile_conditions(&value["matchConditions"], false, "", &mut Faults::default());
        Hook { name: value["name"].as_str().unwrap_or_default().to_owned(), value, conditions }
    };
    hooks.into_iter().map(hook).collect()
}

fn bound(policies: Vec<Arc<PolicyEntry>>, bindings: impl Fn() -> Vec<Arc<Binding>>) -> Vec<Bound> {
    if policies.is_empty() {
        return Vec::new();
    }
    let bindings = bindings();
    let of = |policy: Arc<PolicyEntry>| {
        let own = bindings.iter().filter(|binding| binding.spec["policyName"] == policy.name.as_str());
        let own = own.cloned().collect();
        (policy, own)
    };
    policies.into_iter().map(of).filter(|(_, bindings): &Bound| !bindings.is_empty()).collect()
}

/// Objects of one kind in the form in which they are used, by their keys.
struct Kept<T> {
    entries: Mutex<HashMap<Bytes, (Revision, Arc<T>)>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept { entries: Mutex::default() }
    }
}

impl<T> Kept<T> {
    /// All of the kind, in the order of their names.
    fn list(&self, state: &State, plural: &str, make: fn(Object) -> T) -> Vec<Arc<T>> {
        let prefix = objects::kind_prefix(GROUP, plural);
        let mut stored = state.range(&KeyRange::prefix(prefix)).peekable();
        if stored.peek().is_none() {
            return Vec::new();
        }
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        for kv in stored {
            let known = entries.get(&kv.key).filter(|(revision, _)| *revision == kv.mod_revision);
            let entry = match known {
                Some((_, entry)) => entry.clone(),
                None => {
                    let Ok(object) = load(kv) else { continue };
                    let entry = Arc::new(make(object));
                    entries.insert(kv.key.clone(), (kv.mod_revision, entry.clone()));
                    entry
                }
            };
            found.push(entry);
        }
        // What is gone is forgotten, at times.
        if entries.len() > 2 * found.len() + 16 {
            entries.retain(|key, _| state.get(key).is_some());
        }
        found
    }
}
