//! A host's files: where they lie, and in which order they are written.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use config::HostConfig;
use serde_json::Value;

use crate::attempt::{self, Attempt, Former, Plan};

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
    /// There are data or keys, and nothing says whose.
    #[error("{0} is a host's, and no configuration says of which; put that back, or move it away")]
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
    /// A host's settings lie in `config`, its data in `data`: absolute paths.
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

    /// The host's data.
    pub fn data_dir(&self) -> PathBuf {
        self.data.join("data")
    }

    /// Says that the host's store has taken part in its cluster. It lies with what says who the host is, and not with the data: a disk
    /// that is lost, or isn't mounted, would take along that there was something on it, and the first host would found a second cluster.
    pub fn begun_file(&self) -> PathBuf {
        self.config.join("begun")
    }

    /// What the machine is being made, while it is.
    pub fn attempt_file(&self) -> PathBuf {
        self.config.join("installing")
    }

    /// Says in a host's data that a backup became them in the attempt whose text it holds, until the machine is a host.
    pub fn restored_file(data_dir: &Path) -> PathBuf {
        data_dir.join("restored")
    }

    /// What happened to the host, for drills.
    pub fn timeline_file(&self) -> PathBuf {
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

    /// Looks what a former attempt left, before anything is written. A store that is there, and keys without an attempt that they are
    /// of, are another host's: they would be taken for this one's.
    ///
    /// # Errors
    /// [`Error::Remains`], and [`Error::File`] if that can't be told.
    pub fn plan(&self, wanted: Attempt) -> Result<Plan, Error> {
        // A file system that was just made has a folder for what `fsck` finds.
        let is_its =
            |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() == "lost+found");
        let is_empty = |folder: &Path| fs::read_dir(folder).map_or(true, |mut all| all.all(is_its));
        let data = self.data_dir();
        if !is_empty(&data) && !self.is_unused_restore() {
            return Err(Error::Remains(data));
        }
        let former = match fs::read_to_string(self.attempt_file()) {
            Ok(text) => text.parse().ok(),
            Err(why) if why.kind() == io::ErrorKind::NotFound => None,
            Err(why) => return Err(Error::File { path: self.attempt_file(), why }),
        };
        let pki = Some(self.pki_dir()).filter(|pki| !is_empty(pki));
        let files = [self.kubeconfig(), self.begun_file()];
        let remains = pki.or_else(|| files.into_iter().find(|file| file.exists()));
        attempt::plan(former, remains.is_some(), wanted)
            .ok_or_else(|| Error::Remains(remains.unwrap_or_default()))
    }

    /// Whether the data are what this very attempt restored before it was interrupted. No host has used them: there is no
    /// configuration, and nothing says that one took part in its cluster.
    fn is_unused_restore(&self) -> bool {
        let restored = fs::read_to_string(Layout::restored_file(&self.data_dir()));
        let attempt = fs::read_to_string(self.attempt_file());
        let is_same = matches!((restored, attempt), (Ok(restored), Ok(attempt)) if restored == attempt);
        is_same && !self.config_file().exists() && !self.begun_file().exists()
    }

    /// Begins: what of another attempt's is to go goes, and the folders are made. Keys and data are for their owner's eyes alone.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn begin(&self, plan: &Plan) -> Result<(), Error> {
        // Restored again, as the attempt that goes on wants it: by another name, from another backup, or not at all.
        if self.is_unused_restore() {
            let data = self.data_dir();
            fs::remove_dir_all(&data).map_err(|why| Error::File { path: data, why })?;
        }
        if plan.former == Former::Replaced {
            remove(&self.kubeconfig())?;
            remove(&self.begun_file())?;
            let pki = self.pki_dir();
            let removed = fs::remove_dir_all(&pki).or_else(unless_missing);
            removed.map_err(|why| Error::File { path: pki, why })?;
        }
        for (folder, mode) in
            [(self.config.clone(), 0o755), (self.pki_dir(), 0o700), (self.data.clone(), 0o700)]
        {
            let made = DirBuilder::new().recursive(true).mode(mode).create(&folder);
            made.map_err(|why| Error::File { path: folder, why })?;
        }
        write(&self.attempt_file(), plan.attempt.to_string().as_bytes(), 0o644)
    }

    /// Ends the attempt: the machine is a host.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn finish(&self) -> Result<(), Error> {
        remove(&Layout::restored_file(&self.data_dir()))?;
        remove(&self.attempt_file())
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
        }
        // What was read from JSON is JSON.
        let value: Value = serde_json::from_slice(&config.text()).unwrap_or_default();
        write(&self.config_file(), values::to_yaml(&value).as_bytes(), 0o644)
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).or_else(unless_missing).map_err(|why| Error::File { path: path.into(), why })
}

fn unless_missing(why: io::Error) -> io::Result<()> {
    if why.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(why) }
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), Error> {
    let new = path.with_extension("new");
    let write = || {
        fs::remove_file(&new).or_else(unless_missing)?;
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

    fn attempt() -> Attempt {
        Attempt::First { cluster_id: "c".into() }
    }

    fn begin(layout: &Layout) -> Result<(), Error> {
        layout.begin(&layout.plan(attempt())?)
    }

    #[test]
    fn a_machine_is_a_host_once_its_configuration_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        assert_eq!(layout.stage().unwrap(), Stage::New);
        begin(&layout).unwrap();
        assert_eq!(layout.stage().unwrap(), Stage::New);
        let config = first_config("c", first(), &layout);
        layout.write_config(&config, true).unwrap();
        assert_eq!(layout.stage().unwrap(), Stage::Host(Box::new(config.clone())));
        assert!(config.begun_file.exists(), "it joins");
        assert!(config.begun_file.starts_with(folder.path().join("etc")), "it outlives the data");
        fs::create_dir_all(config.data_dir.join("store")).unwrap();
        assert!(layout.plan(attempt()).unwrap_err().to_string().contains("lib/data"));
    }

    #[test]
    fn keys_are_kept_by_the_attempt_that_they_are_of_and_by_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        begin(&layout).unwrap();
        let key = layout.pki_dir().join("ca.key");
        fs::write(&key, "a key").unwrap();
        let again = Attempt::First { cluster_id: "other".into() };
        let plan = layout.plan(again.clone()).unwrap();
        assert_eq!((&plan.attempt, plan.former), (&attempt(), Former::Kept));
        layout.begin(&plan).unwrap();
        assert!(key.exists(), "the cluster that was begun");

        layout.write_kubeconfig("of the other").unwrap();
        fs::write(layout.begun_file(), "").unwrap();
        let authority = format!("sha256:{}", "1".repeat(64)).parse().unwrap();
        layout.begin(&layout.plan(Attempt::Join { authority }).unwrap()).unwrap();
        assert!(!key.exists() && !layout.kubeconfig().exists() && !layout.begun_file().exists());

        for remains in [key, layout.kubeconfig(), layout.begun_file()] {
            layout.finish().unwrap();
            fs::write(&remains, "").unwrap();
            let refused = layout.plan(again.clone()).unwrap_err().to_string();
            assert!(refused.contains("is a host's") && refused.contains("move it away"), "{refused}");
            fs::remove_file(&remains).unwrap();
        }
        layout.plan(again).unwrap();
    }

    #[test]
    fn what_an_interrupted_attempt_restored_is_restored_again() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        begin(&layout).unwrap();
        let (data, restored) = (layout.data_dir(), Layout::restored_file(&layout.data_dir()));
        fs::create_dir_all(data.join("store")).unwrap();
        layout.plan(attempt()).unwrap_err();
        fs::write(&restored, Attempt::First { cluster_id: "other".into() }.to_string()).unwrap();
        layout.plan(attempt()).unwrap_err();
        fs::write(&restored, attempt().to_string()).unwrap();
        fs::write(layout.begun_file(), "").unwrap();
        layout.plan(attempt()).unwrap_err();
        fs::remove_file(layout.begun_file()).unwrap();

        begin(&layout).unwrap();
        assert!(!data.exists(), "nobody has used it");
        fs::create_dir_all(&data).unwrap();
        fs::write(&restored, attempt().to_string()).unwrap();
        layout.write_config(&first_config("c", first(), &layout), false).unwrap();
        layout.finish().unwrap();
        assert!(data.exists() && !restored.exists());
    }

    #[test]
    fn a_disk_that_was_just_made_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        for fresh in [layout.data_dir(), layout.pki_dir()] {
            fs::create_dir_all(fresh.join("lost+found")).unwrap();
        }
        begin(&layout).unwrap();
        fs::create_dir(layout.data_dir().join("store")).unwrap();
        layout.plan(attempt()).unwrap_err();
    }

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(&folder);
        begin(&layout).unwrap();
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
        let said = begin(&layout).unwrap_err().to_string();
        assert!(said.contains("/proc/nowhere/etc") && said.contains("--config-dir"), "{said}");
    }
}
