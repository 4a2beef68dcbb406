//! The store: what images there are, in a folder that several processes may use at once.
//!
//! ```text
//! index.json            what there is; nothing else counts
//! blobs/sha256/HEX      manifests and configurations
//! layers/sha256/HEX/root each layer, unpacked, by the digest of its archive
//! temporary/PID-N/      what a process is about
//! lock                  held for moments, while the above changes
//! ```
//!
//! A layer or a blob gets its place and its line in the index under the lock, once all of its bytes are on the disk. So what
//! has a place and no line is of a process that died between the two, and is removed by the next that opens the store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::{Config, Stored};
use crate::digest::Algorithm;
use crate::index::{Index, Layer, Record, Stamp, place};
use crate::temporary::{Piece, Temporary, remove_tree};
use crate::unpack::{self, Expected, Limits, Overlay};
use crate::{Digest, Error, Platform, Reference};

/// How a store works.
#[derive(Debug, Clone)]
pub struct Options {
    /// What a layer may unpack to.
    pub limits: Limits,
    /// For which machine images are chosen.
    pub platform: Platform,
}

impl Default for Options {
    fn default() -> Self {
        Options { limits: Limits::default(), platform: Platform::host() }
    }
}

/// An image that is there, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The digest of its configuration: what Docker calls its id.
    pub id: Digest,
    /// What it is called: `NAME:TAG` and `NAME@DIGEST`, whole.
    pub references: Vec<String>,
    /// What its layers' files have together, in bytes, shared ones included.
    pub size: u64,
    /// How it is run.
    pub config: Config,
    /// The folders of its layers, lowest first, each once: as overlayfs stacks them (its `lowerdir` names the uppermost first).
    pub layers: Vec<PathBuf>,
}

impl Image {
    /// Its name by digest, as a container's status tells it in `imageID`; that of `name`'s repository if it has one there.
    pub fn image_id(&self, name: &Reference) -> String {
        let digests = || self.references.iter().filter(|reference| reference.contains('@'));
        let prefix = format!("{}@", name.name());
        let own = digests().find(|reference| reference.starts_with(&prefix));
        own.or_else(|| digests().next()).cloned().unwrap_or_else(|| self.id.to_string())
    }
}

/// Images in a folder. Clones are the same store.
///
/// Its methods read and write the disk, and so block.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    options: Options,
    overlay: Overlay,
    temporary: Temporary,
    state: Mutex<State>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("folder", &self.shared.folder).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    stamp: Option<Stamp>,
    index: Index,
    images: BTreeMap<Digest, Arc<Image>>,
}

const BLOBS: &str = "blobs";
const LAYERS: &str = "layers";
/// Where a layer is in its folder.
const ROOT: &str = "root";

impl Store {
    /// Opens the store in a folder, which is made if it isn't there; what was left unfinished in it is removed.
    ///
    /// # Errors
    /// If the folder can't be used, or is of a later version of Holdfast.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, Error> {
        Store::open_with(folder.as_ref(), Options::default())
    }

    /// [`Store::open`] with other limits, or for another machine.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(folder: &Path, options: Options) -> Result<Self, Error> {
        // Layers have set-uid programs: nobody else may reach them.
        make_folder(folder, 0o700)?;
        let folder = fs::canonicalize(folder).map_err(Error::disk("open", folder))?;
        for part in [BLOBS, LAYERS] {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                make_folder(&folder.join(part).join(algorithm.name()), 0o700)?;
            }
        }
        let temporary = folder.join("temporary");
        make_folder(&temporary, 0o700)?;
        let lock = lock(&folder)?;
        let temporary = Temporary::claim(&temporary)?;
        let overlay = Overlay::of(&folder);
        let state = Mutex::default();
        let store = Store { shared: Arc::new(Shared { folder, options, overlay, temporary, state }) };
        store.clean()?;
        drop(lock);
        Ok(store)
    }

    /// How the layers must be mounted.
    pub fn overlay(&self) -> Overlay {
        self.shared.overlay
    }

    /// Where it lies.
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    pub(crate) fn piece(&self) -> Piece {
        self.shared.temporary.piece()
    }

    /// The image with a name, a digest or an id (`sha256:HEX` or `HEX`); nothing if it isn't there.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and where the disk can't be read.
    pub fn find(&self, name: &str) -> Result<Option<Arc<Image>>, Error> {
        match digest_in(name) {
            Some(digest) => self.find_digest(&digest),
            None => self.find_reference(&Reference::parse(name)?),
        }
    }

    /// The image with a name; nothing if it isn't there.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn find_reference(&self, name: &Reference) -> Result<Option<Arc<Image>>, Error> {
        let state = self.current()?;
        let digest = state.index.references.get(&name.key());
        Ok(digest.and_then(|digest| state.images.get(digest)).cloned())
    }

    /// The image whose manifest or configuration has a digest; nothing if it isn't there.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn find_digest(&self, digest: &Digest) -> Result<Option<Arc<Image>>, Error> {
        let state = self.current()?;
        let by_id = || state.images.values().find(|image| image.id == *digest);
        Ok(state.images.get(digest).or_else(by_id).cloned())
    }

    /// All images.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn list(&self) -> Result<Vec<Arc<Image>>, Error> {
        Ok(self.current()?.images.values().cloned().collect())
    }

    /// The index as it is on the disk.
    pub(crate) fn index_now(&self) -> Result<Index, Error> {
        Ok(self.current()?.index.clone())
    }

    /// Whether a layer is there, by the digest of its archive, not compressed.
    pub(crate) fn has_layer(&self, diff_id: &Digest) -> Result<bool, Error> {
        Ok(self.current()?.index.layers.contains_key(diff_id))
    }

    /// Takes in a layer as it comes. Once this returns it is there for good, whichever image it is for.
    pub(crate) fn add_layer(&self, expected: &Expected, source: impl Read) -> Result<(), Error> {
        let Shared { options, overlay, .. } = &*self.shared;
        let piece = self.piece();
        let (root, trash) = (piece.path().join(ROOT), piece.path().join("trash"));
        for folder in [piece.path(), &root, &trash] {
            make_folder(folder, 0o755)?;
        }
        let unpacked = unpack::layer(source, expected, &root, &trash, options.limits, *overlay)?;
        remove_tree(&trash).map_err(Error::disk("remove", &trash))?;
        // All of it, before anybody may believe that it is there.
        let synced = File::open(&root).and_then(|folder| rustix::fs::syncfs(folder).map_err(Into::into));
        synced.map_err(Error::disk("write", &root))?;
        self.change(|index| {
            if index.layers.contains_key(expected.diff_id) {
                return Ok(());
            }
            let path = self.layer(expected.diff_id);
            remove_tree(&path).map_err(Error::disk("remove", &path))?;
            // What is renamed is the folder around the layer: the layer's own mode may forbid that to others than root.
            fs::rename(piece.path(), &path).map_err(Error::disk("write", &path))?;
            let layer = Layer { bytes: unpacked.bytes, opaque: unpacked.opaque };
            index.layers.insert(expected.diff_id.clone(), layer);
            Ok(())
        })
    }

    /// Takes in an image whose layers are there.
    pub(crate) fn add_image(
        &self,
        manifest: &[u8],
        config: &[u8],
        references: &[String],
    ) -> Result<Arc<Image>, Error> {
        let (digest, id) = (Digest::sha256(manifest), Digest::sha256(config));
        let layers = Stored::read(config, &format!("configuration {id}"))?.diff_ids().to_vec();
        self.change(|index| {
            if let Some(gone) = layers.iter().find(|layer| !index.layers.contains_key(layer)) {
                return Err(Error::Removed(gone.clone()));
            }
            for (digest, content) in [(&digest, manifest), (&id, config)] {
                let path = self.blob(digest);
                if !path.exists() {
                    place(content, &path, &self.piece())?;
                }
            }
            index.images.insert(digest.clone(), Record { config: id.clone(), layers });
            for reference in references {
                index.references.insert(reference.clone(), digest.clone());
            }
            Ok(())
        })?;
        self.find_digest(&digest)?.ok_or_else(|| Error::NotPresent(digest.to_string()))
    }

    /// Gives an image further names; whether it is there.
    pub(crate) fn add_names(&self, image: &Digest, references: &[String]) -> Result<bool, Error> {
        self.change(|index| {
            let is_there = index.images.contains_key(image);
            for reference in references.iter().filter(|_| is_there) {
                index.references.insert(reference.clone(), image.clone());
            }
            Ok(is_there)
        })
    }

    /// Writes an image's digest to the file `mark`, unless the image is gone; whether it is there. Nobody removes anything
    /// meanwhile: a removal that looks for marks ([`crate::InUse`]) sees this one, or has removed the image before.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn keep(&self, image: &Digest, mark: &Path) -> Result<bool, Error> {
        self.change(|index| {
            let is_there = index.images.contains_key(image);
            if is_there {
                fs::write(mark, image.as_str()).map_err(Error::disk("write", mark))?;
            }
            Ok(is_there)
        })
    }

    /// Removes what has a place and no line in the index: not before the index is on the disk without it.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        let mut gone = Vec::new();
        {
            let mut state = self.state();
            let _lock = lock(&self.shared.folder)?;
            self.refresh(&mut state)?;
            self.each_unlisted(&state.index, |path| {
                let piece = self.piece();
                fs::rename(path, piece.path()).map_err(Error::disk("remove", path))?;
                gone.push(piece);
                Ok(())
            })?;
        }
        // It goes as slowly as it likes: nobody waits for it.
        drop(gone);
        Ok(())
    }

    /// What has a place and no line in the index.
    fn each_unlisted(
        &self,
        index: &Index,
        mut each: impl FnMut(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let blobs = index.images.iter().flat_map(|(digest, image)| [digest, &image.config]);
        let blobs = blobs.map(|digest| self.blob(digest));
        let layers = index.layers.keys().map(|digest| self.layer(digest));
        let listed: BTreeSet<PathBuf> = blobs.chain(layers).collect();
        for part in [BLOBS, LAYERS] {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let folder = self.shared.folder.join(part).join(algorithm.name());
                for entry in fs::read_dir(&folder).map_err(Error::disk("read", &folder))? {
                    let path = entry.map_err(Error::disk("read", &folder))?.path();
                    if !listed.contains(&path) {
                        each(&path)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// What was left by processes that died; the caller holds the lock.
    fn clean(&self) -> Result<(), Error> {
        let mut state = self.state();
        self.refresh(&mut state)?;
        let mut index = state.index.clone();
        index.layers.retain(|layer, _| self.layer(layer).is_dir());
        let whole = |image: &Record| image.layers.iter().all(|layer| index.layers.contains_key(layer));
        index.images.retain(|digest, image| whole(image) && state.images.contains_key(digest));
        index.references.retain(|_, digest| index.images.contains_key(digest));
        if index != state.index {
            tracing::warn!(folder = %self.shared.folder.display(), "images that miss something were removed");
            self.save(&mut state, index)?;
        }
        self.each_unlisted(&state.index, |path| remove_tree(path).map_err(Error::disk("remove", path)))
    }

    /// Changes the index: what this process and others have of it is the latest before, and the disk has it after.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Index) -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.state();
        let _lock = lock(&self.shared.folder)?;
        self.refresh(&mut state)?;
        let mut index = state.index.clone();
        let made = change(&mut index)?;
        if index != state.index {
            self.save(&mut state, index)?;
        }
        Ok(made)
    }

    fn save(&self, state: &mut State, index: Index) -> Result<(), Error> {
        index.write(&self.index(), &self.piece())?;
        state.stamp = None;
        self.refresh(state)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state as it is on the disk.
    fn current(&self) -> Result<MutexGuard<'_, State>, Error> {
        let mut state = self.state();
        self.refresh(&mut state)?;
        Ok(state)
    }

    /// Follows what other processes, or this one, have changed.
    fn refresh(&self, state: &mut State) -> Result<(), Error> {
        let stamp = Stamp::at(&self.index())?;
        if stamp == state.stamp {
            return Ok(());
        }
        let index = Index::read(&self.index())?;
        let mut names: BTreeMap<&Digest, Vec<String>> = BTreeMap::new();
        for (reference, digest) in &index.references {
            names.entry(digest).or_default().push(reference.clone());
        }
        let mut images = BTreeMap::new();
        for (digest, record) in &index.images {
            let names = names.remove(digest).unwrap_or_default();
            let known = state.images.get(digest).filter(|image| image.references == names);
            let image = match known {
                Some(known) => known.clone(),
                None => match self.image(digest, record, names, &index) {
                    Ok(image) => Arc::new(image),
                    Err(why) => {
                        tracing::warn!(%digest, %why, "an image can't be read");
                        continue;
                    }
                },
            };
            images.insert(digest.clone(), image);
        }
        *state = State { stamp, index, images };
        Ok(())
    }

    fn image(
        &self,
        digest: &Digest,
        record: &Record,
        references: Vec<String>,
        index: &Index,
    ) -> Result<Image, Error> {
        let path = self.blob(&record.config);
        let content = fs::read(&path).map_err(Error::disk("read", &path))?;
        let stored = Stored::read(&content, &path.display().to_string())?;
        let mut layers: Vec<PathBuf> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut size = 0;
        // From the uppermost down: of one that comes twice, the lower one shows nothing, and overlayfs takes each once.
        for layer in record.layers.iter().rev() {
            let known = index.layers.get(layer).ok_or_else(|| Error::Removed(layer.clone()))?;
            if seen.insert(layer) {
                size += known.bytes;
                layers.push(self.layer(layer).join(ROOT));
            }
            if known.opaque {
                break;
            }
        }
        layers.reverse();
        let (digest, id) = (digest.clone(), record.config.clone());
        Ok(Image { digest, id, references, size, config: stored.config, layers })
    }

    fn index(&self) -> PathBuf {
        self.shared.folder.join("index.json")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.place_of(BLOBS, digest)
    }

    fn layer(&self, digest: &Digest) -> PathBuf {
        self.place_of(LAYERS, digest)
    }

    fn place_of(&self, part: &str, digest: &Digest) -> PathBuf {
        self.shared.folder.join(part).join(digest.algorithm().name()).join(digest.hex())
    }
}

/// A digest, with its algorithm or without as Docker tells ids.
pub(crate) fn digest_in(name: &str) -> Option<Digest> {
    Digest::parse(name).or_else(|_| Digest::parse(&format!("sha256:{name}"))).ok()
}

fn make_folder(path: &Path, mode: u32) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    // Whatever the umask says.
    let made = made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    made.map_err(Error::disk("make", path))
}

fn lock(folder: &Path) -> Result<File, Error> {
    let path = folder.join("lock");
    let file = File::options().create(true).append(true).open(&path);
    let locked = file.and_then(|file| file.lock().map(|()| file));
    locked.map_err(Error::disk("lock", &path))
}
