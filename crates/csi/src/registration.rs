//! Drivers that come and go: each has a socket in a folder of the host's, at which it says who it is and hears whether it was
//! registered (`pluginregistration.v1`; `pkg/kubelet/pluginmanager`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tracing::info_span;

use crate::call::{Failure, call};
use crate::folder_watch::FolderWatch;
use crate::messages::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};

/// What a storage driver calls itself (`CSIPlugin` of k8s.io/kubelet/pkg/apis/pluginregistration). Other kinds of plugins are refused.
const KIND: &str = "CSIPlugin";
/// The longest name of a driver (`csi.proto`, `GetPluginInfoResponse`): also a folder on the disk.
const LONGEST_NAME: usize = 63;
/// More sockets than any host has drivers: further ones are left alone.
const MOST: usize = 128;
/// How long a driver may take to say who it is. The kubelet gives it one second, which a machine that starts doesn't always have.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// How long it may take to hear how it went (`notifyTimeoutDuration`).
const NOTICE: Duration = Duration::from_secs(5);
/// How long until a driver that could not be registered is tried again; it doubles up to the last one
/// (`initialDurationBeforeRetry` and `maxDurationBeforeRetry` of `goroutinemap/exponentialbackoff`).
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(122);
/// How long until the folder is tried again where it can't be watched.
const FOLDER_RETRY: Duration = Duration::from_secs(10);

/// A driver as it introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Its name, which is fit for a folder.
    pub name: String,
    /// Where its node service listens.
    pub socket: PathBuf,
}

/// Who keeps the list of drivers.
pub trait Registrar: Send + Sync + 'static {
    /// A driver is there. An error is the reason why it can't be used: it hears that, and is tried again later.
    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>>;

    /// A driver has gone, or is about to come again: no socket is known any more at which it said that name.
    fn deregister<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()>;
}

/// Registers the drivers whose sockets are in a folder, as they come, and deregisters them as they go. Never ends.
pub async fn follow(folder: PathBuf, registrar: Arc<dyn Registrar>) {
    let mut sockets = Sockets { registrar, known: BTreeMap::new() };
    loop {
        let Err(error) = sockets.follow(&folder).await;
        tracing::warn!(folder = %folder.display(), %error, "storage drivers can't be found");
        tokio::time::sleep(FOLDER_RETRY).await;
    }
}

/// Which socket it is: one that was made anew under the same name is another one.
type Made = (u64, i64, i64);

struct Known {
    made: Made,
    /// The driver's name, once it has said it.
    name: Arc<OnceLock<String>>,
    task: JoinHandle<()>,
}

struct Sockets {
    registrar: Arc<dyn Registrar>,
    known: BTreeMap<PathBuf, Known>,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.known.values().for_each(|known| known.task.abort());
    }
}

impl Sockets {
    async fn follow(&mut self, folder: &Path) -> io::Result<std::convert::Infallible> {
        std::fs::create_dir_all(folder)?;
        // First the watch, then the look: what comes in between is seen by both.
        let mut watch = FolderWatch::new(folder)?;
        loop {
            let of = folder.to_owned();
            let found = tasks::blocking(info_span!("look for drivers"), move || sockets(&of)).await;
            self.are(found.unwrap_or_else(|error| Err(io::Error::other(error)))?).await;
            watch.changed().await?;
        }
    }

    /// These sockets are there, and no others.
    async fn are(&mut self, found: BTreeMap<PathBuf, Made>) {
        let is_gone = |(path, known): &(&PathBuf, &Known)| found.get(*path) != Some(&known.made);
        let gone: Vec<PathBuf> = self.known.iter().filter(is_gone).map(|(path, _)| path.clone()).collect();
        let mut left = BTreeSet::new();
        for path in gone {
            let Some(known) = self.known.remove(&path) else { continue };
            known.task.abort();
            let _ = known.task.await;
            left.extend(known.name.get().cloned());
        }
        for name in left {
            self.lacks_one(&name).await;
        }
        for (path, made) in found {
            if !self.known.contains_key(&path) {
                self.begin(path, made, Arc::new(OnceLock::new()));
            }
        }
    }

    fn begin(&mut self, path: PathBuf, made: Made, name: Arc<OnceLock<String>>) {
        let span = info_span!("register a driver", socket = %path.display());
        let task = tasks::spawn(span, keep_registered(path.clone(), name.clone(), self.registrar.clone()));
        self.known.insert(path, Known { made, name, task });
    }

    /// A socket of this driver has gone. Where the driver has another one, as while it is being replaced by a newer release, it stays, and is
    /// from now on asked there.
    async fn lacks_one(&mut self, name: &str) {
        if self.other(name).is_none() {
            tracing::info!(driver = name, "a storage driver has gone");
            self.registrar.deregister(name).await;
        }
        // Looked for again: one that said its name meanwhile may have been registered before the old one was deregistered.
        let Some(path) = self.other(name) else { return };
        let Some(known) = self.known.remove(&path) else { return };
        known.task.abort();
        let _ = known.task.await;
        self.begin(path, known.made, known.name);
    }

    /// A socket at which a driver said that it has this name.
    fn other(&self, name: &str) -> Option<PathBuf> {
        let mut all = self.known.iter();
        all.find(|(_, known)| known.name.get().is_some_and(|said| said == name)).map(|(path, _)| path.clone())
    }
}

/// The sockets in a folder.
fn sockets(folder: &Path) -> io::Result<BTreeMap<PathBuf, Made>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        match entry.metadata() {
            Ok(is) if is.file_type().is_socket() && !is_hidden => {
                found.insert(entry.path(), (is.ino(), is.mtime(), is.mtime_nsec()));
            }
            // It may have gone meanwhile.
            Ok(_) | Err(_) => {}
        }
        if found.len() == MOST {
            tracing::warn!(folder = %folder.display(), most = MOST, "there are more sockets of drivers than are looked at");
            break;
        }
    }
    Ok(found)
}

async fn keep_registered(socket: PathBuf, name: Arc<OnceLock<String>>, registrar: Arc<dyn Registrar>) {
    let mut wait = FIRST_RETRY;
    loop {
        match register(&socket, &name, &*registrar).await {
            Ok(name) => return tracing::info!(driver = name, "a storage driver is registered"),
            Err(why) => tracing::warn!(why, "a storage driver can't be registered"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_RETRY);
    }
}

async fn register(
    socket: &Path,
    name: &OnceLock<String>,
    registrar: &dyn Registrar,
) -> Result<String, String> {
    let asked = call(socket, "/pluginregistration.Registration/GetInfo", &InfoRequest {}, INTRODUCTION);
    let info: PluginInfo = asked.await.map_err(|why| format!("it doesn't say who it is: {why}"))?;
    let outcome = match introduced(socket, info) {
        Ok(plugin) if *name.get_or_init(|| plugin.name.clone()) != plugin.name => Err(format!(
            "it was {} before, and is {} now",
            name.get().map_or("", String::as_str),
            plugin.name
        )),
        Ok(plugin) => registrar.register(&plugin).await.map(|()| plugin.name),
        Err(why) => Err(why),
    };
    let status = RegistrationStatus {
        plugin_registered: outcome.is_ok(),
        error: outcome.as_ref().err().cloned().unwrap_or_default(),
    };
    let told: Result<RegistrationStatusResponse, Failure> =
        call(socket, "/pluginregistration.Registration/NotifyRegistrationStatus", &status, NOTICE).await;
    if let Err(why) = told {
        // What was decided holds: it will be used, or tried again.
        tracing::debug!(%why, "a storage driver doesn't hear how its registration went");
    }
    outcome
}

/// The driver that introduced itself at a socket.
fn introduced(socket: &Path, info: PluginInfo) -> Result<Plugin, String> {
    let PluginInfo { r#type, name, endpoint, supported_versions } = info;
    if r#type != KIND {
        return Err(format!(
            "no handler registered for plugin type: {} at socket {}",
            r#type,
            socket.display()
        ));
    }
    if !is_name(&name) {
        return Err(format!(
            "{name:?} is no name of a driver: letters, digits, '-' and '.', at most {LONGEST_NAME}"
        ));
    }
    let majors: BTreeSet<&str> = supported_versions
        .iter()
        .filter_map(|version| version.trim_start_matches('v').split('.').next())
        .collect();
    if !majors.contains("1") {
        return Err(format!(
            "driver {name} speaks none of the versions of CSI that are spoken here (1.x): {supported_versions:?}"
        ));
    }
    let socket = if endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(endpoint) };
    Ok(Plugin { name, socket })
}

fn is_name(name: &str) -> bool {
    let is_alphanumeric = |character: Option<char>| character.is_some_and(|c| c.is_ascii_alphanumeric());
    name.len() <= LONGEST_NAME
        && is_alphanumeric(name.chars().next())
        && is_alphanumeric(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, kind: &str, versions: &[&str]) -> PluginInfo {
        PluginInfo {
            r#type: kind.into(),
            name: name.into(),
            endpoint: String::new(),
            supported_versions: versions.iter().map(|version| (*version).to_owned()).collect(),
        }
    }

    #[test]
    fn a_driver_is_taken_by_its_word_if_it_can_be() {
        let socket = Path::new("/plugins_registry/a.sock");
        let judge = |info| introduced(socket, info);
        let plain = judge(info("disks.example.org", KIND, &["0.3.0", "1.5.0"])).unwrap();
        assert_eq!(plain, Plugin { name: "disks.example.org".into(), socket: socket.into() });
        let elsewhere = PluginInfo { endpoint: "/run/d.sock".into(), ..info("d", KIND, &["v1.0.0"]) };
        assert_eq!(judge(elsewhere).unwrap().socket, Path::new("/run/d.sock"));
        for (name, kind, versions, why) in [
            ("d", "DevicePlugin", ["1.0.0"], "no handler registered for plugin type: DevicePlugin"),
            ("d", KIND, ["2.0.0"], "none of the versions"),
            ("../../etc", KIND, ["1.0.0"], "is no name"),
            ("..", KIND, ["1.0.0"], "is no name"),
            ("", KIND, ["1.0.0"], "is no name"),
        ] {
            assert!(judge(info(name, kind, &versions)).unwrap_err().contains(why), "{name} {kind}");
        }
    }
}
