//! The images of a host: its store, who pulls into it, and what of it its agent's pods use.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use config::HostConfig;
use futures::future::{BoxFuture, FutureExt};
use images::{
    Collector, Digest, Error, Keyring, Overlay, Puller, Reference, Registries, Settings, Store, Thresholds,
};
use node::{Image, ImageError, Images, Present, PullSecret};

use crate::host::node_dir;

/// The store of a host's images.
///
/// # Errors
/// If its folder can't be used.
pub fn open_store(config: &HostConfig) -> Result<Store, Error> {
    Store::open(config.data_dir.join("images"))
}

/// What a file says about registries.
///
/// # Errors
/// If it can't be read, or can't be.
pub fn registries(path: &Path) -> anyhow::Result<Registries> {
    let read = || -> anyhow::Result<Registries> {
        let text = std::fs::read(path)?;
        let registries: Registries = serde_json::from_value(values::from_yaml(&text)?)?;
        registries.check()?;
        Ok(registries)
    };
    read().with_context(|| format!("{} can't be used", path.display()))
}

/// What a host's configuration says about registries.
///
/// # Errors
/// As [`registries`].
pub fn registries_of(config: &HostConfig) -> anyhow::Result<Registries> {
    config.registries_file.as_deref().map_or(Ok(Registries::default()), registries)
}

/// The images that pods use whose agent keeps its things in a folder.
///
/// # Errors
/// If its marks can't be read.
pub fn in_use(node_dir: &Path) -> Result<BTreeSet<Digest>, Error> {
    let marks = node::images_in_use(node_dir);
    let marks = marks.map_err(|why| Error::Disk { doing: "read", path: node_dir.to_owned(), why })?;
    // One that was cut off by a power cut is nobody's: its container is dead, and is marked again before it lives.
    Ok(marks.iter().filter_map(|mark| Digest::parse(mark).ok()).collect())
}

/// As the agent asks for them.
pub struct HostImages {
    store: Store,
    puller: Puller,
    node_dir: PathBuf,
    collector: Mutex<Collector>,
}

impl HostImages {
    /// A host's.
    ///
    /// # Errors
    /// Why the host can't have any.
    pub fn open(config: &HostConfig, registries: Registries) -> anyhow::Result<Arc<dyn Images>> {
        let store = open_store(config)?;
        if store.overlay() != Overlay::Trusted {
            bail!(
                "its agent may not mark layers' files as overlayfs wants them (it must be the machine's own root)"
            );
        }
        let settings = Settings { registries, ..Settings::default() };
        let puller = Puller::new(store.clone(), settings)?;
        let collector = Mutex::default();
        Ok(Arc::new(HostImages { store, puller, node_dir: node_dir(config), collector }))
    }
}

impl fmt::Debug for HostImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostImages").field("store", &self.store).finish_non_exhaustive()
    }
}

fn told(image: &images::Image, name: &Reference) -> Arc<Image> {
    let config = image.config.clone();
    Arc::new(Image {
        digest: image.digest.to_string(),
        id: image.image_id(name),
        layers: image.layers.clone(),
        size: image.size,
        env: config.env,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        user: config.user,
        working_dir: config.working_dir,
        stop_signal: config.stop_signal,
    })
}

fn fault(error: &Error) -> ImageError {
    match error {
        // The agent says itself which name it is.
        Error::InvalidName { why, .. } => ImageError::Name(why.clone()),
        Error::Unreachable { .. } => ImageError::Unreachable(error.to_string()),
        _ => ImageError::Other(error.to_string()),
    }
}

impl HostImages {
    /// Removes images that nobody uses, as far as the disk's usage asks for it; says what there is to tell if that frees too little.
    fn remove_unused(&self, now: Duration, thresholds: &Thresholds) -> Result<Option<String>, Error> {
        let used = in_use(&self.node_dir)?;
        let (inventory, usage) = (self.store.inventory()?, self.store.disk_usage()?);
        let mut collector = self.collector.lock().unwrap_or_else(PoisonError::into_inner);
        collector.observe(now, &inventory, &used);
        let verdict = collector.decide(now, &inventory, &used, usage, thresholds);
        let removed = self.store.collect(&verdict, &|| in_use(&self.node_dir))?;
        if !removed.images.is_empty() || !removed.layers.is_empty() {
            let (images, bytes) = (removed.references.join(", "), removed.bytes);
            tracing::info!(images, bytes, "images that nobody uses were removed");
        }
        Ok(verdict.complaint())
    }
}

impl Images for HostImages {
    fn find(&self, name: &str) -> Result<Option<Arc<Image>>, ImageError> {
        let name = Reference::parse(name).map_err(|error| fault(&error))?;
        let image = self.store.find_reference(&name).map_err(|error| fault(&error))?;
        Ok(image.map(|image| told(&image, &name)))
    }

    fn pull<'a>(
        &'a self,
        name: &'a str,
        secrets: Vec<PullSecret>,
    ) -> BoxFuture<'a, Result<Arc<Image>, ImageError>> {
        async move {
            let name = Reference::parse(name).map_err(|error| fault(&error))?;
            let mut keyring = Keyring::default();
            for secret in secrets {
                // One that makes no sense opens nothing, as for the kubelet.
                let added = match secret {
                    PullSecret::ConfigJson(content) => keyring.add_docker_config_json(&content),
                    PullSecret::Config(content) => keyring.add_docker_cfg(&content),
                };
                if let Err(why) = added {
                    tracing::warn!(image = %name, %why, "an image pull secret is passed over");
                }
            }
            let image = self.puller.pull(&name, &keyring).await.map_err(|error| fault(&error))?;
            Ok(told(&image, &name))
        }
        .boxed()
    }

    fn folder(&self) -> PathBuf {
        self.store.folder().to_owned()
    }

    fn list(&self) -> Vec<Present> {
        let images = self.store.list().unwrap_or_else(|why| {
            tracing::warn!(%why, "it is not known which images there are");
            Vec::new()
        });
        let present = |image: &Arc<images::Image>| {
            let mut names = image.references.clone();
            names.sort_by_key(|name| !name.contains('@'));
            Present { names, size: image.size }
        };
        images.iter().map(present).collect()
    }

    fn keep(&self, image: &Image, mark: &Path) -> Result<bool, ImageError> {
        let digest = Digest::parse(&image.digest).map_err(|error| fault(&error))?;
        self.store.keep(&digest, mark).map_err(|error| fault(&error))
    }

    fn collect(&self, now: Duration) -> Result<Option<String>, ImageError> {
        self.remove_unused(now, &Thresholds::default()).map_err(|error| fault(&error))
    }

    fn clear(&self, now: Duration) -> Result<(), ImageError> {
        // As if the disk had to be empty: all go that may.
        let all = Thresholds { high: 0, low: 0, minimum_age: Duration::ZERO, ..Thresholds::default() };
        self.remove_unused(now, &all).map(drop).map_err(|error| fault(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pod_has_is_in_use_until_its_folder_goes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(in_use(dir.path()).unwrap(), BTreeSet::new(), "no agent has run here");
        let marks = dir.path().join("pods/uid/images");
        std::fs::create_dir_all(&marks).unwrap();
        let digest = Digest::sha256(b"it");
        std::fs::write(marks.join("web"), digest.as_str()).unwrap();
        std::fs::write(marks.join("torn"), "").unwrap();
        assert_eq!(in_use(dir.path()).unwrap(), BTreeSet::from([digest]));
        std::fs::remove_dir_all(dir.path().join("pods/uid")).unwrap();
        assert_eq!(in_use(dir.path()).unwrap(), BTreeSet::new());
    }

    #[test]
    fn what_is_said_of_registries_is_checked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registries.yaml");
        std::fs::write(&file, "docker.io: {mirrors: [mirror:5000]}\nmirror:5000: {ca: /etc/ca.pem}\n")
            .unwrap();
        assert_eq!(registries(&file).unwrap().hosts.len(), 2);
        std::fs::write(&file, "\"https://quay.io\": {}\n").unwrap();
        let why = format!("{:#}", registries(&file).unwrap_err());
        assert!(
            why.contains("registries.yaml can't be used") && why.contains("must be HOST or HOST:PORT"),
            "{why}"
        );
        assert!(registries(&dir.path().join("missing")).is_err());
    }
}
