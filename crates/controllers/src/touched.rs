//! What one change of the state did to what controllers look at.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use objects::{Change, Kind};

use crate::graph::Vertex;

/// What one change of the state did to what controllers look at.
pub struct Touched {
    change: Option<Box<dyn Any + Send>>,
    owned: Owned,
    doubted: Option<Vec<Bytes>>,
}

/// The place of a changed object in the ownership, whatever its kind: before and now.
pub(crate) struct Owned {
    pub old: Option<Arc<Vertex>>,
    pub new: Option<Arc<Vertex>>,
}

impl Touched {
    pub(crate) fn new(
        change: Option<Box<dyn Any + Send>>,
        owned: Owned,
        doubted: Option<Vec<Bytes>>,
    ) -> Self {
        Touched { change, owned, doubted }
    }

    /// The change, if it is one of this kind.
    pub(crate) fn of<T: Kind + 'static>(&self) -> Option<&Change<T>> {
        self.change.as_ref()?.downcast_ref()
    }

    /// The place of the object in the ownership.
    pub(crate) fn owned(&self) -> &Owned {
        &self.owned
    }

    /// If it changed what is known of kinds: the keys of objects whose owners may be judged otherwise from now on.
    pub(crate) fn doubted(&self) -> Option<&[Bytes]> {
        self.doubted.as_deref()
    }
}

impl Owned {
    /// As it is, or as it was last.
    pub fn latest(&self) -> Option<&Vertex> {
        self.new.as_deref().or(self.old.as_deref())
    }

    /// As it was and as it is.
    pub fn both(&self) -> impl Iterator<Item = &Arc<Vertex>> {
        [&self.old, &self.new].into_iter().flatten()
    }

    /// Whether it came no nearer to its end: neither is it gone, nor does it begin or wait otherwise for it.
    pub fn same_end(&self) -> bool {
        let ends = |node: &Vertex| (node.deleting, node.finalizers.clone());
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => ends(old) == ends(new) && old.uid == new.uid,
            (None, Some(new)) => !new.deleting,
            _ => false,
        }
    }

    /// Whether it has the owners that it had.
    pub fn same_owners(&self) -> bool {
        self.old.as_ref().map(|node| &node.owners) == self.new.as_ref().map(|node| &node.owners)
    }
}
