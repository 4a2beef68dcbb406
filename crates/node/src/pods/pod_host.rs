//! What every pod of this host shares, and what a pod has beside its processes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, ObjectReference, Pod};
use membership::lease::Epoch;
use objects::{MIRROR, Occurrence, Reader, Recorder, Writer};
use store::{State, Store};
use tokio::sync::watch;
use tracing::info_span;

use super::handler::Handler;
use super::{
    Folders, LiveContainers, PodTokens, Residents, StaticBook, StaticRecords, TokenBook, UserRanges,
};
use crate::addresses::{Addresses, PodAddresses};
use crate::agent::{HostLease, ShutdownGroup};
use crate::clock::Clock;
use crate::container::{
    Missing, Sources, end_leftovers, folder_owner, materialise, refresh, write_name_files,
};
use crate::csi_volumes::{CsiVolumes, Wish, wishes};
use crate::eviction::Pressures;
use crate::host::Powers;
use crate::images::Images;
use crate::oci::HostAppArmor;
use crate::pod::{PrepareError, ephemeral_containers, subject, uid};
use crate::runtime::{RunError, Runtime, Shape};
use crate::stats::{Rates, StorageBook};

/// What every pod of this host shares.
pub(crate) struct PodHost {
    pub name: String,
    pub address: IpAddr,
    pub store: Arc<dyn Store>,
    pub writer: Arc<dyn Writer>,
    pub network: Arc<dyn PodAddresses>,
    /// Why containers' pods share the host's network, if they have none of their own here.
    pub own_networks: Result<(), String>,
    pub addresses: Mutex<Addresses>,
    pub folders: Folders,
    pub recorder: Recorder,
    pub clock: Clock,
    pub powers: Powers,
    /// The images of containers with a root of their own, or why this host runs none.
    pub containers: Result<Arc<dyn Images>, String>,
    pub app_armor: HostAppArmor,
    /// The images of the runtime of others, if this host has one.
    pub foreign_images: Option<Arc<dyn Images>>,
    pub user_ranges: UserRanges,
    /// The folder that comes first on the pods' PATH.
    pub programs: PathBuf,
    pub runtime: Arc<dyn Runtime>,
    /// This host's lease, where it has one.
    pub lease: Option<HostLease>,
    /// The epoch in which this host may run what must not run twice: it holds it, and its Node says so.
    pub registered: watch::Receiver<Option<Epoch>>,
    pub running: LiveContainers,
    pub residents: Residents,
    /// In which order its pods end as it shuts down.
    pub shutdown: Vec<ShutdownGroup>,
    /// Whether it is shutting down.
    pub closing: watch::Sender<bool>,
    /// The pods of its own manifests.
    pub static_pods: StaticBook,
    /// What is known of them on the disk.
    pub static_records: StaticRecords,
    pub tokens: TokenBook,
    /// What pods take of the disk.
    pub storage: StorageBook,
    /// What they take of the processors.
    pub rates: Rates,
    /// What the host is short of.
    pub pressures: watch::Receiver<Pressures>,
    /// What storage drivers mount.
    pub csi: Arc<CsiVolumes>,
    /// Processors in thousandths, memory in bytes.
    pub capacity: (u64, u64),
    /// The addresses of the cluster's DNS.
    pub cluster_dns: Vec<IpAddr>,
    /// Variables of every container.
    pub variables: Vec<(String, String)>,
}

/// How long after one that failed the removal of a pod's folder is tried again; then what is left stays until its object goes.
const REMOVE_AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5)];

/// The machine's host name.
pub(super) fn machine_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_default()
}

/// The hash of the static pod that a pod mirrors, if it is a mirror.
pub(super) fn mirrored(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(MIRROR).map(String::as_str)
}

impl PodHost {
    /// The agent's name as a user.
    pub(crate) fn user(&self) -> String {
        format!("system:node:{}", self.name)
    }

    /// Has an Event written of a pod, or of a container of it. Never waits.
    pub(crate) fn tell(
        &self,
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let mut occurrence = Occurrence::of(pod, warning, reason, message);
        occurrence.regarding.field_path = container.map(|name| {
            let mut init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
            let list = match () {
                () if init.any(|c| c.name == name) => "initContainers",
                () if ephemeral_containers(pod).any(|c| c.name == name) => "ephemeralContainers",
                () => "containers",
            };
            format!("spec.{list}{{{name}}}")
        });
        self.recorder.record(occurrence);
    }

    /// Has a Warning about the host itself written. Never waits.
    pub(crate) fn tell_of_node(&self, reason: &'static str, message: String) {
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(self.name.clone()),
            // As the kubelet names a node in its Events.
            uid: Some(self.name.clone()),
            ..ObjectReference::default()
        };
        self.recorder.record(Occurrence { regarding, warning: true, reason, message });
    }

    /// The pod of that name in the API, if it is on this host. The mirror of a static pod has the uid by which that one runs here.
    pub(crate) fn pod_here(&self, namespace: &str, name: &str) -> Option<Pod> {
        let mut pod = Reader::<Pod>::get(&self.store.snapshot(), namespace, name)?;
        if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(&self.name) {
            return None;
        }
        // What the mirror says doesn't count: a user who may make pods can write that.
        if mirrored(&pod).is_some()
            && let Some(uid) = self.static_pods.get(objects::key("", "pods", namespace, name).as_bytes())
        {
            pod.metadata.uid = Some(uid);
        }
        Some(pod)
    }

    pub(crate) fn sources<'a>(
        &'a self,
        state: &'a State,
        pod: &'a Pod,
        pod_address: IpAddr,
        tokens: &'a PodTokens,
    ) -> Sources<'a> {
        Sources {
            state,
            pod,
            pod_address,
            host_address: self.address,
            capacity: self.capacity,
            volumes: self.folders.volumes(),
            tokens,
        }
    }

    /// Makes a pod's folder, volumes, address and sandbox, which stops with the host's lease if the pod must not run twice.
    pub(crate) async fn prepare(
        self: Arc<Self>,
        pod: Arc<Pod>,
        is_single: bool,
    ) -> Result<IpAddr, PrepareError> {
        // Before anything is mounted for it: another host may have its volumes. And again, since that may have taken longer than the lease.
        self.epoch_for(&pod, is_single).await.map_err(PrepareError::Lease)?;
        let address = self.clone().furnish(pod.clone()).await?;
        let epoch = self.epoch_for(&pod, is_single).await.map_err(PrepareError::Lease)?;
        self.runtime.bind(uid(&pod), epoch);
        let wanted = self.wanted_sandbox(&pod).map_err(PrepareError::Sandbox)?;
        self.hold(&pod, wanted, address).await.map_err(|why| match why {
            RunError::Lease(why) => PrepareError::Lease(why),
            why => PrepareError::Sandbox(why.to_string()),
        })?;
        Ok(address)
    }

    /// Makes a pod's folder, volumes and address.
    async fn furnish(self: Arc<Self>, pod: Arc<Pod>) -> Result<IpAddr, PrepareError> {
        if pod.spec.iter().any(|spec| spec.resource_claims.iter().flatten().next().is_some()) {
            return Err(PrepareError::Devices);
        }
        let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let address = if on_host { self.address } else { self.pod_address(&pod).await? };
        let asked = self.csi_wishes(&pod, address);
        let mounted = match asked {
            Ok(wishes) => self.csi.mount(&pod, &wishes).await,
            Err(missing) => Err(missing),
        };
        mounted.map_err(|missing| PrepareError::Files(missing.to_string()))?;
        let host = self.clone();
        let renewed = self.renew_tokens(&pod).await;
        let work = tasks::blocking(info_span!("make files", pod = subject(&pod)), move || {
            let files = |why: &dyn std::fmt::Display| PrepareError::Files(why.to_string());
            renewed.map_err(|missing| files(&missing))?;
            let (state, tokens) = (host.store.snapshot(), host.tokens.of(&pod));
            let chown = nix::unistd::geteuid().is_root();
            let (owner, group) = if chown { folder_owner(&pod) } else { (None, None) };
            host.folders.make(uid(&pod), owner, group).map_err(|why| files(&why))?;
            let folder = host.folders.pod(uid(&pod));
            let name = match host.wanted_sandbox(&pod).map_err(PrepareError::Sandbox)? {
                Shape::Process => None,
                Shape::Own(wanted) => Some(wanted.hostname.unwrap_or_else(machine_name)),
                Shape::Foreign(wanted) => Some(
                    Some(wanted.config.hostname).filter(|name| !name.is_empty()).unwrap_or_else(machine_name),
                ),
            };
            let names = write_name_files(&folder, &pod, address, &host.cluster_dns, name.as_deref());
            for (reason, message) in names.map_err(|why| files(&why))? {
                host.tell(&pod, None, true, reason, message);
            }
            materialise(&folder, host.sources(&state, &pod, address, &tokens)).map_err(|why| files(&why))
        });
        let made = work.await.unwrap_or_else(|error| Err(PrepareError::Files(error.to_string())));
        made.map(|()| address)
    }

    /// Makes the address of a pod that runs already this host's again, and brings its files from objects up to date. What else
    /// it has stays as it left it: volumes above all, in which it works.
    pub(super) async fn take_again(self: Arc<Self>, pod: Arc<Pod>) -> Result<(), PrepareError> {
        self.csi.adopt(&pod);
        let on_host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let address = if on_host { self.address } else { self.pod_address(&pod).await? };
        let wanted = self.wanted_sandbox(&pod).map_err(PrepareError::Sandbox)?;
        self.hold(&pod, wanted, address).await.map_err(|why| PrepareError::Sandbox(why.to_string()))?;
        let renewed = self.renew_tokens(&pod).await;
        let host = self.clone();
        let work = tasks::blocking(info_span!("write files", pod = subject(&pod)), move || {
            renewed.and_then(|()| host.refresh(&pod, address)).map_err(|missing| missing.to_string())
        });
        work.await.unwrap_or_else(|error| Err(error.to_string())).map_err(PrepareError::Files)
    }

    /// The address of a pod that has one already, or of one that is about to.
    pub(super) fn address_of(&self, pod: &Pod) -> Option<IpAddr> {
        if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
            return Some(self.address);
        }
        let known = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).of(uid(pod), known)
    }

    async fn pod_address(&self, pod: &Pod) -> Result<IpAddr, PrepareError> {
        let address = self.address_of(pod).ok_or(PrepareError::NoAddress)?;
        let added = self.network.add(address).await;
        added.map_err(|why| PrepareError::Address { address, why: why.to_string() })?;
        Ok(address)
    }

    /// Whether a pod's object says that something of it runs, in a runtime that doesn't answer yet: it isn't taken for lost meanwhile.
    pub(super) fn awaits_runtime(&self, pod: &Pod) -> bool {
        if !self.runtime.is_awaited() {
            return false;
        }
        let mut told = pod.status.iter().flat_map(|status| {
            let lists = [
                &status.init_container_statuses,
                &status.container_statuses,
                &status.ephemeral_container_statuses,
            ];
            lists.into_iter().flatten().flatten()
        });
        let runs = |told: &ContainerStatus| told.state.as_ref().is_some_and(|state| state.running.is_some());
        told.any(runs) && self.handler(pod, &self.store.snapshot()) == Ok(Handler::Foreign)
    }

    /// Ends the sandbox of a pod.
    pub(super) async fn end_sandbox(&self, pod: &Pod) {
        let handler = self.handler(pod, &self.store.snapshot());
        match handler {
            Ok(Handler::Host | Handler::Oci) => self.runtime.end_own(uid(pod)).await,
            Ok(Handler::Foreign) | Err(_) => self.runtime.end(uid(pod)).await,
        }
    }

    /// Ends the sandbox of a pod that is over, with its network and its ports of the host; its address stays its own.
    pub(super) async fn let_go(&self, pod: &Pod) {
        self.end_sandbox(pod).await;
        self.remove_address(uid(pod)).await;
    }

    /// Has the host answer no more on a pod's address, which stays its own.
    async fn remove_address(&self, uid: &str) {
        let address = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).known(uid);
        if let Some(address) = address
            && let Err(error) = self.network.remove(address).await
        {
            tracing::warn!(%address, %error, "can't remove a pod's address");
        }
    }

    /// Gives back the address of a pod of which nothing runs any more.
    pub(super) async fn release_address(&self, uid: &str) {
        self.remove_address(uid).await;
        // Last: the pod that gets it next has it added.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).release(uid);
    }

    /// Gives back what a pod that is over had, but for its address and its logs: whatever it wrote, and the images that it kept. Its
    /// object may stay for good, for people to read.
    pub(super) async fn put_away(&self, pod: &Pod) {
        let uid = uid(pod);
        // The processes end first: nothing of this pod may use its address or its folder when these are given away.
        self.let_go(pod).await;
        let folder = self.folders.pod(uid);
        // Processes are looked for once: without its folder this was done before.
        if folder.exists() {
            end_leftovers(folder, |_| false).await;
        }
        // Until they are unmounted, its volumes are not to be had elsewhere: as with the kubelet, the pod is there as long.
        self.csi.release(uid).await;
        for wait in REMOVE_AGAIN {
            let (folders, of) = (self.folders.clone(), uid.to_owned());
            let span = info_span!("remove a pod's folder", uid);
            if let Ok(true) = tasks::blocking(span, move || folders.remove_pod(&of)).await {
                break;
            }
            // A file may have been written there meanwhile.
            tokio::time::sleep(wait).await;
        }
        self.residents.remove(uid);
    }

    /// Gives back all that a pod had that goes.
    pub(crate) async fn clean_up(self: Arc<Self>, pod: Arc<Pod>) {
        self.put_away(&pod).await;
        self.tokens.forget(&pod);
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).release(uid(&pod));
        let host = self.clone();
        let span = info_span!("remove logs", uid = uid(&pod));
        let _ = tasks::blocking(span, move || host.folders.remove_logs(&pod)).await;
    }

    /// What a pod's volumes ask of storage drivers.
    fn csi_wishes(&self, pod: &Pod, address: IpAddr) -> Result<Vec<Wish>, Missing> {
        let (state, no_tokens) = (self.store.snapshot(), PodTokens::new());
        wishes(&self.name, self.sources(&state, pod, address, &no_tokens))
    }

    /// Does what is due for the volumes of a pod that runs.
    pub(super) async fn keep_volumes(&self, pod: &Pod, address: IpAddr) {
        match self.csi_wishes(pod, address) {
            Ok(wishes) => self.csi.keep(pod, &wishes).await,
            Err(error) => tracing::debug!(pod = subject(pod), %error, "a pod's volumes stay as they are"),
        }
    }

    /// Brings the pod's files from ConfigMaps and Secrets up to date.
    pub(crate) fn refresh(&self, pod: &Pod, address: IpAddr) -> Result<(), Missing> {
        let (state, tokens) = (self.store.snapshot(), self.tokens.of(pod));
        refresh(&self.folders.pod(uid(pod)), self.sources(&state, pod, address, &tokens))
    }
}
