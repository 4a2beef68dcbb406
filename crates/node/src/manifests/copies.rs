//! Copies of a folder's manifests, as they were when they were valid last.
//!
//! An agent that starts while the folder can't be looked at, or while a manifest is broken, goes on with these. The kubelet likewise ends
//! nothing before it has read its sources (`sourcesReady`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::own_file::replace;

/// The copies of the manifests of one folder, under the names that those have.
#[derive(Debug, Clone)]
pub(super) struct Copies(PathBuf);

impl Copies {
    /// Those of the folder `of`, in a folder of `all`: a file of the same name in another folder is another pod.
    pub(super) fn new(all: &Path, of: &Path) -> Self {
        let hash = ring::digest::digest(&ring::digest::SHA256, of.as_os_str().as_encoded_bytes());
        let name: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Copies(all.join(name))
    }

    /// Removes those of folders that the host had before.
    pub(super) fn forget_others(&self) {
        let Some(all) = self.0.parent() else { return };
        for entry in fs::read_dir(all).into_iter().flatten().flatten() {
            if entry.path() != self.0
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(folder = %entry.path().display(), %error, "old copies of manifests can't be removed");
            }
        }
    }

    /// Keeps what a manifest says.
    ///
    /// # Errors
    /// If that can't be written.
    pub(super) fn keep(&self, name: &str, text: &[u8]) -> io::Result<()> {
        if self.text(name).is_some_and(|known| known == text) {
            return Ok(());
        }
        replace(&self.0.join(name), text)
    }

    /// What a manifest said when it was valid last.
    pub(super) fn text(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.0.join(name)).ok()
    }

    /// Of which files there are copies.
    pub(super) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| !name.starts_with('.'))
            .collect()
    }

    /// Removes those of files that aren't there any more.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        for name in self.names().into_iter().filter(|name| !is_there(name)) {
            if let Err(error) = fs::remove_file(self.0.join(&name)) {
                tracing::warn!(file = name, %error, "the copy of a manifest can't be removed");
            }
        }
    }
}
