//! Images from archives and folders: what `docker save`, `podman save`, `skopeo copy` and BuildKit write.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::archive::Source;
use crate::config::{Stored, or_default};
use crate::manifest::{Descriptor, Document, LARGEST, Manifest, OCI_CONFIG, OCI_LAYER, choose};
use crate::unpack::{Expected, check};
use crate::{Digest, Error, Image, Reference, Store};

/// Indexes in indexes: nobody writes three.
const DEEPEST: usize = 4;

/// `manifest.json`, by `docker save`: image specification of Docker, 1.2.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default, deserialize_with = "or_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<String>,
}

/// `oci-layout`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

/// An image in a source: all that is small of it, checked.
struct Found {
    names: Vec<Reference>,
    /// Digests that it goes by: its manifest's, and those of indexes that led there.
    digests: Vec<Digest>,
    manifest: Vec<u8>,
    config: Vec<u8>,
    /// Where each layer is, and as what it is described.
    layers: Vec<(String, Option<Descriptor>)>,
}

impl Store {
    /// Takes in the images of an archive (`docker save`, OCI; also compressed) or of a folder with OCI's layout, each under the names that
    /// it has there, or under `name`. Every digest is checked.
    ///
    /// # Errors
    /// If it is no such archive, is damaged, has no image for this machine, or none with a name and none is given; if the disk
    /// refuses. Nothing is left then but layers that are whole.
    pub fn import(&self, path: &Path, name: Option<&Reference>) -> Result<Vec<Arc<Image>>, Error> {
        let source = Source::open(path, self.piece(), self.options().limits.bytes)?;
        let saved = || -> Result<Vec<Saved>, Error> {
            let text = source.read("manifest.json", LARGEST)?;
            serde_json::from_slice(&text).map_err(|why| source.wrong(format!("manifest.json: {why}")))
        };
        let mut found = if source.has("index.json") {
            let saved = if source.has("manifest.json") { saved()? } else { Vec::new() };
            self.in_layout(&source, &saved)?
        } else if source.has("manifest.json") {
            saved()?.into_iter().map(|saved| in_saved(&source, saved)).collect::<Result<Vec<_>, _>>()?
        } else {
            return Err(source.wrong("it is neither an archive of docker save nor an OCI image layout"));
        };
        match (name, found.as_mut_slice()) {
            (_, []) => return Err(source.wrong("there is no image in it")),
            (None, found) if found.iter().any(|found| found.names.is_empty()) => {
                return Err(source.wrong("it names an image by its tag alone or not at all; give the name"));
            }
            (None, _) => {}
            (Some(name), [only]) => only.names = vec![name.clone()],
            (Some(name), _) => {
                return Err(source.wrong(format!("it has several images, which can't all be {name}")));
            }
        }
        found.into_iter().map(|found| self.take_in(&source, found)).collect()
    }

    fn take_in(&self, source: &Source, found: Found) -> Result<Arc<Image>, Error> {
        let stored = self.readable(&found.config, found.layers.len())?;
        for (diff_id, (name, blob)) in stored.diff_ids().iter().zip(&found.layers) {
            if !self.has_layer(diff_id)? {
                let content = source.content(name)?;
                if let Some(blob) = blob.as_ref().filter(|blob| blob.size != content.size) {
                    let what = format!("layer {}", blob.digest);
                    return Err(Error::WrongSize { what, expected: blob.size, found: content.size });
                }
                let expected = Expected { diff_id, blob: blob.as_ref() };
                self.add_layer(&expected, content.reader)?;
            }
        }
        let mut references = Vec::new();
        for name in &found.names {
            references.push(name.key());
            references.extend(found.digests.iter().map(|digest| name.with_digest(digest)));
        }
        self.add_image(&found.manifest, &found.config, &references)
    }

    /// A configuration, if this machine can run what has it, and it has as many layers as its manifest.
    pub(crate) fn readable(&self, config: &[u8], layers: usize) -> Result<Stored, Error> {
        let what = format!("configuration {}", Digest::sha256(config));
        let stored = Stored::read(config, &what)?;
        let own = stored.diff_ids().len();
        if own != layers {
            return Err(Error::manifest(what, format!("it has {own} layers, and its manifest has {layers}")));
        }
        let platform = &self.options().platform;
        match stored.platform() {
            Some(its) if platform.runs(&its).is_none() => {
                Err(Error::NoPlatform { what, platform: platform.to_string(), offered: its.to_string() })
            }
            _ => Ok(stored),
        }
    }

    /// The images of a layout: of those that go by one name the one for this machine.
    fn in_layout(&self, source: &Source, saved: &[Saved]) -> Result<Vec<Found>, Error> {
        if source.has("oci-layout") {
            let layout: Result<Layout, _> = serde_json::from_slice(&source.read("oci-layout", LARGEST)?);
            let layout = layout.map_err(|why| source.wrong(format!("oci-layout: {why}")))?;
            if !layout.image_layout_version.starts_with("1.") {
                let version = crate::digest::shortened(&layout.image_layout_version);
                return Err(source.wrong(format!("it is an OCI layout of the unknown version {version:?}")));
            }
        }
        let text = source.read("index.json", LARGEST)?;
        let Document::Index(manifests) = Document::read(&text, "", "index.json")? else {
            return Err(source.wrong("its index.json is no index"));
        };
        let mut by_name: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
        for each in manifests {
            by_name.entry(each.name().map(str::to_owned)).or_default().push(each);
        }
        let mut found: Vec<Found> = Vec::new();
        for (name, manifests) in by_name {
            let image = self.in_index(source, &manifests)?;
            let config = Digest::sha256(&image.config);
            let tags = || saved.iter().filter(|saved| names_digest(&saved.config, &config));
            let names = match name.filter(|name| name.contains(['/', ':'])) {
                Some(name) => vec![Reference::parse(&name)?],
                // Docker says it beside.
                None => parsed(tags().flat_map(|saved| &saved.repo_tags))?,
            };
            match found.iter_mut().find(|there| there.manifest == image.manifest) {
                Some(there) => there.names.extend(names),
                None => found.push(Found { names, ..image }),
            }
        }
        Ok(found)
    }

    fn in_index(&self, source: &Source, manifests: &[Descriptor]) -> Result<Found, Error> {
        let mut manifests = manifests.to_vec();
        let mut digests = Vec::new();
        for _ in 0..DEEPEST {
            let chosen = choose(&manifests, &self.options().platform, "index.json")?;
            let bytes = blob(source, chosen)?;
            digests.push(chosen.digest.clone());
            match Document::read(&bytes, &chosen.media_type, &format!("manifest {}", chosen.digest))? {
                Document::Index(below) => manifests = below,
                Document::Manifest(manifest) => {
                    let config = blob(source, &manifest.config)?;
                    let layers = manifest.layers.into_iter();
                    let layers = layers.map(|layer| (blob_name(&layer.digest), Some(layer))).collect();
                    return Ok(Found { names: Vec::new(), digests, manifest: bytes, config, layers });
                }
            }
        }
        Err(source.wrong("its indexes lead to other indexes without end"))
    }
}

/// An image that `docker save` wrote; it gets the manifest that it would have uncompressed.
fn in_saved(source: &Source, saved: Saved) -> Result<Found, Error> {
    let config = source.read(&saved.config, LARGEST)?;
    let digest = Digest::sha256(&config);
    if names_any_digest(&saved.config) && !names_digest(&saved.config, &digest) {
        return Err(source.wrong(format!("{} has the digest {digest}", saved.config)));
    }
    let stored = Stored::read(&config, &saved.config)?;
    let mut layers = Vec::new();
    for (name, diff_id) in saved.layers.iter().zip(stored.diff_ids()) {
        layers.push(Descriptor::new(OCI_LAYER, diff_id.clone(), source.content(name)?.size));
    }
    let manifest = Manifest::new(Descriptor::new(OCI_CONFIG, digest, config.len() as u64), layers);
    let manifest = serde_json::to_vec(&manifest).map_err(|why| source.wrong(why.to_string()))?;
    Ok(Found {
        names: parsed(&saved.repo_tags)?,
        digests: vec![Digest::sha256(&manifest)],
        manifest,
        config,
        layers: saved.layers.into_iter().map(|name| (name, None)).collect(),
    })
}

fn parsed<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<Vec<Reference>, Error> {
    names.into_iter().map(|name| Reference::parse(name)).collect()
}

/// The end of a path that names a file by its SHA-256.
fn hex_in(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or_default();
    name.strip_suffix(".json").unwrap_or(name)
}

fn names_any_digest(path: &str) -> bool {
    Digest::parse(&format!("sha256:{}", hex_in(path))).is_ok()
}

fn names_digest(path: &str, digest: &Digest) -> bool {
    hex_in(path) == digest.hex()
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A small blob of a layout, checked.
fn blob(source: &Source, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let bytes = source.read(&blob_name(&descriptor.digest), LARGEST)?;
    let found = descriptor.digest.algorithm().of(&bytes);
    check(
        &format!("blob {}", descriptor.digest),
        (&descriptor.digest, descriptor.size),
        (found, bytes.len() as u64),
    )?;
    Ok(bytes)
}
