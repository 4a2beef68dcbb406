//! Recording what a create, an update or a patch changed.

use std::sync::LazyLock;

use serde_json::Value;

use super::cap::cap_updates;
use super::compare::Difference;
use super::entry::{Entry, Operation, encode, foreign_entries, own_entries};
use super::field_set::FieldSet;
use super::types::Typing;
use super::versions::{Conversions, Differences, Unconverted};
use crate::conform::Empties;
use crate::object::Object;
use crate::status::Cause;

/// How long a manager's name may be, in bytes.
const LONGEST_NAME: usize = 128;

/// A writer, and what it writes to.
#[derive(Debug, Clone, Copy)]
pub struct FieldManager<'a> {
    /// Its name; `unknown` where it is empty.
    pub name: &'a str,
    /// Group and version in which it writes.
    pub api_version: &'a str,
    /// The subresource that it writes, or empty.
    pub subresource: &'a str,
    /// Where the types of the object come from.
    pub typing: Typing<'a>,
    /// Whether the object's `status` is a subresource: then only its writers own it.
    pub has_status: bool,
    /// The time of the write, as RFC 3339.
    pub now: &'a str,
    /// Where objects in other versions come from that only a webhook can make. Without it, what an update changes
    /// stays with those who own it in such versions, and nothing can be applied that they have a part in.
    pub conversions: Option<&'a Conversions>,
}

/// The manager's name of a client that gives none: its `User-Agent` up to the first slash.
pub fn manager_of_user_agent(agent: &str) -> String {
    let mut name = String::new();
    let product = agent.split('/').next().unwrap_or_default();
    for character in product.chars().filter(|c| is_printable(*c)) {
        if name.len() + character.len_utf8() > LONGEST_NAME {
            break;
        }
        name.push(character);
    }
    name
}

fn is_printable(character: char) -> bool {
    !character.is_control() && (character == ' ' || !character.is_whitespace())
}

impl<'a> FieldManager<'a> {
    /// Why `name` can't be a manager's, if it can't.
    pub fn name_fault(name: &str) -> Option<Cause> {
        if name.len() > LONGEST_NAME {
            return Some(Cause::too_long("fieldManager", LONGEST_NAME));
        }
        let odd = name.chars().position(|c| !is_printable(c))?;
        let why = format!("invalid character at position {odd}: must be printable");
        Some(Cause::invalid("fieldManager", &name.into(), &why))
    }

    pub(super) fn name(&self) -> &'a str {
        if self.name.is_empty() { "unknown" } else { self.name }
    }

    /// Records in `new`, an object with its defaults, what this manager changes of `live` (none: it creates the
    /// object). The managed fields that `new` brings along are taken where they make sense, those of `live`
    /// otherwise; a list of one empty entry takes all away.
    ///
    /// # Errors
    /// If objects are missing in other versions; `new` has lost the managed fields that it brought then.
    pub fn update(&self, live: Option<&Object>, new: &mut Object) -> Result<(), Unconverted> {
        let recorded = live.and_then(|live| live.meta("managedFields"));
        let (own, foreign) = match new.remove_meta("managedFields") {
            Some(copy) if Some(&copy) == recorded => (Some(copy), None),
            Some(brought) if self.subresource.is_empty() => (None, Some(brought)),
            _ => (None, None),
        };
        if live.is_some() && foreign.as_ref().is_some_and(is_reset) {
            return Ok(());
        }
        let foreign = foreign.and_then(foreign_entries).filter(|entries| !entries.is_empty());
        // A client that took an object's managed fields away doesn't want them, until somebody applies.
        if foreign.is_none() && live.is_some() && recorded.is_none() {
            return Ok(());
        }
        // What isn't written, nobody owns.
        let plain = match self.typing {
            Typing::Resource(resource) => Empties::LeftOut.without(resource, new),
            _ => None,
        };
        let difference = self.compare(live, plain.as_ref().unwrap_or(new));
        let own = own.or_else(|| recorded.filter(|_| foreign.is_none()).cloned());
        let managed = match foreign {
            None if difference.is_empty() => own,
            foreign => {
                let entries = foreign.unwrap_or_else(|| own_entries(own));
                let differences = self.differences(live, new, difference, &entries)?;
                encode(self.updated(entries, differences))
            }
        };
        if let Some(managed) = managed {
            new.set_meta("managedFields", managed);
        }
        Ok(())
    }

    /// The entries after this manager's update.
    pub(super) fn updated<'e>(&self, entries: Vec<Entry<'e>>, differences: Differences) -> Vec<Entry<'e>>
    where
        'a: 'e,
    {
        let mut entries = self.taken(entries, &differences, None);
        let own = stripped(differences.own.changed);
        if !own.is_empty() {
            let entry = match entries.iter_mut().find(|entry| entry.is_of(self, Operation::Update)) {
                Some(entry) => {
                    *entry.fields.set() = entry.fields.take().union(own);
                    entry
                }
                None => entries.push_mut(Entry::new(self, Operation::Update, own)),
            };
            entry.time = Some(self.now.into());
        }
        cap_updates(&mut entries);
        entries
    }

    /// The entries without the fields that changed hands or are gone, but `kept`'s, and without those of versions that
    /// are no more.
    pub(super) fn taken<'e>(
        &self,
        mut entries: Vec<Entry<'e>>,
        differences: &Differences,
        kept: Option<Operation>,
    ) -> Vec<Entry<'e>> {
        entries.retain(|entry| differences.in_version(&entry.api_version).is_some());
        for entry in &mut entries {
            let is_kept = kept.is_some_and(|operation| entry.is_of(self, operation));
            let Some(difference) = differences.in_version(&entry.api_version) else { continue };
            for gone in [&difference.changed, &difference.removed] {
                if !is_kept && entry.fields.touches(gone) {
                    *entry.fields.set() = entry.fields.take().difference(gone);
                }
            }
        }
        entries.retain(|entry| !entry.fields.is_empty());
        entries
    }

    /// In which of the fields that can be owned here two objects differ.
    pub(super) fn compare(&self, live: Option<&Object>, new: &Object) -> Difference {
        self.difference(self.typing, live, new)
    }

    /// What nobody comes to own by this write: the other side of an object, and the record itself.
    pub(super) fn ignored(&self) -> &'static FieldSet {
        const RECORD: &[&str] = &["f:metadata", "f:managedFields"];
        static NONE: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of(&[RECORD]));
        static STATUS: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of(&[RECORD, &["f:status"]]));
        static SPEC: LazyLock<FieldSet> = LazyLock::new(|| FieldSet::of(&[RECORD, &["f:spec"]]));
        match self.subresource {
            "" if self.has_status => &STATUS,
            "status" => &SPEC,
            _ => &NONE,
        }
    }
}

/// An object without its managed fields.
pub(super) fn bare(object: &Object) -> Value {
    let mut object = object.clone();
    object.remove_meta("managedFields");
    object.into_value()
}

fn is_reset(managed: &Value) -> bool {
    matches!(managed.as_array().map(Vec::as_slice), Some([Value::Object(only)]) if only.is_empty())
}

/// Without what the server sets and what names the object: nobody owns that.
pub(super) fn stripped(fields: FieldSet) -> FieldSet {
    static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
        FieldSet::of(&[
            &["f:apiVersion"],
            &["f:kind"],
            &["f:metadata"],
            &["f:metadata", "f:name"],
            &["f:metadata", "f:namespace"],
            &["f:metadata", "f:creationTimestamp"],
            &["f:metadata", "f:selfLink"],
            &["f:metadata", "f:uid"],
            &["f:metadata", "f:clusterName"],
            &["f:metadata", "f:generation"],
            &["f:metadata", "f:managedFields"],
            &["f:metadata", "f:resourceVersion"],
        ])
    });
    fields.difference(&UNOWNED)
}
