//! What goes: by name, or because the disk fills up.

use std::collections::BTreeSet;

use crate::collect::{DiskUsage, Inventory, Verdict};
use crate::index::Index;
use crate::store::digest_in;
use crate::{Digest, Error, Reference, Store};

/// What a removal took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub references: Vec<String>,
    /// Images that are gone.
    pub images: Vec<Digest>,
    /// Layers that are gone.
    pub layers: Vec<Digest>,
    /// What those layers' files had, in bytes.
    pub bytes: u64,
}

/// Says which images are in use, by the digests of their manifests or their configurations. It is asked under the store's lock:
/// whatever [`Store::keep`] has marked by then is seen.
pub type InUse<'a> = &'a dyn Fn() -> Result<BTreeSet<Digest>, Error>;

impl Removed {
    fn add(&mut self, other: Removed) {
        self.references.extend(other.references);
        self.images.extend(other.images);
        self.layers.extend(other.layers);
        self.bytes += other.bytes;
    }
}

impl Store {
    /// Removes a name; with its last tag the image, and with that the layers that no other image has. By digest or id the image goes with
    /// all of its names.
    ///
    /// # Errors
    /// [`Error::NotPresent`]; [`Error::InUse`] if the image would go and is in use.
    pub fn remove(&self, name: &str, in_use: InUse<'_>) -> Result<Removed, Error> {
        let image = self.find(name)?.ok_or_else(|| Error::NotPresent(name.to_owned()))?;
        let one = match digest_in(name) {
            Some(_) => None,
            None => Some(Reference::parse(name)?.key()),
        };
        let removed = self.change(|index| {
            let mut removed = Removed::default();
            let record = index.images.get(&image.digest);
            let its_layers = record.map(|record| record.layers.clone()).unwrap_or_default();
            let its = |index: &Index| -> Vec<String> {
                let its = index.references.iter().filter(|(_, digest)| **digest == image.digest);
                its.map(|(reference, _)| reference.clone()).collect()
            };
            let tags_stay = one.as_ref().is_some_and(|one| {
                !one.contains('@') && its(index).iter().any(|other| !other.contains('@') && other != one)
            });
            let gone = match one {
                Some(one) if tags_stay => vec![one],
                _ => its(index),
            };
            if !tags_stay {
                let in_use = in_use()?;
                if in_use.contains(&image.digest) || in_use.contains(&image.id) {
                    return Err(Error::InUse(name.to_owned()));
                }
                if index.images.remove(&image.digest).is_some() {
                    removed.images.push(image.digest.clone());
                }
            }
            for reference in gone {
                index.references.remove(&reference);
                removed.references.push(reference);
            }
            // Of this image alone: other layers of no image may be those of a pull that goes on.
            let used: BTreeSet<&Digest> = index.images.values().flat_map(|image| &image.layers).collect();
            for layer in its_layers.iter().filter(|layer| !tags_stay && !used.contains(layer)) {
                if let Some(was) = index.layers.remove(layer) {
                    removed.bytes += was.bytes;
                    removed.layers.push(layer.clone());
                }
            }
            Ok(removed)
        })?;
        self.sweep()?;
        Ok(removed)
    }

    /// What there is, for a [`crate::Collector`].
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn inventory(&self) -> Result<Inventory, Error> {
        let index = self.index_now()?;
        let images = index.images.into_iter();
        Ok(Inventory {
            images: images.map(|(digest, image)| (digest, image.layers.into_iter().collect())).collect(),
            layers: index.layers.into_iter().map(|(digest, layer)| (digest, layer.bytes)).collect(),
        })
    }

    /// How full the disk is that it lies on.
    ///
    /// # Errors
    /// Where the system doesn't say.
    pub fn disk_usage(&self) -> Result<DiskUsage, Error> {
        let said = rustix::fs::statvfs(self.folder()).map_err(Into::into);
        let said = said.map_err(Error::disk("measure", self.folder()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(said.f_frsize);
        Ok(DiskUsage { capacity: bytes(said.f_blocks), available: bytes(said.f_bavail) })
    }

    /// Does what a [`crate::Collector`] decided. What containers have begun to use since, and what is gone already, is passed
    /// over.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn collect(&self, verdict: &Verdict, in_use: InUse<'_>) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        for image in &verdict.images {
            match self.remove(image.as_str(), in_use) {
                Ok(gone) => removed.add(gone),
                Err(Error::InUse(_) | Error::NotPresent(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let orphans = self.change(|index| {
            let mut removed = Removed::default();
            let used: BTreeSet<&Digest> = index.images.values().flat_map(|image| &image.layers).collect();
            for layer in verdict.layers.iter().filter(|layer| !used.contains(layer)) {
                if let Some(was) = index.layers.remove(layer) {
                    removed.bytes += was.bytes;
                    removed.layers.push(layer.clone());
                }
            }
            Ok(removed)
        })?;
        removed.add(orphans);
        self.sweep()?;
        Ok(removed)
    }
}
