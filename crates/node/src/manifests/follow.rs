//! Follows a folder of manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use csi::FolderWatch;
use tokio::sync::watch;
use tracing::info_span;

use super::StaticPod;
use super::shelf::{Print, Shelf};
use crate::pods::PodHost;

/// The static pods that a host is to run, by the keys of their mirrors.
pub(crate) type StaticPods = Arc<BTreeMap<Bytes, StaticPod>>;

/// The most files that are read: more than a host takes pods.
const MOST: usize = 256;
/// The most bytes that one of them may have.
const LARGEST: u64 = 1 << 20;
/// How often the folder is looked at though nothing was heard of it (the kubelet's `fileCheckFrequency`): some file systems tell
/// nothing.
const EVERY: Duration = Duration::from_secs(20);
/// For how long a file must be the same before it is read.
const STILL: Duration = Duration::from_millis(100);
/// The reason of Events about manifests.
const INVALID: &str = "InvalidStaticPod";

/// Shows the pods of a folder's manifests, and tells what is wrong with which. Never ends.
pub(crate) async fn follow_manifests(
    host: Arc<PodHost>,
    folder: PathBuf,
    shown: watch::Sender<Option<StaticPods>>,
) {
    let (mut shelf, mut told) = (Shelf::default(), BTreeSet::new());
    loop {
        // First the watch, then the look: what comes in between is seen by both. It is made anew each time, since the folder may be
        // another one by then.
        let mut watch = FolderWatch::new(&folder).ok();
        let (of, node, first) = (folder.clone(), host.name.clone(), shown.borrow().is_none());
        let look = move || {
            let again = look(&mut shelf, &of, &node, first);
            (shelf, again)
        };
        let looked = tasks::blocking(info_span!("look for manifests"), look).await;
        let Ok((back, (again, of_folder))) = looked else { return };
        shelf = back;
        let (pods, faults) = shelf.pods();
        let uids = |pods: &BTreeMap<Bytes, StaticPod>| -> Vec<Option<String>> {
            pods.values().map(|one| one.pod.metadata.uid.clone()).collect()
        };
        let is_new = shown.borrow().as_ref().is_none_or(|before| uids(before) != uids(&pods));
        if is_new {
            shown.send_replace(Some(Arc::new(pods)));
        }
        let of_files =
            faults.into_iter().map(|(file, why)| format!("{}: {why}", folder.join(file).display()));
        let of_folder = of_folder.into_iter().map(|why| format!("{}: {why}", folder.display()));
        let faults: BTreeSet<String> = of_files.chain(of_folder).collect();
        for fault in faults.difference(&told) {
            tracing::warn!("{fault}");
            host.tell_of_node(INVALID, fault.clone());
        }
        told = faults;
        if !again {
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changed => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
        tokio::time::sleep(STILL).await;
    }
}

/// Looks at a folder and reads what is to be read. Answers whether to look again soon, and what is wrong with the folder.
fn look(shelf: &mut Shelf, folder: &Path, node: &str, first: bool) -> (bool, Vec<String>) {
    let (found, others) = match list(folder) {
        Ok(found) => found,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            shelf.found(BTreeMap::new(), first);
            return (false, vec!["there is no such folder for static pods: make it".into()]);
        }
        // A disk that doesn't answer ends no pod.
        Err(why) => {
            return (false, vec![format!("static pods can't be looked for: {why}; they stay as they are")]);
        }
    };
    let (due, again) = shelf.found(found, first);
    for name in due {
        let path = folder.join(&name);
        let read = text(&path).and_then(|text| StaticPod::read(&text, &path, node));
        shelf.read(&name, read);
    }
    (again, others)
}

/// The files with manifests in a folder, and what is to be said about what else is there. Hidden files are passed over, as the
/// kubelet does.
fn list(folder: &Path) -> io::Result<(BTreeMap<String, Print>, Vec<String>)> {
    let (mut found, mut others, mut beyond) = (BTreeMap::new(), BTreeSet::new(), false);
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        // What an editor or a person put aside (`web.yaml~`, `web.yaml.bak`) is no second pod.
        let is_manifest = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
        let facts = std::fs::metadata(folder.join(&name)).ok().filter(|facts| is_manifest && facts.is_file());
        match facts {
            Some(facts) => {
                let changed = (facts.ctime(), facts.ctime_nsec());
                found.insert(name, (facts.dev(), facts.ino(), facts.size(), changed));
                if found.len() > MOST {
                    beyond = true;
                    found.pop_last();
                }
            }
            None if others.len() < 10 => _ = others.insert(name),
            None => {}
        }
    }
    let mut said = Vec::new();
    if !others.is_empty() {
        let names: Vec<String> = others.into_iter().collect();
        said.push(format!(
            "only files that are called .yaml, .yml or .json are read here, and these are not: {}",
            names.join(", ")
        ));
    }
    if beyond {
        said.push(format!("only the first {MOST} manifests are read: there are more"));
    }
    Ok((found, said))
}

fn text(path: &Path) -> Result<Vec<u8>, String> {
    let read = || {
        // What became a pipe meanwhile is not waited for.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut text = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|why| format!("it can't be read: {why}"))?;
    match text.len() as u64 > LARGEST {
        true => Err(format!("it has more than {LARGEST} bytes")),
        false => Ok(text),
    }
}
