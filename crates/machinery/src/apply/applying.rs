//! Server-side apply.

use serde_json::Value;

use super::atomics::atomics;
use super::check::faults;
use super::compare::fields_of;
use super::conflict::{Conflict, apply_conflict};
use super::entry::{Entry, Operation, encode, own_entries};
use super::field_manager::{FieldManager, bare, stripped};
use super::field_set::FieldSet;
use super::last_applied::{allowed, renew};
use super::merge::merge;
use super::types::Typing;
use super::versions::{Differences, Unconverted};
use crate::decode::conform;
use crate::object::Object;
use crate::resource::Resource;
use crate::status::Status;

/// The manager that owns the fields of an object that nobody recorded before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager whose client-side applies become server-side ones.
const KUBECTL: &str = "kubectl";

/// What is applied.
#[derive(Debug, Clone, Copy)]
pub struct Patch<'a> {
    /// The fields that the applier wants, as it sent them.
    pub object: &'a Object,
    /// Whether to take fields from other managers where their values differ.
    pub force: bool,
}

/// `live` with `configuration` merged in as an apply does it, without a record of the writer; it has no defaults yet.
///
/// # Errors
/// If it would replace something as a whole, or what comes out is no object of the kind.
pub fn merge_configuration(
    resource: &Resource,
    live: &Object,
    configuration: &Value,
) -> Result<Object, Status> {
    let root = Typing::Resource(resource).root();
    // As upstream: a writer that means to change a part of what is replaced as a whole would lose the rest.
    let replaced = atomics(root, configuration);
    if !replaced.is_empty() {
        return Err(Status::bad_request(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            replaced.join(", ")
        )));
    }
    let merged = merge(root, &Value::Object(live.0.clone()), configuration);
    let wrong = || Status::bad_request("an apply configuration must be an object that fits its kind");
    let mut merged = Object::from_value(merged).ok_or_else(wrong)?;
    conform(resource, &mut merged).map_err(|_| wrong())?;
    Ok(merged)
}

impl<'m> FieldManager<'m> {
    /// `live` (none: there is no such object) with `patch` applied, and its managed fields. It has no defaults yet,
    /// and `null` where a list or a map lost all it had.
    ///
    /// # Errors
    /// If the patch makes no sense, or other managers own fields that it would change.
    pub fn apply(&self, live: Option<&Object>, patch: &Patch<'_>) -> Result<Object, Status> {
        self.check_patch(patch.object)?;
        let Some(live) = live else { return Ok(self.create(patch.object)) };
        let mut entries = own_entries(live.meta("managedFields").cloned());
        if entries.is_empty() {
            let before = FieldManager { name: BEFORE_FIRST_APPLY, ..*self };
            entries = before.updated(Vec::new(), Differences::of_one(before.compare(None, live)));
        }
        for entry in &mut entries {
            entry.fields.set();
        }
        let applied = match self.merge(live, patch, entries.clone())? {
            Err(conflicts) if self.name() == KUBECTL => {
                // What kubectl applied by itself before isn't another manager's.
                let Some(allowed) = allowed(self, live) else { return Err(apply_conflict(conflicts)) };
                let left = conflicts.into_iter().filter_map(|conflict| conflict.without(&allowed));
                let left: Vec<Conflict> = left.collect();
                if !left.is_empty() {
                    return Err(apply_conflict(left));
                }
                self.merge(live, &Patch { force: true, ..*patch }, entries)?
            }
            merged => merged,
        };
        let mut applied = applied.map_err(apply_conflict)?;
        if self.name() == KUBECTL {
            renew(&mut applied, patch.object);
        }
        Ok(applied)
    }

    fn create(&self, patch: &Object) -> Object {
        let mut created = patch.clone();
        let fields = self.fields_of(patch);
        if !fields.is_empty() {
            let mut entry = Entry::new(self, Operation::Apply, fields);
            entry.time = Some(self.now.into());
            if let Some(managed) = encode(vec![entry]) {
                created.set_meta("managedFields", managed);
            }
        }
        created
    }

    fn merge<'e>(
        &self,
        live: &Object,
        patch: &Patch<'_>,
        mut entries: Vec<Entry<'e>>,
    ) -> Result<Result<Object, Vec<Conflict>>, Unconverted>
    where
        'm: 'e,
    {
        let root = self.typing.root();
        let old = bare(live);
        let merged = merge(root, &old, &bare(patch.object));

        let known = entries.iter().position(|entry| entry.is_of(self, Operation::Apply));
        let last = known.map(|at| (entries[at].fields.take(), entries[at].api_version.clone()));
        let fields = self.applied_fields(patch.object);
        let mut entry = Entry::new(self, Operation::Apply, fields);
        entry.time = known.and_then(|at| entries[at].time.clone());
        match known {
            Some(at) => entries[at] = entry,
            None => entries.push(entry),
        }
        let new = match last {
            Some((last, version)) => self.pruned(merged, &last, &version, &mut entries)?,
            None => merged,
        };
        let new = Object::from_value(new).unwrap_or_else(|| Object(serde_json::Map::new()));
        let difference = self.compare(Some(live), &new);
        let differences = self.differences(Some(live), &new, difference, &entries)?;
        if !patch.force {
            let others = entries.iter().filter(|entry| !entry.is_of(self, Operation::Apply));
            let conflicts: Vec<_> = others.filter_map(|entry| Conflict::with(entry, &differences)).collect();
            if !conflicts.is_empty() {
                return Ok(Err(conflicts));
            }
        }
        let mut entries = self.taken(entries, &differences, Some(Operation::Apply));
        let changes = Value::Object(new.0.clone()) != old;
        if let Some(entry) = entries.iter_mut().find(|entry| entry.is_of(self, Operation::Apply)) {
            *entry.fields.set() = stripped(entry.fields.take());
            if changes {
                entry.time = Some(self.now.into());
            }
        }
        entries.retain(|entry| !entry.fields.is_empty());
        let mut new = new;
        match encode(entries) {
            Some(managed) => new.set_meta("managedFields", managed),
            None => {
                new.remove_meta("managedFields");
            }
        }
        Ok(Ok(new))
    }

    /// The fields that the patch says.
    fn applied_fields(&self, patch: &Object) -> FieldSet {
        fields_of(self.typing.root(), &bare(patch)).recursive_difference(self.ignored())
    }

    /// Those of them that can be owned.
    fn fields_of(&self, patch: &Object) -> FieldSet {
        stripped(self.applied_fields(patch))
    }

    fn check_patch(&self, patch: &Object) -> Result<(), Status> {
        if patch.api_version() != self.api_version {
            let (given, expected) = (patch.api_version(), self.api_version);
            return Err(Status::bad_request(format!(
                "Incorrect version specified in apply patch. Specified patch version: {given}, expected: {expected}"
            )));
        }
        if patch.meta("managedFields").is_some_and(|managed| !managed.is_null()) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        let mut faults = faults(self.typing.root(), &Value::Object(patch.0.clone()));
        if let (true, Typing::Resource(resource)) = (faults.is_empty(), self.typing) {
            faults.extend(conform(resource, &mut patch.clone()).err().map(|mismatch| format!(".{mismatch}")));
        }
        let faults = match faults.as_slice() {
            [] => return Ok(()),
            [only] => only.clone(),
            all => format!("errors:\n  {}", all.join("\n  ")),
        };
        let (namespace, name, kind) = (patch.namespace(), patch.name(), patch.kind());
        let version = match self.api_version {
            core if !core.contains('/') => format!("/{core}"),
            other => other.to_owned(),
        };
        let message = format!(
            "failed to create typed patch object ({namespace}/{name}; {version}, Kind={kind}): {faults}"
        );
        // As upstream has it: a plain error.
        Err(Status::new(500, "", message))
    }
}
