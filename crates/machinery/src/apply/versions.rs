//! An object in the versions in which its managers wrote: each of them owns fields of its own version, so what a write
//! changes is worked out in each.
//!
//! Follows structured-merge-diff's `merge.Updater` with upstream's version converter.

use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::compare::{Difference, compare};
use super::entry::Entry;
use super::field_manager::FieldManager;
use super::types::Typing;
use crate::convert::{from_stored, to_stored};
use crate::custom::Conversion;
use crate::object::Object;
use crate::status::Status;

/// What a write needs of objects in other versions that only a webhook can make. The write is tried, says what is
/// missing, and is tried again once that was added: so the code that decides never waits for the webhook.
#[derive(Debug, Default)]
pub struct Conversions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Objects, and what became of them.
    made: Vec<(Object, Object)>,
    missing: Vec<(String, Vec<Object>)>,
}

/// A write needs objects in versions in which nobody has made them yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the owners of fields can't be worked out before a conversion webhook was asked; ask it, and try again"
)]
pub struct Unconverted;

impl From<Unconverted> for Status {
    fn from(why: Unconverted) -> Self {
        Status::internal(why)
    }
}

impl Conversions {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the last try failed for want of an object.
    pub fn lacks_some(&self) -> bool {
        !self.inner().missing.is_empty()
    }

    /// What the last try lacked: versions, and the objects that are wanted in each.
    pub fn take_missing(&self) -> Vec<(String, Vec<Object>)> {
        std::mem::take(&mut self.inner().missing)
    }

    /// Adds what became of objects, in their order.
    pub fn add(&self, objects: Vec<Object>, made: Vec<Object>) {
        self.inner().made.extend(objects.into_iter().zip(made));
    }

    fn get(&self, object: &Object, version: &str) -> Result<Object, Unconverted> {
        let mut inner = self.inner();
        let found = inner.made.iter().find(|(from, to)| to.api_version() == version && from == object);
        if let Some((_, made)) = found {
            return Ok(made.clone());
        }
        let at = inner.missing.iter().position(|(wanted, _)| wanted == version);
        let objects = match at {
            Some(at) => &mut inner.missing[at].1,
            None => &mut inner.missing.push_mut((version.to_owned(), Vec::new())).1,
        };
        if !objects.contains(object) {
            objects.push(object.clone());
        }
        Err(Unconverted)
    }
}

impl<'a> Typing<'a> {
    /// The types of another version of the same objects; nothing if there is no such version.
    pub(super) fn in_version(self, api_version: &str) -> Option<Typing<'a>> {
        let Typing::Resource(resource) = self else { return Some(self) };
        match resource.custom() {
            Some(custom) => custom.merging_in(api_version).map(Typing::Structural),
            None => resource.in_version(api_version).map(Typing::Resource),
        }
    }
}

/// In which fields a write changes an object, in each version in which somebody owns some.
#[derive(Debug)]
pub(super) struct Differences {
    /// In the writer's version.
    pub own: Difference,
    /// In others; nothing for versions that no longer exist.
    others: Vec<(String, Option<Difference>)>,
}

impl Differences {
    /// Where only the writer's version counts.
    pub fn of_one(own: Difference) -> Self {
        Differences { own, others: Vec::new() }
    }

    /// The fields as an entry of that version names them; nothing if there is no such version any more.
    pub fn in_version(&self, api_version: &str) -> Option<&Difference> {
        match self.others.iter().find(|(other, _)| other == api_version) {
            Some((_, difference)) => difference.as_ref(),
            None => Some(&self.own),
        }
    }
}

impl FieldManager<'_> {
    /// Whether managers of other versions own other fields.
    pub(super) fn has_versions(&self) -> bool {
        matches!(self.typing, Typing::Resource(_))
    }

    /// An object in a version that there is.
    pub(super) fn in_version(&self, object: &Object, version: &str) -> Result<Object, Unconverted> {
        let Typing::Resource(resource) = self.typing else { return Ok(object.clone()) };
        if object.api_version() == version {
            return Ok(object.clone());
        }
        let Some(custom) = resource.custom() else {
            let mut object = object.clone();
            if let Some(from) = resource.in_version(object.api_version()) {
                to_stored(from, &mut object);
            }
            if let Some(to) = resource.in_version(version) {
                from_stored(to, &mut object);
            }
            return Ok(object);
        };
        match custom.definition().conversion() {
            Conversion::None => {
                let mut object = object.clone();
                custom.definition().relabel(&mut object, version);
                Ok(object)
            }
            Conversion::Webhook { .. } => {
                self.conversions.ok_or(Unconverted).and_then(|conversions| conversions.get(object, version))
            }
        }
    }

    /// What differs between `live` (none: there is no such object) and `new` in the versions of `entries`, where `own`
    /// is what differs in the manager's own version.
    pub(super) fn differences(
        &self,
        live: Option<&Object>,
        new: &Object,
        own: Difference,
        entries: &[Entry<'_>],
    ) -> Result<Differences, Unconverted> {
        let mut differences = Differences::of_one(own);
        let is_other = |entry: &&Entry<'_>| entry.api_version != self.api_version;
        if !self.has_versions() || differences.own.is_empty() || !entries.iter().any(|entry| is_other(&entry))
        {
            return Ok(differences);
        }
        let (live, new) = (live.map(unmanaged), unmanaged(new));
        let mut lacking = false;
        for entry in entries.iter().filter(is_other) {
            let version = &*entry.api_version;
            if differences.others.iter().any(|(known, _)| known == version) {
                continue;
            }
            let difference = match self.typing.in_version(version) {
                None => None,
                Some(typing) => {
                    // What is missing of both is reported in one go.
                    let live = live.as_ref().map(|live| self.in_version(live, version)).transpose();
                    match (live, self.in_version(&new, version)) {
                        (Ok(live), Ok(new)) => Some(self.difference(typing, live.as_ref(), &new)),
                        // Where no webhook can be asked, what others own stays theirs.
                        _ if self.conversions.is_none() => Some(Difference::default()),
                        _ => {
                            lacking = true;
                            continue;
                        }
                    }
                }
            };
            differences.others.push((version.to_owned(), difference));
        }
        if lacking { Err(Unconverted) } else { Ok(differences) }
    }

    /// In which of the fields that can be owned here two objects of a version differ.
    pub(super) fn difference(&self, typing: Typing<'_>, live: Option<&Object>, new: &Object) -> Difference {
        let root = typing.root();
        let Difference { changed, removed } = match live {
            Some(live) => compare(root, &live.0, &new.0),
            None => typing.with_empty(|empty| compare(root, empty, &new.0)),
        };
        let ignored = self.ignored();
        Difference {
            changed: changed.recursive_difference(ignored),
            removed: removed.recursive_difference(ignored),
        }
    }
}

fn unmanaged(object: &Object) -> Object {
    let mut object = object.clone();
    object.remove_meta("managedFields");
    object
}
