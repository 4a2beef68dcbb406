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
use super::copies::Copies;
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
    let copies = Copies::new(&host.folders.manifest_copies(), &folder);
    loop {
        // First the watch, then the look: what comes in between is seen by both. It is made anew each time, since the folder may be
        // another one by then.
        let mut watch = FolderWatch::new(&folder).ok();
        let first = shown.borrow().is_none();
        let (of, copies, node) = (folder.clone(), copies.clone(), host.name.clone());
        let look = move || {
            let again = look(&mut shelf, &copies, (&of, &node), first);
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
/// What can't be read at an agent's `first` look is as a former agent read it.
fn look(
    shelf: &mut Shelf,
    copies: &Copies,
    (folder, node): (&Path, &str),
    first: bool,
) -> (bool, Vec<String>) {
    if first {
        copies.forget_others();
    }
    let (found, mut said) = match list(folder) {
        Ok(found) => found,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            (BTreeMap::new(), vec!["there is no such folder for static pods: make it".to_owned()])
        }
        // A disk that doesn't answer ends no pod.
        Err(why) => {
            if first {
                copies.names().iter().for_each(|name| remember(shelf, copies, (folder, node), name));
            }
            return (false, vec![format!("static pods can't be looked for: {why}; they stay as they are")]);
        }
    };
    copies.retain(|name| found.contains_key(name));
    let (due, again) = shelf.found(found, first);
    for name in due {
        let path = folder.join(&name);
        let text = match text(&path) {
            Ok(text) => text,
            Err(why) => {
                shelf.unreadable(&name, why);
                continue;
            }
        };
        let read = StaticPod::read(&text, &path, node);
        if read.is_ok()
            && let Err(why) = copies.keep(&name, &text)
        {
            said.push(format!(
                "no copy of {name} can be kept, for a start of this host while it is broken: {why}"
            ));
        }
        shelf.read(&name, read);
    }
    if first {
        let unknown = shelf.without_pods();
        unknown.iter().for_each(|name| remember(shelf, copies, (folder, node), name));
    }
    (again, said)
}

/// Takes what a former agent read in a file.
fn remember(shelf: &mut Shelf, copies: &Copies, (folder, node): (&Path, &str), name: &str) {
    let Some(text) = copies.text(name) else { return };
    match StaticPod::read(&text, &folder.join(name), node) {
        Ok(pod) => shelf.remember(name, pod),
        Err(why) => {
            tracing::warn!(file = name, why, "what a manifest said before this agent makes no pod any more")
        }
    }
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
        let print = match std::fs::metadata(folder.join(&name)) {
            Ok(facts) if is_manifest && facts.is_file() => {
                Some((facts.dev(), facts.ino(), facts.size(), (facts.ctime(), facts.ctime_nsec())))
            }
            // What can't be looked at is there all the same. The read says why it can't be.
            Err(why) if is_manifest && why.kind() != io::ErrorKind::NotFound => Some(Print::default()),
            _ => None,
        };
        match print {
            Some(print) => {
                found.insert(name, print);
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
