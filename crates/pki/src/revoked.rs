//! Keys of machines that were taken back, for handshakes.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use crate::{Error, KeyHash, NoHash, folder};

/// Keys that open no door between hosts any more. Clones share them: what is taken back counts for all that was made with one.
#[derive(Debug, Clone, Default)]
pub struct RevokedKeys(Arc<RwLock<BTreeSet<KeyHash>>>);

impl RevokedKeys {
    /// Those that a file holds, one a line; none where there is no file.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Unusable`].
    pub fn load(file: &Path) -> Result<Self, Error> {
        let text = match folder::read(file) {
            Err(Error::File { why, .. }) if why.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let keys: Result<BTreeSet<KeyHash>, NoHash> = text.lines().map(str::parse).collect();
        let keys = keys.map_err(|why| Error::unusable(&file.display().to_string(), why))?;
        Ok(RevokedKeys(Arc::new(RwLock::new(keys))))
    }

    /// Writes them to a file, whole or not at all.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, file: &Path) -> Result<(), Error> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let lines: Vec<String> = keys.iter().map(KeyHash::to_string).collect();
        folder::write_public(file, &lines.join("\n"))
    }

    /// Adds others to them.
    pub fn add(&self, keys: BTreeSet<KeyHash>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).extend(keys);
    }

    /// Puts others in their place.
    pub fn replace(&self, keys: BTreeSet<KeyHash>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether a key is one of them.
    pub fn has(&self, key: KeyHash) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_outlive_the_process_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("revoked-keys");
        let keys = RevokedKeys::load(&file).unwrap();
        let [one, two]: [KeyHash; 2] =
            ["a", "b"].map(|digit| format!("sha256:{}", digit.repeat(64)).parse().unwrap());
        keys.replace([one].into());
        keys.save(&file).unwrap();
        let read = RevokedKeys::load(&file).unwrap();
        assert!(read.has(one) && !read.has(two));
        std::fs::write(&file, format!("{one}\nsha256:b")).unwrap();
        let error = RevokedKeys::load(&file).unwrap_err().to_string();
        assert!(error.contains("revoked-keys"), "{error}");
    }
}
