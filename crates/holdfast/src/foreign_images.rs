//! The images of a runtime of others, as the agent asks for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use cri::messages::{AuthConfig, Texts};
use cri::{Client, Endpoint, Failure};
use futures::future::{BoxFuture, FutureExt};
use images::{Keyring, Reference, Thresholds};
use node::{Foreign, Image, ImageError, Images, Present, PullSecret};
use tokio::runtime::Handle;
use tracing::info_span;

/// How often it is asked which images there are, for who places pods.
const LIST: Duration = Duration::from_secs(60);
/// How long a runtime may take to answer where a host that is short of disk waits for it: if it hangs, pods have to go.
const SHORT: Duration = Duration::from_secs(5);

/// The runtime that a host's configuration names, for the agent that keeps its things in a folder.
///
/// # Errors
/// If it is no address.
pub fn foreign_runtime(address: &str, node_dir: PathBuf) -> anyhow::Result<Foreign> {
    let endpoint: Endpoint = address.parse().context("the host's configuration names a runtime")?;
    let client = Client::at(&endpoint);
    let images = ForeignImages { client, node_dir, there: Arc::default(), removing: Default::default() };
    let (client, there) = (images.client.clone(), Arc::downgrade(&images.there));
    tasks::spawn(info_span!("list the runtime's images"), async move {
        while let Some(there) = there.upgrade() {
            if let Ok(all) = client.all_images().await {
                *there.lock().unwrap_or_else(PoisonError::into_inner) =
                    all.into_iter().map(present).collect();
            }
            drop(there);
            tokio::time::sleep(LIST).await;
        }
    });
    Ok(Foreign { endpoint, images: Arc::new(images) })
}

/// What its image service has.
#[derive(Debug)]
struct ForeignImages {
    client: Client,
    /// Where the agent's marks say which images its pods have, also those of which nothing was started yet.
    node_dir: PathBuf,
    /// Held while an image is marked, or removed because it isn't.
    removing: tokio::sync::Mutex<()>,
    /// Those that were there a moment ago.
    there: Arc<Mutex<Vec<Present>>>,
}

fn present(image: cri::messages::Image) -> Present {
    Present { names: [image.repo_digests, image.repo_tags].concat(), size: image.size }
}

/// The signal that asks a container of an image to end, if its maker named one: containerd and CRI-O show the image's own settings.
fn stop_signal(info: &Texts) -> Option<String> {
    let info: serde_json::Value = serde_json::from_str(info.get("info")?).ok()?;
    let signal = info["imageSpec"]["config"]["StopSignal"].as_str()?;
    Some(signal.to_owned()).filter(|signal| !signal.is_empty())
}

fn told(image: cri::messages::Image, info: &Texts) -> Arc<Image> {
    let user = image.uid.map(|uid| uid.value.to_string());
    Arc::new(Image {
        // As the kubelet, which starts containers by it: no name leads elsewhere meanwhile.
        digest: image.id.clone(),
        id: image.repo_digests.first().cloned().unwrap_or(image.id),
        size: image.size,
        user: user.unwrap_or(image.username),
        stop_signal: stop_signal(info),
        ..Image::default()
    })
}

fn fault(failure: &Failure) -> ImageError {
    ImageError::Other(failure.to_string())
}

fn reference(name: &str) -> Result<Reference, ImageError> {
    Reference::parse(name).map_err(|error| match error {
        // The agent says itself which name it is.
        images::Error::InvalidName { why, .. } => ImageError::Name(why),
        other => ImageError::Other(other.to_string()),
    })
}

fn keyring(name: &Reference, secrets: Vec<PullSecret>) -> Keyring {
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
    keyring
}

impl ForeignImages {
    async fn get(&self, name: &str) -> Result<Option<Arc<Image>>, ImageError> {
        let told_of = self.client.image_and_info(name).await.map_err(|failure| fault(&failure))?;
        // A runtime says nothing of an image that isn't there, or something empty.
        let found = told_of.image.filter(|image| !image.id.is_empty());
        Ok(found.map(|image| told(image, &told_of.info)))
    }

    /// Removes an image, unless a pod of this host has it; false if one has.
    ///
    /// # Errors
    /// If it isn't known whether one has. What the runtime says is inside.
    async fn remove(&self, client: &Client, image: &str) -> Result<Result<bool, Failure>, ImageError> {
        let _removing = self.removing.lock().await;
        let marks = node::images_in_use(&self.node_dir);
        let marks = marks.map_err(|why| {
            ImageError::Other(format!("can't tell which images the pods of this host have: {why}"))
        })?;
        if marks.contains(image) {
            return Ok(Ok(false));
        }
        Ok(client.remove_image(image).await.map(|()| true))
    }

    /// Removes what no container and no pod of this host uses, if the disk is fuller than `high` says. Which file system that is, the runtime tells.
    async fn remove_unused(&self, client: &Client, high: u8) -> Result<Option<String>, ImageError> {
        let fail = |failure: Failure| fault(&failure);
        let systems = client.image_file_systems().await.map_err(fail)?;
        let places = systems.into_iter().filter_map(|system| Some(PathBuf::from(system.fs_id?.mountpoint)));
        let places: Vec<PathBuf> = places.collect();
        if !places.iter().any(|place| fullness(place).is_some_and(|percent| percent >= high)) {
            return Ok(None);
        }
        // Older runtimes don't say of the image of sandboxes that it is pinned, and no container uses it.
        let settings = client.status().await.map_err(fail)?.info.remove("config").unwrap_or_default();
        let settings: serde_json::Value = serde_json::from_str(&settings).unwrap_or_default();
        let of_sandboxes = settings["sandboxImage"].as_str().map(str::to_owned);
        let used: Vec<String> = client
            .containers(Texts::new())
            .await
            .map_err(fail)?
            .into_iter()
            .flat_map(|container| [Some(container.image_ref), container.image.map(|image| image.image)])
            .flatten()
            .chain(of_sandboxes)
            .collect();
        let mut stays = None;
        for image in client.all_images().await.map_err(fail)? {
            let names = [&image.id].into_iter().chain(&image.repo_tags).chain(&image.repo_digests);
            if !image.pinned && !names.into_iter().any(|name| used.contains(name)) {
                match self.remove(client, &image.id).await? {
                    Ok(true) => tracing::info!(
                        image = image.id,
                        names = image.repo_tags.join(", "),
                        "an image that nobody uses was removed"
                    ),
                    Ok(false) => {}
                    // One that can't be removed keeps no other, as long as its runtime answers.
                    Err(failure) if failure.is_unknown() => return Err(fault(&failure)),
                    Err(failure) => _ = stays.get_or_insert(failure),
                }
            }
        }
        if let Some(failure) = stays {
            return Err(fail(failure));
        }
        let still =
            places.iter().find_map(|place| Some((place, fullness(place)?)).filter(|(_, full)| *full >= high));
        Ok(still.filter(|_| high > 0).map(|(place, percent)| {
            format!(
                "Failed to garbage collect required amount of images. {} is {percent} % full",
                place.display()
            )
        }))
    }
}

/// How full the file system is in percent that a folder lies on.
fn fullness(place: &Path) -> Option<u8> {
    let about = nix::sys::statvfs::statvfs(place).ok()?;
    let (all, free) = (about.blocks(), about.blocks_available());
    u8::try_from(all.checked_sub(free)?.checked_mul(100)?.checked_div(all)?).ok()
}

impl Images for ForeignImages {
    fn find(&self, name: &str) -> Result<Option<Arc<Image>>, ImageError> {
        let name = reference(name)?;
        Handle::current().block_on(self.get(&name.to_string()))
    }

    fn pull<'a>(
        &'a self,
        name: &'a str,
        secrets: Vec<PullSecret>,
    ) -> BoxFuture<'a, Result<Arc<Image>, ImageError>> {
        async move {
            let name = reference(name)?;
            let keys = keyring(&name, secrets).lookup(&name.name());
            let auth = |keys: images::Credentials| AuthConfig {
                username: keys.user,
                password: keys.password,
                ..AuthConfig::default()
            };
            // As the kubelet: each that fits, and nobody's name if none does.
            let mut tries: Vec<_> = keys.into_iter().map(|keys| Some(auth(keys))).collect();
            if tries.is_empty() {
                tries.push(None);
            }
            let mut last = ImageError::Other("nothing was tried".into());
            for auth in tries {
                match self.client.pull_image(&name.to_string(), auth).await {
                    Ok(made) => {
                        let found = self.get(&made).await?;
                        return found
                            .ok_or_else(|| ImageError::Other("the runtime lost what it pulled".into()));
                    }
                    Err(failure) => last = fault(&failure),
                }
            }
            Err(last)
        }
        .boxed()
    }

    fn folder(&self) -> PathBuf {
        PathBuf::from("/")
    }

    fn list(&self) -> Vec<Present> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The runtime keeps what its containers use, and this what pods have that have no containers yet.
    fn keep(&self, image: &Image, mark: &Path) -> Result<bool, ImageError> {
        let other = |why: std::io::Error| ImageError::Other(why.to_string());
        let kept = async {
            let _removing = self.removing.lock().await;
            fs::write(mark, &image.digest).map_err(other)?;
            self.get(&image.digest).await
        };
        Ok(Handle::current().block_on(kept)?.is_some())
    }

    fn collect(&self, _: Duration) -> Result<Option<String>, ImageError> {
        Handle::current().block_on(self.remove_unused(&self.client, Thresholds::default().high))
    }

    fn clear(&self, _: Duration) -> Result<(), ImageError> {
        Handle::current().block_on(self.remove_unused(&self.client.within(SHORT), 0)).map(drop)
    }
}

#[cfg(test)]
mod tests;
