//! A host's files: where they lie, and in which order they are written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use config::HostConfig;
use serde_json::Value;

/// Why a host's files can't be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file can't be written or read.
    #[error("{path}: {why}; run this as root, or name folders of your own with --config-dir and --data-dir")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// There is a store, and nothing says whose.
    #[error(
        "{0} holds the data of a host, and no configuration says of which; put that back, or move the folder away"
    )]
    Remains(PathBuf),
}

/// Where a host's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    config: PathBuf,
    data: PathBuf,
}

/// How far a host has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It isn't one yet, or was begun and not finished.
    New,
    /// It is one.
    Host(Box<HostConfig>),
}

impl Layout {
    /// What a host is told lies in `config`, what it keeps in `data`: absolute paths.
    pub fn new(config: PathBuf, data: PathBuf) -> Self {
        Layout { config, data }
    }

    /// The host's configuration.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.yaml")
    }

    /// Its keys and certificates.
    pub fn pki_dir(&self) -> PathBuf {
        self.config.join("pki")
    }

    /// The administrator's kubeconfig: the name that kubeadm's has.
    pub fn kubeconfig(&self) -> PathBuf {
        self.config.join("admin.conf")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data.join("data")
    }

    /// With what says who the host is, and not with the data: a disk that is lost, or isn't mounted, would take along that there was
    /// something on it, and the first host would found a second cluster.
    pub(crate) fn begun_file(&self) -> PathBuf {
        self.config.join("begun")
    }

    pub(crate) fn timeline_file(&self) -> PathBuf {
        self.data.join("timeline.jsonl")
    }

    /// The Secret of the token that the first host brings into its cluster when it starts, beside its keys.
    pub fn first_token(pki_dir: &Path) -> PathBuf {
        pki_dir.join("first-token.json")
    }

    /// How far the host has come: its configuration is the last file that is written.
    ///
    /// # Errors
    /// [`config::Error`] if the configuration can't be used.
    pub fn stage(&self) -> Result<Stage, config::Error> {
        match self.config_file().exists() {
            true => HostConfig::load(&self.config_file()).map(|config| Stage::Host(Box::new(config))),
            false => Ok(Stage::New),
        }
    }

    /// Makes sure that there is no store yet: an empty machine begins a cluster or joins one, and what was another host's
    /// would be taken for this one's.
    ///
    /// # Errors
    /// [`Error::Remains`].
    pub fn check_empty(&self) -> Result<(), Error> {
        let data = self.data_dir();
        let is_empty = fs::read_dir(&data).map_or(true, |mut entries| entries.next().is_none());
        if is_empty { Ok(()) } else { Err(Error::Remains(data)) }
    }

    /// Makes the folders. Keys and data are for their owner's eyes alone.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn make_folders(&self) -> Result<(), Error> {
        for (folder, mode) in
            [(self.config.clone(), 0o755), (self.pki_dir(), 0o700), (self.data.clone(), 0o700)]
        {
            let made = DirBuilder::new().recursive(true).mode(mode).create(&folder);
            made.map_err(|why| Error::File { path: folder, why })?;
        }
        Ok(())
    }

    /// Writes the administrator's kubeconfig.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_kubeconfig(&self, text: &str) -> Result<(), Error> {
        write(&self.kubeconfig(), text.as_bytes(), 0o600)
    }

    /// Writes the Secret of the first token.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_first_token(&self, secret: &Value) -> Result<(), Error> {
        write(&Layout::first_token(&self.pki_dir()), secret.to_string().as_bytes(), 0o600)
    }

    /// Writes the configuration, which makes the machine a host. One that joins notes first that its cluster has begun: its empty
    /// store must join the others', and never begin a cluster of its own.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn write_config(&self, config: &HostConfig, joins: bool) -> Result<(), Error> {
        if joins {
            write(&self.begun_file(), b"", 0o644)?;
        } else if let Err(why) = fs::remove_file(self.begun_file())
            && why.kind() != io::ErrorKind::NotFound
        {
            // Of a join that wasn't finished, on a machine that is to begin a cluster now.
            return Err(Error::File { path: self.begun_file(), why });
        }
        // What was read from JSON is JSON.
        let value: Value = serde_json::from_slice(&config.text()).unwrap_or_default();
        write(&self.config_file(), values::to_yaml(&value).as_bytes(), 0o644)
    }
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), Error> {
    let new = path.with_extension("new");
    let write = || {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|why| Error::File { path: path.into(), why })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::first::tests::first;
    use crate::first_config;

    fn layout(folder: &tempfile::TempDir) -> Layout {
        Layout::new(folder.path().join("etc"), folder.path().join("lib"))
    }

    #[test]
    fn a_machine_is_a_host_once_its_configuration_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        assert_eq!(layout.stage().unwrap(), Stage::New);
        layout.make_folders().unwrap();
        layout.check_empty().unwrap();
        assert_eq!(layout.stage().unwrap(), Stage::New);
        let config = first_config("c", first(), &layout);
        layout.write_config(&config, true).unwrap();
        assert_eq!(layout.stage().unwrap(), Stage::Host(Box::new(config.clone())));
        assert!(config.begun_file.exists(), "it joins");
        assert!(config.begun_file.starts_with(folder.path().join("etc")), "it outlives the data");
        layout.write_config(&config, false).unwrap();
        assert!(!config.begun_file.exists(), "it begins a cluster");
        fs::create_dir_all(config.data_dir.join("store")).unwrap();
        assert!(layout.check_empty().unwrap_err().to_string().contains("lib/data"));
    }

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        layout.make_folders().unwrap();
        layout.write_kubeconfig("users: []").unwrap();
        layout.write_first_token(&Value::Null).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(layout.kubeconfig()), 0o600);
        assert_eq!(mode(Layout::first_token(&layout.pki_dir())), 0o600);
        assert_eq!(mode(layout.pki_dir()), 0o700);
    }

    #[test]
    fn a_folder_that_can_t_be_written_is_named_with_the_way_out() {
        let layout = Layout::new("/proc/nowhere/etc".into(), "/proc/nowhere/lib".into());
        let said = layout.make_folders().unwrap_err().to_string();
        assert!(said.contains("/proc/nowhere/etc") && said.contains("--config-dir"), "{said}");
    }
}
