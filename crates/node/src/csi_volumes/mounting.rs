//! A pod's volumes are mounted: attached, staged once for the host, published for the pod, and given to the pod's group.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use csi::messages::Texts;
use csi::{Capabilities, Driver, Failure, Publish, Stage};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use objects::TokenRequest;
use serde_json::{Value, json};
use tracing::info_span;

use super::book::{Place, Staged};
use super::disk::{self, Record};
use super::wish::SecretName;
use super::{CsiVolumes, Wish};
use crate::container::{Missing, give_to_group, secret};
use crate::pod::uid;

/// How long until a driver that failed is asked again; it doubles up to the last one (`goroutinemap/exponentialbackoff`).
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(122);
/// Where a driver finds the tokens of the pod's account.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// A volume that is asked for, and the driver that was found for it.
pub(super) struct Mount<'a> {
    pub wish: &'a Wish,
    pub place: Place,
    pub driver: Driver,
    pub can: Capabilities,
    pub publish_context: Texts,
}

impl CsiVolumes {
    /// Mounts a pod's volumes; those that are mounted already stay as they are.
    ///
    /// # Errors
    /// The first volume's that isn't mounted. It may be tried again at once: drivers that failed are given time here.
    pub(crate) async fn mount(&self, pod: &Pod, wishes: &[Wish]) -> Result<(), Missing> {
        let places: Vec<Place> =
            wishes.iter().map(|wish| Place { uid: uid(pod).to_owned(), name: wish.name.clone() }).collect();
        {
            let mut book = self.book();
            for (wish, place) in wishes.iter().zip(&places) {
                book.begin(place.clone(), &wish.id, wish.attachment.is_some());
            }
        }
        let generation = self.say_in_use();
        // All of them: one that hangs keeps no other from being mounted.
        let mut mounting = Vec::with_capacity(wishes.len());
        for (wish, place) in wishes.iter().zip(places) {
            mounting.push(self.mount_unless_done(pod, wish, place, generation));
        }
        join_all(mounting).await.into_iter().collect()
    }

    async fn mount_unless_done(
        &self,
        pod: &Pod,
        wish: &Wish,
        place: Place,
        generation: u64,
    ) -> Result<(), Missing> {
        if self.book().uses.get(&place).is_some_and(|known| known.is_done) {
            return Ok(());
        }
        self.wait_after_failure(pod, &place).await?;
        let mounted = self.mount_one(pod, wish, &place, generation).await;
        self.ended(&place, mounted.is_ok());
        mounted
    }

    /// A driver that failed isn't asked again at once.
    async fn wait_after_failure(&self, pod: &Pod, place: &Place) -> Result<(), Missing> {
        let not_before = self.book().uses.get(place).map_or(Duration::ZERO, |known| known.not_before);
        if self.clock.now().elapsed >= not_before {
            return Ok(());
        }
        let mut arrivals = self.arrivals.subscribe();
        tokio::select! {
            () = tokio::time::sleep_until(self.clock.instant(not_before)) => Ok(()),
            // It may be the one that was missing.
            _ = arrivals.changed() => Ok(()),
            () = self.unwanted(pod) => Err(to_end()),
        }
    }

    fn ended(&self, place: &Place, well: bool) {
        let now = self.clock.now().elapsed;
        if let Some(known) = self.book().uses.get_mut(place) {
            known.is_done = well;
            known.published = now;
            known.failures = if well { 0 } else { known.failures.saturating_add(1) };
            let wait = FIRST_RETRY * 2_u32.pow(known.failures.saturating_sub(1).min(8));
            known.not_before = if well { Duration::ZERO } else { now + wait.min(LAST_RETRY) };
        }
    }

    async fn mount_one(&self, pod: &Pod, wish: &Wish, place: &Place, generation: u64) -> Result<(), Missing> {
        let publish_context = match &wish.attachment {
            Some(attachment) => self.attached(pod, wish, attachment, generation).await?,
            None => Texts::new(),
        };
        let turn = self.book().turn(&wish.id);
        let _turn = turn.lock().await;
        // What nobody knows of, nobody unmounts. A use ends within a turn: from here on it stays.
        if !self.book().uses.contains_key(place) {
            return Err(to_end());
        }
        let set_up = |why: &dyn Display| failed("SetUp", wish, why);
        let driver = self.driver(&wish.id.driver).map_err(|why| {
            set_up(&format_args!("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: {why}"))
        })?;
        let can = driver.capabilities().await.map_err(|why| set_up(&why))?;
        let mount = Mount { wish, place: place.clone(), driver, can, publish_context };
        if mount.is_staged() {
            self.stage(&mount).await?;
        }
        let publish = self.publish(pod, &mount).await?;
        if let Some(group) = wish.group.filter(|_| !can.gives_to_group) {
            let (target, on_mismatch) = (publish.target.clone(), wish.on_mismatch);
            let span = info_span!("give a volume to a group", volume = wish.name);
            let given = tasks::blocking(span, move || give_to_group(&target, group, on_mismatch)).await;
            let given = given.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            given.map_err(|why| {
                set_up(&format_args!("applyFSGroup failed for vol {}: {why}", wish.id.handle))
            })?;
        }
        Ok(())
    }

    /// The driver of this name.
    pub(super) fn driver(&self, name: &str) -> Result<Driver, String> {
        let known = self.book().drivers.get(name).cloned();
        known.ok_or_else(|| format!("driver name {name} not found in the list of registered CSI drivers"))
    }

    async fn stage(&self, mount: &Mount<'_>) -> Result<(), Missing> {
        let wish = mount.wish;
        if self.book().staged.get(&wish.id).is_some_and(|staged| staged.is_done) {
            return Ok(());
        }
        let failed = |why: &dyn Display| failed("MountDevice", wish, why);
        let secrets =
            self.secrets("NodeStageSecretRef", wish.stage_secret.as_ref()).map_err(|why| failed(&why))?;
        let stage = Stage { secrets, ..self.as_asked(mount) };
        // From here on, and over a crash, it has to be unstaged.
        let staged = Staged { is_attached: wish.attachment.is_some(), is_done: false };
        self.book().staged.insert(wish.id.clone(), staged);
        disk::record_staged(&self.folders, &wish.id, &self.record(wish)).map_err(|why| failed(&why))?;
        mount.driver.stage(&stage, mount.can).await.map_err(|why| failed(&why))?;
        self.book().staged.insert(wish.id.clone(), Staged { is_done: true, ..staged });
        Ok(())
    }

    /// Publishes a volume for its pod, for the first time or once more.
    pub(super) async fn publish(&self, pod: &Pod, mount: &Mount<'_>) -> Result<Publish, Missing> {
        let wish = mount.wish;
        let failed = |why: &dyn Display| failed("SetUp", wish, why);
        let mut stage = self.as_asked(mount);
        stage.secrets =
            self.secrets("NodePublishSecretRef", wish.publish_secret.as_ref()).map_err(|why| failed(&why))?;
        stage.volume_context.extend(wish.about_pod.clone());
        if !wish.tokens.is_empty() {
            let tokens = self.tokens(pod, wish).await.map_err(|why| failed(&why))?;
            let into = if wish.tokens_are_secret { &mut stage.secrets } else { &mut stage.volume_context };
            into.insert(TOKENS.to_owned(), tokens);
        }
        // From here on, and over a crash, it has to be unpublished.
        disk::record_use(&self.folders, &mount.place, &self.record(wish)).map_err(|why| failed(&why))?;
        if let Some(known) = self.book().uses.get_mut(&mount.place) {
            known.is_recorded = true;
        }
        let target = disk::target(&self.folders, &mount.place);
        let publish = Publish { stage, target, read_only: wish.read_only };
        let published: Result<(), Failure> = mount.driver.publish(&publish, mount.can).await;
        published.map_err(|why| failed(&why))?;
        // Else the pod would write to the host's own disk, and nobody would notice.
        if !is_mounted(&publish.target) {
            return Err(failed(&format_args!(
                "driver {} says that it published the volume, and nothing is mounted at {}: it must mount in the host's mount namespace",
                wish.id.driver,
                publish.target.display()
            )));
        }
        Ok(publish)
    }

    /// What is the same for staging and publishing, without secrets.
    pub(super) fn as_asked(&self, mount: &Mount<'_>) -> Stage {
        let wish = mount.wish;
        Stage {
            volume: wish.id.handle.clone(),
            publish_context: mount.publish_context.clone(),
            volume_context: wish.context.clone(),
            secrets: Texts::new(),
            staged_at: mount.is_staged().then(|| disk::staged(&self.folders, &wish.id)),
            fs_type: wish.fs_type.clone(),
            mount_options: wish.mount_options.clone(),
            group: wish.group_for_driver.filter(|_| mount.can.gives_to_group),
            access_mode: wish.access_modes.first().cloned().unwrap_or_default(),
        }
    }

    fn record(&self, wish: &Wish) -> Record {
        Record {
            volume: wish.name.clone(),
            volume_handle: wish.id.handle.clone(),
            driver_name: wish.id.driver.clone(),
            node_name: self.name.clone(),
            attachment: wish.attachment.clone().unwrap_or_default(),
            volume_lifecycle_mode: if wish.is_ephemeral { "Ephemeral" } else { "Persistent" }.into(),
        }
    }

    /// What is in a Secret, for a driver.
    pub(super) fn secrets(&self, what: &str, named: Option<&SecretName>) -> Result<Texts, String> {
        let Some((namespace, name)) = named else { return Ok(Texts::new()) };
        let failed = |why: &dyn Display| format!("fetching {what} {namespace}/{name} failed: {why}");
        let found = secret(&self.store.snapshot(), namespace, name, None).map_err(|why| failed(&why))?;
        let text = |(key, value): (String, Vec<u8>)| match String::from_utf8(value) {
            Ok(value) => Ok((key, value)),
            Err(_) => Err(failed(&format_args!("the value of {key:?} is no text"))),
        };
        found.into_iter().map(text).collect()
    }

    /// Tokens of the pod's account, as drivers read them: by audience, each with the end of its time.
    async fn tokens(&self, pod: &Pod, wish: &Wish) -> Result<String, String> {
        let mut tokens = serde_json::Map::new();
        for (audience, seconds) in &wish.tokens {
            let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
            let request = TokenRequest {
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                account: account.unwrap_or_else(|| "default".into()),
                audience: audience.clone(),
                seconds: *seconds,
                pod: pod.metadata.name.clone().unwrap_or_default(),
                pod_uid: uid(pod).to_owned(),
            };
            let token = self.writer.token(&self.user(), request).await;
            let token =
                token.map_err(|why| format!("failed to get service account token attributes: {why}"))?;
            tokens.insert(audience.clone(), json!({"expirationTimestamp": ends(&token), "token": token}));
        }
        Ok(Value::Object(tokens).to_string())
    }
}

impl Mount<'_> {
    /// Whether the volume is staged before it is published: a pod's own never is.
    pub fn is_staged(&self) -> bool {
        self.can.stages && !self.wish.is_ephemeral
    }
}

/// When a token ends, as it says itself.
fn ends(token: &str) -> Option<String> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let ends = jiff::Timestamp::from_second(claims["exp"].as_i64()?).ok()?;
    Some(crate::clock::rfc3339(ends))
}

/// Why nothing more is mounted for a pod.
pub(super) fn to_end() -> Missing {
    Missing("the pod is to end".into())
}

fn failed(what: &str, wish: &Wish, why: &dyn Display) -> Missing {
    Missing(format!("MountVolume.{what} failed for volume {:?} : {why}", wish.name))
}

/// Whether something is mounted right at a path, as far as this process sees.
fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // The kernel writes what separates fields as octal numbers.
    let escaped = path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040");
    mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|place| place == escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_seen() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/self")));
    }

    #[test]
    fn a_token_says_when_it_ends() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":1800000000}"#);
        assert_eq!(ends(&format!("head.{claims}.sum")).as_deref(), Some("2027-01-15T08:00:00Z"));
        assert_eq!(ends("no token"), None);
    }
}
