//! The sandboxes that a runtime of others has for this host's pods: one a pod, found by its labels.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cri::messages::{PodSandbox, PodSandboxState, PodSandboxStatusResponse, Texts};
use cri::{Client, Failure};
use nix::sys::statfs::{FsType, fstatfs};
use serde_json::Value;

use super::cni::MARK;
use super::runtime::system;
use super::{POD_UID, Sandbox};
use crate::runtime::RunError;

/// How long it is waited before what failed is tried again that must be done.
const AGAIN: Duration = Duration::from_secs(1);
/// linux/magic.h: the file system of namespaces.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// The sandbox of one pod.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// What the runtime calls it, once it is there.
    pub id: Option<String>,
    /// The number that the next one has: one that nobody knows of may have the last.
    next: u32,
}

/// Those of one host.
#[derive(Debug)]
pub(super) struct Sandboxes {
    client: Client,
    labels: Texts,
    all: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Held>>>>,
}

fn is_ready(sandbox: &PodSandbox) -> bool {
    sandbox.state == PodSandboxState::Ready as i32
}

fn attempt(sandbox: &PodSandbox) -> u32 {
    sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt)
}

/// Which of a pod's sandboxes is its one: the last that is ready.
fn newest(all: &[PodSandbox]) -> Option<&PodSandbox> {
    all.iter()
        .filter(|sandbox| is_ready(sandbox))
        .max_by_key(|sandbox| (attempt(sandbox), sandbox.created_at))
}

impl Sandboxes {
    /// Those that have these labels.
    pub(super) fn new(client: Client, labels: Texts) -> Self {
        Sandboxes { client, labels, all: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<Held>>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods that have one, or are about to.
    pub(super) fn uids(&self) -> Vec<String> {
        self.all().keys().cloned().collect()
    }

    pub(super) fn has(&self, uid: &str) -> bool {
        self.all().contains_key(uid)
    }

    fn of(&self, uid: &str) -> Arc<tokio::sync::Mutex<Held>> {
        self.all().entry(uid.to_owned()).or_default().clone()
    }

    /// The place of a pod's sandbox, for one who changes it.
    async fn hold(&self, uid: &str) -> tokio::sync::OwnedMutexGuard<Held> {
        loop {
            let place = self.of(uid);
            let held = place.clone().lock_owned().await;
            // Who held it before may have ended the pod, and so taken the place away.
            if self.known(uid).is_some_and(|known| Arc::ptr_eq(&known, &place)) {
                return held;
            }
        }
    }

    fn known(&self, uid: &str) -> Option<Arc<tokio::sync::Mutex<Held>>> {
        self.all().get(uid).cloned()
    }

    /// Labels of all that a pod has here.
    pub(super) fn labels(&self, uid: &str) -> Texts {
        let mut labels = self.labels.clone();
        labels.insert(POD_UID.into(), uid.to_owned());
        labels
    }

    /// One that a former agent made.
    pub(super) async fn take_over(&self, uid: &str, id: String) {
        self.hold(uid).await.id = Some(id);
    }

    /// What the runtime calls the sandbox of a pod.
    pub(super) async fn id(&self, uid: &str) -> Option<String> {
        self.known(uid)?.lock().await.id.clone()
    }

    /// A pod's sandbox: the one that is there, or a new one. What is there beside it is removed.
    pub(super) async fn make(&self, uid: &str, wanted: &Sandbox) -> Result<String, RunError> {
        let mut held = self.hold(uid).await;
        held.id = None;
        let there = self.client.pod_sandboxes(self.labels(uid)).await.map_err(system)?;
        let kept = newest(&there).map(|sandbox| sandbox.id.clone());
        for old in there.iter().filter(|sandbox| Some(&sandbox.id) != kept.as_ref()) {
            self.remove(&old.id).await.map_err(system)?;
        }
        let last = there.iter().map(attempt).max();
        held.next = held.next.max(last.map_or(0, |last| last.saturating_add(1)));
        let id = match kept {
            Some(id) => id,
            None => {
                let mut config = wanted.config.clone();
                config.labels.extend(self.labels(uid));
                if let Some(metadata) = &mut config.metadata {
                    metadata.attempt = held.next;
                }
                // One that takes too long keeps its name: the next one has another.
                held.next = held.next.saturating_add(1);
                self.client.run_pod_sandbox(config, wanted.handler.clone()).await.map_err(system)?
            }
        };
        if wanted.network {
            let status = self.client.pod_sandbox_status(&id).await.map_err(system)?;
            if let Err(why) = is_untouched(&status) {
                self.remove(&id).await.map_err(system)?;
                return Err(system(why));
            }
        }
        held.id = Some(id.clone());
        Ok(id)
    }

    async fn remove(&self, id: &str) -> Result<(), Failure> {
        self.client.stop_pod_sandbox(id).await?;
        self.client.remove_pod_sandbox(id).await
    }

    /// Ends all that a pod has in the runtime, and returns once it is gone: until then it is not known to be.
    pub(super) async fn end(&self, uid: &str) {
        // One that is being made is waited for, and none is made meanwhile.
        let _held = self.hold(uid).await;
        let mut is_told = false;
        loop {
            match self.end_once(uid).await {
                Ok(()) => break,
                Err(failure) if !is_told => {
                    is_told = true;
                    tracing::warn!(uid, %failure, "a pod's sandbox can't be removed yet");
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.all().remove(uid);
    }

    async fn end_once(&self, uid: &str) -> Result<(), Failure> {
        for sandbox in self.client.pod_sandboxes(self.labels(uid)).await? {
            self.remove(&sandbox.id).await?;
        }
        Ok(())
    }

    /// All that the runtime has for this host: what a pod's newest one is, if it can be taken over. What can't is removed.
    pub(super) async fn found(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut by_pod: HashMap<String, Vec<PodSandbox>> = HashMap::new();
        for sandbox in self.client.pod_sandboxes(self.labels.clone()).await? {
            let uid = sandbox.labels.get(POD_UID).cloned().unwrap_or_default();
            by_pod.entry(uid).or_default().push(sandbox);
        }
        let mut found = Vec::new();
        for (uid, all) in by_pod {
            // The machine was off, or the sandbox's own process died: the pod begins anew.
            let kept = newest(&all).map(|sandbox| sandbox.id.clone());
            for old in all.iter().filter(|sandbox| Some(&sandbox.id) != kept.as_ref()) {
                if let Err(failure) = self.remove(&old.id).await {
                    tracing::warn!(uid, %failure, "what is left of a pod's former sandbox can't be removed");
                }
            }
            found.extend(kept.map(|id| (uid, id)));
        }
        Ok(found)
    }

    /// The network namespace of a pod's sandbox.
    pub(super) async fn network(&self, uid: &str) -> Option<OwnedFd> {
        let id = self.id(uid).await?;
        let status = self.client.pod_sandbox_status(&id).await.ok()?;
        let of_host = std::fs::read_link("/proc/self/ns/net").ok();
        networks(&status).into_iter().find_map(|path| {
            // One that is entered by its process is the host's if the pod has that.
            let is_of_host = std::fs::read_link(&path).is_ok_and(|link| Some(link) == of_host);
            let file = File::open(path).ok().filter(|_| !is_of_host)?;
            let is_namespace = fstatfs(&file).is_ok_and(|about| about.filesystem_type() == NSFS_MAGIC);
            is_namespace.then(|| OwnedFd::from(file))
        })
    }
}

/// Whether no other network was laid into a sandbox than ours will be.
fn is_untouched(status: &PodSandboxStatusResponse) -> Result<(), String> {
    let network = status.status.as_ref().and_then(|status| status.network.as_ref());
    match network.map(|network| network.ip.as_str()) {
        Some(MARK) => Ok(()),
        other => Err(format!(
            "the runtime gave the pod a network of another's (address {:?}), where Holdfast lays its own: have it take the network \
             \"holdfast\" first, in its folder of CNI networks",
            other.unwrap_or_default()
        )),
    }
}

/// Where a sandbox's network namespace may be had: as its runtime tells it (containerd's and CRI-O's `info`).
fn networks(status: &PodSandboxStatusResponse) -> Vec<String> {
    let info: Value =
        status.info.get("info").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
    let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
    let named = network.and_then(|network| network["path"].as_str()).filter(|path| path.starts_with('/'));
    let pid = info["pid"].as_i64().filter(|pid| *pid > 1);
    named.map(str::to_owned).into_iter().chain(pid.map(|pid| format!("/proc/{pid}/ns/net"))).collect()
}

#[cfg(test)]
mod tests {
    use cri::messages::{PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxStatus};

    use super::*;

    fn sandbox(id: &str, attempt: u32, state: PodSandboxState) -> PodSandbox {
        let metadata = PodSandboxMetadata { attempt, ..PodSandboxMetadata::default() };
        PodSandbox { id: id.into(), metadata: Some(metadata), state: state as i32, ..PodSandbox::default() }
    }

    #[test]
    fn a_pods_sandbox_is_the_last_that_is_ready() {
        use PodSandboxState::{NotReady, Ready};
        let all = [sandbox("a", 0, Ready), sandbox("b", 2, NotReady), sandbox("c", 1, Ready)];
        assert_eq!(newest(&all).unwrap().id, "c");
        assert!(newest(&all[1..2]).is_none() && newest(&[]).is_none());
    }

    #[test]
    fn a_network_of_anothers_is_refused() {
        let of = |ip: Option<&str>| {
            let network = ip.map(|ip| PodSandboxNetworkStatus { ip: ip.into() });
            let status = PodSandboxStatus { network, ..PodSandboxStatus::default() };
            is_untouched(&PodSandboxStatusResponse {
                status: Some(status),
                ..PodSandboxStatusResponse::default()
            })
        };
        assert!(of(Some(MARK)).is_ok());
        assert!(of(Some("10.88.0.3")).unwrap_err().contains("\"10.88.0.3\"") && of(None).is_err());
    }

    #[test]
    fn a_sandboxes_network_is_where_its_runtime_says() {
        let of = |text: &str| {
            let info = Texts::from([("info".to_owned(), text.to_owned())]);
            networks(&PodSandboxStatusResponse { status: None, info })
        };
        let told = r#"{"pid": 7, "runtimeSpec": {"linux": {"namespaces":
            [{"type": "pid"}, {"type": "network", "path": "/run/netns/x"}]}}}"#;
        assert_eq!(of(told), ["/run/netns/x", "/proc/7/ns/net"]);
        for odd in [
            "",
            "[",
            "{}",
            r#"{"pid": -1}"#,
            r#"{"pid": 1, "runtimeSpec": {"linux": {"namespaces": [{"type": "network", "path": "x"}]}}}"#,
        ] {
            assert_eq!(of(odd), [""; 0], "{odd}");
        }
    }
}
