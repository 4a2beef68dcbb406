//! The folder that a cluster lives in: its identity, its keys, and a folder for each host.

mod error;
mod record;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use config::{Bound, Datastore, Dns, Eviction, HostConfig, NetConfig, Ports, Scheduling, Signal, Timeouts};
use pki::{Authority, FRONT_PROXY, HostNames, Identity, TokenKey};

use crate::addresses::{Addresses, MOST_NODES, NetKind};
use crate::kubeconfig::kubeconfig;
use crate::link::HOST_LINK;
use record::VERSION;

pub use error::Error;
pub use record::{ClusterPlan, ClusterRecord};

const RECORD: &str = "cluster.json";
const LOCK: &str = "lock";
const PKI: &str = "pki";
const ADMIN: &str = "admin";
const HEARTBEAT_KEY: &str = "heartbeat.key";
const TOKEN_KEY: &str = "sa.key";
const REQUESTS_KEY: &str = "requests-ca.key";
const HOST_LOG: &str = "host.log";
const NAME: &str = "holdfast";

/// A cluster's folder, held by this process alone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    record: ClusterRecord,
    authority: Authority,
    admin: Identity,
    tokens: TokenKey,
    /// The authority that signs what users ask for.
    requests: Authority,
    _lock: File,
}

impl Folder {
    /// What a folder says about its cluster; none when there is no cluster in it.
    pub fn record_in(path: &Path) -> Result<Option<ClusterRecord>, Error> {
        let path = path.join(RECORD);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(why) => return Err(Error::File { path, why }),
        };
        let record: ClusterRecord =
            serde_json::from_slice(&text).map_err(|why| Error::Record { path: path.clone(), why })?;
        if record.version != VERSION {
            return Err(Error::Version { path, version: record.version });
        }
        Ok(Some(record))
    }

    /// Opens the cluster's folder, or makes a new cluster where there is nothing. What belongs to another
    /// cluster, or to something else, stays untouched.
    pub fn open_or_create(path: &Path, nodes: usize, net: NetKind) -> Result<Self, Error> {
        Self::open_or_make(path, ClusterPlan::new(nodes, net))
    }

    /// As [`open_or_create`](Self::open_or_create), for a cluster whose state may lie in an etcd.
    pub fn open_or_make(path: &Path, plan: ClusterPlan) -> Result<Self, Error> {
        if !(1..=MOST_NODES).contains(&plan.nodes) {
            return Err(Error::Nodes(plan.nodes));
        }
        match &Self::record_in(path)? {
            Some(record) => record.check(path, &plan)?,
            None => check_free(path)?,
        }
        let failed = |why| Error::File { path: path.into(), why };
        // For its owner alone: there are keys in it.
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        let lock = lock(&path)?;
        // The process that held the lock until now may have finished the cluster meanwhile.
        let record = match Self::record_in(&path)? {
            Some(record) if record.check(&path, &plan).is_ok() => {
                // An etcd's members and the files of its certificates may change.
                let datastore = plan.datastore.or(record.datastore);
                let (registries, runtime) =
                    (plan.registries.or(record.registries), plan.runtime.or(record.runtime));
                let static_pods = plan.static_pods.or(record.static_pods);
                ClusterRecord { datastore, registries, static_pods, runtime, ..record }
            }
            Some(_) => return Err(Error::Locked(path)),
            None => {
                let ClusterPlan { id, nodes, net, datastore, registries, static_pods, runtime } = plan;
                ClusterRecord {
                    version: VERSION,
                    id,
                    name: NAME.into(),
                    nodes,
                    net,
                    datastore,
                    registries,
                    static_pods,
                    runtime,
                }
            }
        };
        Self::provision(path, record, lock)
    }

    /// Makes what is missing: all of it in a new folder, where the record comes last.
    #[allow(clippy::disallowed_methods)] // A driver: certificates are valid from now on.
    fn provision(path: PathBuf, record: ClusterRecord, lock: File) -> Result<Self, Error> {
        let now = SystemTime::now();
        let is_new = !path.join(RECORD).exists();
        let pki = path.join(PKI);
        if !is_new {
            let lost =
                ["ca.crt", "ca.key"].map(|file| pki.join(file)).into_iter().find(|file| !file.exists());
            lost.map_or(Ok(()), |file| Err(Error::LostKey(file)))?;
        }
        // One that a launcher made before it was killed is kept: hosts' certificates may be signed by it already.
        let authority = if is_new && !pki.join("ca.crt").exists() {
            let authority = Authority::create(&format!("{NAME}-{}", record.id), now)?;
            authority.save(&pki)?;
            authority
        } else {
            Authority::load(&pki)?
        };
        if !pki.join(format!("{ADMIN}.crt")).exists() {
            authority.admin_identity(now)?.save(&pki, ADMIN)?;
        }
        let admin = Identity::load(&pki, ADMIN)?;
        let tokens = TokenKey::load_or_create(&pki)?;
        // A folder of before there were certificates by request has none.
        let requests = if pki.join(REQUESTS_KEY).exists() {
            Authority::load_for_requests(&pki)?
        } else {
            let requests = Authority::create(&format!("{NAME}-{}-requests", record.id), now)?;
            requests.save_for_requests(&pki)?;
            requests
        };
        let folder = Self { path, record, authority, admin, tokens, requests, _lock: lock };
        for (number, name) in Addresses::hosts(folder.record.nodes) {
            folder.provision_host(number, &name, now)?;
        }
        if is_new || Self::record_in(&folder.path)?.as_ref() != Some(&folder.record) {
            let mut text = serde_json::to_vec_pretty(&folder.record).unwrap_or_default();
            text.push(b'\n');
            write(&folder.path.join(RECORD), &text, 0o644)?;
        }
        Ok(folder)
    }

    fn provision_host(&self, number: u8, name: &str, now: SystemTime) -> Result<(), Error> {
        let config = self.host_config(number);
        let was_there = self.host(name).exists();
        for folder in [self.host(name), config.data_dir.clone(), config.pki_dir.clone()] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.map_err(|why| Error::File { path: folder, why })?;
        }
        // The last of the files made here: where it is, a launcher that was killed in the middle had made the
        // others.
        if !config.pki_dir.join(HEARTBEAT_KEY).exists() {
            let names = HostNames {
                name: name.into(),
                address: config.address,
                virtual_address: config.virtual_address,
                first_service_address: Addresses::new(self.record.net).first_service().into(),
            };
            self.authority.trust()?.save(&config.pki_dir)?;
            self.authority.host_identity(&names, now)?.save(&config.pki_dir, name)?;
            self.authority.heartbeat_key()?.save(&config.pki_dir)?;
        }
        // A folder of before there were aggregated APIs has none.
        if !config.pki_dir.join(format!("{FRONT_PROXY}.crt")).exists() {
            self.authority.front_proxy_identity(now)?.save(&config.pki_dir, FRONT_PROXY)?;
        }
        if !was_there && self.path.join(RECORD).exists() {
            // The host's whole folder was lost since the cluster was made: it is to join, as one that began.
            write(&config.begun_file, b"", 0o644)?;
        }
        // A folder of before there were tokens gets its key now.
        if !config.pki_dir.join(TOKEN_KEY).exists() {
            self.tokens.save(&config.pki_dir)?;
        }
        if !config.pki_dir.join(REQUESTS_KEY).exists() {
            self.requests.save_for_requests(&config.pki_dir)?;
        }
        // Written anew every time: the folder may have been moved.
        write(&self.config_file(name), &config.text(), 0o644)
    }

    /// The configuration of host `number`.
    fn host_config(&self, number: u8) -> HostConfig {
        let addresses = Addresses::new(self.record.net);
        let name = Addresses::host_name(number);
        let home = self.host(&name);
        HostConfig {
            cluster_id: self.record.id.clone(),
            address: addresses.host(number).into(),
            host_cidr: addresses.host_cidr(),
            peers: addresses.peers(self.record.nodes),
            pod_cidr: addresses.pod_cidr(number),
            cluster_cidr: addresses.cluster_cidr(),
            service_cidr: addresses.service_cidr(),
            virtual_address: addresses.virtual_address().into(),
            load_balancer_cidrs: vec![addresses.load_balancers()],
            net: match self.record.net {
                NetKind::Netns => NetConfig::Netns { link: HOST_LINK.into() },
                NetKind::Loopback => NetConfig::Loopback { switch: addresses.announcements() },
            },
            ports: Ports::default(),
            timeouts: Timeouts::default(),
            fencing: Default::default(),
            scheduling: Scheduling::default(),
            dns: Dns::default(),
            eviction: eviction(),
            shutdown: Default::default(),
            audit: None,
            token_webhook: None,
            registries_file: self.record.registries.clone(),
            static_pods: self.record.static_pods.clone(),
            runtime: self.record.runtime.clone(),
            vrrp: Default::default(),
            data_dir: self.data(&name),
            begun_file: home.join("begun"),
            timeline_file: home.join("timeline.jsonl"),
            encryption_file: None,
            datastore: self.record.datastore.clone().map(|datastore| Datastore {
                via: addresses.datastore(datastore.endpoints.len()),
                ..datastore
            }),
            pki_dir: home.join(PKI),
            name,
        }
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the folder says about its cluster.
    pub fn record(&self) -> &ClusterRecord {
        &self.record
    }

    /// The addresses of the cluster.
    pub fn addresses(&self) -> Addresses {
        Addresses::new(self.record.net)
    }

    /// The folder of a host.
    pub fn host(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder of a host's data: its state, and its pods.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.host(name).join("data")
    }

    /// The configuration of a host.
    pub fn config_file(&self, name: &str) -> PathBuf {
        self.host(name).join("config.json")
    }

    /// The file to which a host appends its timeline.
    pub fn timeline(&self, name: &str) -> PathBuf {
        self.host(name).join("timeline.jsonl")
    }

    /// What a host has to say, of all its lives.
    pub fn log(&self, name: &str) -> PathBuf {
        self.host(name).join(HOST_LOG)
    }

    /// The last line that a host wrote to its log, if there is one.
    pub fn last_log_line(&self, name: &str) -> Option<String> {
        let text = fs::read(self.log(name)).ok()?;
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned())
    }

    /// The cluster's authority, as PEM.
    pub fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    /// Where the cluster's authority (`ca.crt`) and the administrator's certificate and key (`admin.crt`,
    /// `admin.key`) lie as files.
    pub fn pki(&self) -> PathBuf {
        self.path.join(PKI)
    }

    /// The administrator's identity.
    pub fn admin(&self) -> &Identity {
        &self.admin
    }

    /// Writes the administrator's kubeconfig for an API server at this URL, and says where it is.
    pub fn write_kubeconfig(&self, server: &str) -> Result<PathBuf, Error> {
        let path = self.path.join("kubeconfig");
        let text = kubeconfig(&self.record.name, server, self.authority_pem(), &self.admin);
        write(&path, text.as_bytes(), 0o600)?;
        Ok(path)
    }
}

/// Whether a folder may be made a cluster's: it isn't there, is empty, or a cluster was begun in it.
fn check_free(path: &Path) -> Result<(), Error> {
    let mut entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(Error::Foreign(path.into()));
        }
        Err(why) => return Err(Error::File { path: path.into(), why }),
    };
    let was_begun = fs::read_to_string(path.join(LOCK)).is_ok_and(|text| text == LOCK_TEXT);
    match entries.next() {
        Some(_) if !was_begun => Err(Error::Foreign(path.into())),
        // The record is written before any host runs, and a host that has run leaves this.
        Some(_) if Addresses::hosts(MOST_NODES).any(|(_, name)| path.join(name).join(HOST_LOG).exists()) => {
            Err(Error::LostRecord(path.into()))
        }
        _ => Ok(()),
    }
}

/// What the lock's file says: by this a folder is known in which a cluster was begun.
const LOCK_TEXT: &str = "Held by a running cluster of Holdfast.\n";

/// The file whose lock a launcher holds for as long as it runs on a folder.
pub(crate) fn lock_file(folder: &Path) -> PathBuf {
    folder.join(LOCK)
}

fn lock(folder: &Path) -> Result<File, Error> {
    let path = lock_file(folder);
    let failed = |why| Error::File { path: path.clone(), why };
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(Error::Locked(folder.into())),
        Err(TryLockError::Error(why)) => return Err(failed(why)),
    }
    if file.metadata().map_err(failed)?.len() == 0 {
        file.write_all(LOCK_TEXT.as_bytes()).map_err(failed)?;
    }
    Ok(file)
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), Error> {
    let new = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|why| Error::File { path: path.into(), why })
}

/// When pods of hosts are evicted that share a machine: its disk is full of other things as well, for which pods aren't to blame.
fn eviction() -> Eviction {
    let least = [(Signal::Memory, Bound::Amount(100 << 20)), (Signal::Nodefs, Bound::Percent(100))];
    Eviction { hard: least.into(), ..Eviction::default() }
}
