//! The image of a container, as its pull policy has it. Words and reasons are the kubelet's (`pkg/kubelet/images`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use objects::Reader;
use tracing::info_span;

use super::PodHost;
use super::handler::Handler;
use crate::images::{Image, ImageError, Images, PullSecret};
use crate::pod::{NoImage, StartError, uid};

/// Why a container waits for its image.
fn failed(name: &str, error: &ImageError) -> StartError {
    let reason = match error {
        ImageError::Name(why) => {
            let message = format!(
                "Failed to apply default image tag {name:?}: couldn't parse image name {name:?}: {why}"
            );
            let event = ("InspectFailed", message.clone());
            let name = name.to_owned();
            return StartError::Image(NoImage { name, reason: "InvalidImageName", message, event });
        }
        ImageError::Unreachable(_) => "RegistryUnavailable",
        ImageError::Other(_) => "ErrImagePull",
    };
    let event = ("Failed", format!("Failed to pull image {name:?}: {error}"));
    StartError::Image(NoImage { name: name.to_owned(), reason, message: error.to_string(), event })
}

/// Adds what an image says of a container and its pod doesn't: how it is asked to end.
pub(super) fn complete(image: &Image, spec: &mut Container) {
    if let Some(signal) = &image.stop_signal {
        let lifecycle = spec.lifecycle.get_or_insert_default();
        lifecycle.stop_signal.get_or_insert_with(|| signal.clone());
    }
}

fn pull_secret(secret: Secret) -> Option<PullSecret> {
    let mut data = secret.data?;
    match secret.type_.as_deref()? {
        "kubernetes.io/dockerconfigjson" => {
            data.remove(".dockerconfigjson").map(|bytes| PullSecret::ConfigJson(bytes.0))
        }
        "kubernetes.io/dockercfg" => data.remove(".dockercfg").map(|bytes| PullSecret::Config(bytes.0)),
        _ => None,
    }
}

/// An image that a container needs.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    /// The container, for who reads its Events.
    container: &'a str,
    name: &'a str,
    policy: &'a str,
}

impl<'a> Asked<'a> {
    fn new(spec: &'a Container, name: Option<&'a str>, policy: Option<&'a str>) -> Self {
        Asked { container: &spec.name, name: name.unwrap_or_default(), policy: policy.unwrap_or_default() }
    }
}

impl PodHost {
    /// The image of a container: the one that is there, or one that is brought, as its policy says. Nobody removes it as long as
    /// the pod is there.
    ///
    /// # Errors
    /// Why it isn't there.
    pub(super) async fn image(&self, pod: &Pod, spec: &Container) -> Result<Arc<Image>, StartError> {
        let (name, policy) = (spec.image.as_deref(), spec.image_pull_policy.as_deref());
        let mark = self.folders.image_mark(uid(pod), &spec.name);
        self.kept(pod, Asked::new(spec, name, policy), mark).await
    }

    /// Likewise the images that are volumes which a container mounts, by the volumes' names.
    ///
    /// # Errors
    /// Why one isn't there.
    pub(super) async fn image_volumes(
        &self,
        pod: &Pod,
        spec: &Container,
    ) -> Result<Vec<(String, Arc<Image>)>, StartError> {
        let mut found = Vec::new();
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        for volume in volumes {
            let mut mounts = spec.volume_mounts.iter().flatten();
            if let Some(source) = &volume.image
                && mounts.any(|mount| mount.name == volume.name)
            {
                let asked = Asked::new(spec, source.reference.as_deref(), source.pull_policy.as_deref());
                let mark = self.folders.volume_mark(uid(pod), &volume.name);
                found.push((volume.name.clone(), self.kept(pod, asked, mark).await?));
            }
        }
        Ok(found)
    }

    /// The images of what runs a pod.
    fn images_of(&self, pod: &Pod) -> Result<Arc<dyn Images>, String> {
        match (self.handler(pod, &self.store.snapshot())?, &self.foreign_images) {
            (Handler::Foreign, Some(images)) => Ok(images.clone()),
            _ => self.containers.clone(),
        }
    }

    async fn kept(&self, pod: &Pod, asked: Asked<'_>, mark: PathBuf) -> Result<Arc<Image>, StartError> {
        loop {
            let image = self.found_or_pulled(pod, asked).await?;
            if self.keep(pod, asked.container, image.clone(), mark.clone()).await? {
                return Ok(image);
            }
            // It was removed between the two.
        }
    }

    async fn keep(
        &self,
        pod: &Pod,
        container: &str,
        image: Arc<Image>,
        mark: PathBuf,
    ) -> Result<bool, StartError> {
        let failed = |why: String| StartError::Run(format!("can't keep its image from being removed: {why}"));
        let images = self.images_of(pod).map_err(failed)?;
        let work = tasks::blocking(info_span!("keep an image", container), move || {
            if let Some(folder) = mark.parent() {
                std::fs::create_dir_all(folder).map_err(|why| why.to_string())?;
            }
            images.keep(&image, &mark).map_err(|why| why.to_string())
        });
        work.await.unwrap_or_else(|why| Err(why.to_string())).map_err(failed)
    }

    async fn found_or_pulled(&self, pod: &Pod, asked: Asked<'_>) -> Result<Arc<Image>, StartError> {
        let Asked { container, policy, .. } = asked;
        let name = asked.name.to_owned();
        let images = self.images_of(pod).map_err(|why| failed(&name, &ImageError::Other(why)))?;
        if policy != "Always" {
            let (of, find) = (name.clone(), images.clone());
            let found = tasks::blocking(info_span!("find an image", name), move || find.find(&of)).await;
            let found = found.unwrap_or_else(|why| Err(ImageError::Other(why.to_string())));
            if let Some(image) = found.map_err(|error| failed(&name, &error))? {
                let message = format!("Container image {name:?} already present on machine");
                self.tell(pod, Some(container), false, "Pulled", message);
                return Ok(image);
            }
        }
        if policy == "Never" {
            let message = format!("Container image {name:?} is not present with pull policy of Never");
            let reason = "ErrImageNeverPull";
            let event = (reason, message.clone());
            return Err(StartError::Image(NoImage { name, reason, event, message }));
        }
        self.tell(pod, Some(container), false, "Pulling", format!("Pulling image {name:?}"));
        let begun = self.clock.now().elapsed;
        let (secrets, missing) = self.pull_secrets(pod);
        if !missing.is_empty() {
            let message = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.tell(pod, None, true, "FailedToRetrieveImagePullSecret", message);
        }
        let image = images.pull(&name, secrets).await;
        let image = image.map_err(|error| failed(&name, &error))?;
        let took = (self.clock.now().elapsed - begun).as_millis();
        // To the millisecond, as the kubelet rounds it.
        let took = Duration::from_millis(u64::try_from(took).unwrap_or(u64::MAX));
        let message = format!(
            "Successfully pulled image {name:?} in {took:?} ({took:?} including waiting). Image size: {} bytes.",
            image.size
        );
        self.tell(pod, Some(container), false, "Pulled", message);
        Ok(image)
    }

    /// The pod's `imagePullSecrets`, and the names of those that aren't there. One of another type opens nothing.
    fn pull_secrets(&self, pod: &Pod) -> (Vec<PullSecret>, Vec<String>) {
        let state = self.store.snapshot();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let (mut secrets, mut missing) = (Vec::new(), Vec::new());
        for named in pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
            match Reader::<Secret>::get(&state, namespace, &named.name) {
                Some(secret) => secrets.extend(pull_secret(secret)),
                None => missing.push(named.name.clone()),
            }
        }
        (secrets, missing)
    }

    /// As [`complete`], for a container that a former agent started.
    pub(super) fn complete_from_image(&self, pod: &Pod, spec: &mut Container) {
        if self.handler(pod, &self.store.snapshot()) != Ok(Handler::Oci) {
            return;
        }
        let Ok(images) = &self.containers else { return };
        if let Ok(Some(image)) = images.find(spec.image.as_deref().unwrap_or_default()) {
            complete(&image, spec);
        }
    }
}
