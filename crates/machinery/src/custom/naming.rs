//! Which names a definition gets, and what its status says of it.
//!
//! Follows upstream's naming, establishing and approval controllers (`pkg/controller` of apiextensions-apiserver).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Approval, Definition};

/// What waits for a definition's objects to be deleted before it.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

impl Definition {
    /// The finalizer that keeps a definition until its objects are gone.
    pub const CLEANUP: &str = CLEANUP;

    /// The status that it should have besides other definitions (it may be among them), at `now` in RFC 3339; nothing
    /// if it has it: `conditions` and `acceptedNames`.
    pub fn wanted_status<'a>(
        &self,
        all: impl IntoIterator<Item = &'a Arc<Definition>>,
        now: &str,
    ) -> Option<Value> {
        if self.is_terminating() {
            return None;
        }
        let others =
            all.into_iter().filter(|other| other.group() == self.group() && other.name() != self.name());
        let others: Vec<&Value> = others.map(|other| &other.accepted).collect();
        let (accepted, fault) = self.accept(&others);
        let mut conditions = self.conditions.clone();
        let established = conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True");
        match &fault {
            None => set(&mut conditions, now, "NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            Some((reason, message)) => set(&mut conditions, now, "NamesAccepted", "False", reason, message),
        }
        match &fault {
            None if !established => {
                let message = "the initial names have been accepted";
                set(&mut conditions, now, "Established", "True", "InitialNamesAccepted", message);
            }
            Some(_) if !established => {
                let message = "not all names are accepted";
                set(&mut conditions, now, "Established", "False", "NotAccepted", message);
            }
            _ => {}
        }
        if let Some((status, reason, message)) = self.approved() {
            set(&mut conditions, now, "KubernetesAPIApprovalPolicyConformant", status, reason, &message);
        }
        let same = conditions == self.conditions && accepted == self.accepted;
        (!same).then(|| json!({ "conditions": conditions, "acceptedNames": accepted }))
    }

    /// The conditions of a definition whose objects are being deleted; nothing if they say so already.
    pub fn deleting_conditions(&self, now: &str) -> Option<Value> {
        let mut conditions = self.conditions.clone();
        let message = "CustomResource deletion is in progress";
        set(&mut conditions, now, "Terminating", "True", "InstanceDeletionInProgress", message);
        (conditions != self.conditions).then(|| conditions.into())
    }

    /// The names that it has from now on, and why it doesn't get others.
    fn accept(&self, others: &[&Value]) -> (Value, Option<(&'static str, String)>) {
        let mut accepted = self.accepted.as_object().cloned().unwrap_or_default();
        let mut fault = None;
        // The last of several conflicts is reported, as upstream has it.
        let in_use = |fields: &[&str], name: &Value| others.iter().any(|other| uses(other, fields, name));
        for (field, reason) in [
            ("plural", "PluralConflict"),
            ("singular", "SingularConflict"),
            ("shortNames", "ShortNamesConflict"),
            ("kind", "KindConflict"),
            ("listKind", "ListKindConflict"),
        ] {
            let wanted = &self.requested[field];
            let scope: &[&str] = match field {
                "kind" | "listKind" => &["kind", "listKind"],
                _ => &["plural", "singular", "shortNames"],
            };
            let names: Vec<&Value> = match wanted {
                Value::Array(list) => list.iter().collect(),
                one => vec![one],
            };
            let known: BTreeSet<&str> = texts(&self.accepted[field]).collect();
            let taken = names
                .into_iter()
                .filter_map(Value::as_str)
                .find(|name| !name.is_empty() && !known.contains(name) && in_use(scope, &Value::from(*name)));
            match taken {
                Some(name) => fault = Some((reason, format!("{name:?} is already in use"))),
                None => put(&mut accepted, field, wanted),
            }
        }
        put(&mut accepted, "categories", &self.requested["categories"]);
        (accepted.into(), fault)
    }

    /// Whether the Kubernetes project agrees with a kind in one of its groups.
    fn approved(&self) -> Option<(&'static str, &'static str, String)> {
        let said = self.approval.as_deref();
        let approval = Approval::of(self.group(), said)?;
        let (status, reason) = match approval {
            Approval::Missing => ("False", "MissingAnnotation"),
            Approval::Approved => ("True", "ApprovedAnnotation"),
            Approval::Withheld => ("False", "UnapprovedAnnotation"),
            Approval::Unclear => ("False", "InvalidAnnotation"),
        };
        Some((status, reason, approval.message(said.unwrap_or_default())))
    }
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().chain(Some(value)).filter_map(Value::as_str)
}

fn uses(names: &Value, fields: &[&str], name: &Value) -> bool {
    let name = name.as_str().unwrap_or_default();
    fields.iter().any(|field| texts(&names[*field]).any(|used| used == name))
}

fn put(names: &mut Map<String, Value>, field: &str, value: &Value) {
    let empty = match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    if empty {
        names.remove(field);
    } else {
        names.insert(field.to_owned(), value.clone());
    }
}

/// Sets a condition; its time is that of the last change of its status.
fn set(conditions: &mut Vec<Value>, now: &str, kind: &str, status: &str, reason: &str, message: &str) {
    let new = json!({
        "type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    });
    let Some(old) = conditions.iter_mut().find(|condition| condition["type"] == kind) else {
        conditions.push(new);
        return;
    };
    let time = if old["status"] == status { old["lastTransitionTime"].clone() } else { now.into() };
    let observed = old.get("observedGeneration").cloned();
    *old = new;
    old["lastTransitionTime"] = time;
    if let Some(observed) = observed {
        old["observedGeneration"] = observed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(plural: &str, kind: &str, short: &[&str], status: Value) -> Arc<Definition> {
        let text = json!({
            "metadata": {"name": format!("{plural}.example.com"), "uid": "u", "generation": 1},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "versions": [],
                "names": {"plural": plural, "kind": kind, "listKind": format!("{kind}List"), "shortNames": short},
            },
            "status": status,
        });
        Arc::new(Definition::parse(text.to_string().into(), 1, None).unwrap())
    }

    fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()
    }

    #[test]
    fn the_first_gets_a_name_and_the_second_is_told() {
        let first = definition("widgets", "Widget", &["w"], json!({"conditions": null}));
        let status = first.wanted_status([&first], "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(status["acceptedNames"]["shortNames"], json!(["w"]));
        assert_eq!(condition(&status, "Established")["reason"], "InitialNamesAccepted");
        let first = definition("widgets", "Widget", &["w"], status);
        assert_eq!(first.wanted_status([&first], "2026-01-02T00:00:00Z"), None, "it is as it should be");

        let second = definition("wheels", "Wheel", &["w"], json!({}));
        let status = second.wanted_status([&first, &second], "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(condition(&status, "NamesAccepted")["reason"], "ShortNamesConflict");
        assert_eq!(condition(&status, "Established")["reason"], "NotAccepted");
        assert_eq!(status["acceptedNames"].get("shortNames"), None);
        assert_eq!(status["acceptedNames"]["plural"], "wheels");
        let third = definition("gizmos", "Widget", &[], json!({}));
        let status = third.wanted_status([&first, &third], "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(condition(&status, "NamesAccepted")["reason"], "KindConflict".replace("Kind", "ListKind"));

        let second = definition("wheels", "Wheel", &["w"], json!({}));
        let status = second.wanted_status([&second], "2026-01-03T00:00:00Z").unwrap();
        assert_eq!(condition(&status, "Established")["status"], "True", "once the other is gone");
    }
}
