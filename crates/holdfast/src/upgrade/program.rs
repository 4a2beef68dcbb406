//! A host's program as a file: the new one beside it, in its place, and the former one back.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempPath;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::decide::Version;

/// How long a program may take to tell its version, and how much it may say for that.
const TELLS: Duration = Duration::from_secs(20);
const MOST_TOLD: u64 = 1024;
/// How often a file is tried that is open for writing, and the pause in between.
const MOST_TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// The file of a host's program.
pub struct Program {
    path: PathBuf,
}

/// A new program beside the one whose place it is to take; it goes again unless it does.
#[derive(Debug)]
pub struct Staged {
    file: TempPath,
    pub version: Version,
}

impl Program {
    /// The one at this path.
    pub fn at(path: PathBuf) -> Self {
        Program { path }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Brings a new program beside this one, on the same disk, and runs it there: what can't run here tells no version.
    pub async fn stage(&self, new: &Path) -> anyhow::Result<Staged> {
        let read = || format!("can't read {}", new.display());
        let about = fs::metadata(new).with_context(read)?;
        anyhow::ensure!(about.is_file(), "{} is no file", new.display());
        let own = fs::metadata(&self.path)
            .with_context(|| format!("can't read the host's program {}", self.path.display()))?;
        anyhow::ensure!(
            (own.dev(), own.ino()) != (about.dev(), about.ino()),
            "{} is the host's program itself: name the file of the new one",
            new.display()
        );
        let folder = self.folder();
        let failed = || format!("can't write into {}; run this as root", folder.display());
        let file =
            tempfile::Builder::new().prefix(".holdfast-new-").tempfile_in(folder).with_context(failed)?;
        io::copy(&mut File::open(new).with_context(read)?, &mut file.as_file()).with_context(failed)?;
        file.as_file().set_permissions(Permissions::from_mode(0o755)).with_context(failed)?;
        file.as_file().sync_all().with_context(failed)?;
        // What is open for writing can't be run.
        let file = file.into_temp_path();
        let version = version_of(&file)
            .await
            .with_context(|| format!("{} can't be the host's program", new.display()))?;
        Ok(Staged { file, version })
    }

    /// Puts the new program in this one's place, in one step for all who start it, and keeps this one beside it.
    pub fn replace(&self, staged: Staged) -> anyhow::Result<()> {
        let failed = || format!("can't replace {}", self.path.display());
        self.forget_former()?;
        // Where a file can't have two names, a copy does.
        fs::hard_link(&self.path, self.former())
            .or_else(|_| fs::copy(&self.path, self.former()).map(drop))
            .with_context(failed)?;
        staged.file.persist(&self.path).map_err(|refused| refused.error).with_context(failed)?;
        self.sync_folder().with_context(failed)
    }

    /// Puts the former program back.
    pub fn put_back(&self) -> anyhow::Result<()> {
        let failed = || format!("can't put {} back as {}", self.former().display(), self.path.display());
        fs::rename(self.former(), &self.path).with_context(failed)?;
        self.sync_folder().with_context(failed)
    }

    /// Removes the former program: the new one has shown that it runs.
    pub fn forget_former(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.former()) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                Err(why).with_context(|| format!("can't remove {}", self.former().display()))
            }
            _ => Ok(()),
        }
    }

    /// Where the former one is kept meanwhile.
    fn former(&self) -> PathBuf {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".former");
        self.path.with_file_name(name)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.folder())?.sync_all()
    }
}

/// The version that a program tells.
async fn version_of(program: &Path) -> anyhow::Result<Version> {
    let mut child = started(program).await.context("it can't be run here")?;
    let told = async {
        let mut text = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MOST_TOLD).read_to_end(&mut text).await?;
        }
        Ok::<_, io::Error>((child.wait().await?, text))
    };
    let told = tokio::time::timeout(TELLS, told).await;
    let (ended, text) = told.context("it doesn't tell its version (--version) in time")??;
    anyhow::ensure!(ended.success(), "it doesn't tell its version: `--version` ended with {ended}");
    let text = String::from_utf8_lossy(&text);
    let version = text.trim().strip_prefix("holdfast ").context("it is another program than holdfast")?;
    version.parse().map_err(anyhow::Error::msg)
}

/// Starts it. For a moment it may be open for writing still: in a child that another thread is about to make a program.
async fn started(program: &Path) -> io::Result<Child> {
    let mut tries = 0;
    loop {
        let mut command = Command::new(program);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        match command.kill_on_drop(true).spawn() {
            Err(why) if why.kind() == io::ErrorKind::ExecutableFileBusy && tries < MOST_TRIES => tries += 1,
            child => return child,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
    }

    #[tokio::test]
    async fn a_new_program_takes_the_place_of_the_former_one_which_can_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("holdfast"), dir.path().join("new"));
        script(&old, "the former one");
        script(&new, "#!/bin/sh\necho holdfast 0.2.0\n");
        let program = Program::at(old.clone());
        let staged = program.stage(&new).await.unwrap();
        assert_eq!(staged.version.to_string(), "0.2.0");
        assert_eq!(fs::read_to_string(&old).unwrap(), "the former one", "nothing has changed yet");
        program.replace(staged).unwrap();
        assert_eq!(fs::read(&old).unwrap(), fs::read(&new).unwrap());
        assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o777, 0o755);
        program.put_back().unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), "the former one");

        program.replace(program.stage(&new).await.unwrap()).unwrap();
        program.forget_former().unwrap();
        program.forget_former().unwrap();
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["holdfast", "new"]);
    }

    #[tokio::test]
    async fn what_can_t_be_the_hosts_program_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("holdfast"), dir.path().join("new"));
        script(&old, "the former one");
        let program = Program::at(old.clone());
        for (text, told) in [
            ("\u{7f}ELF of another machine", "can't be the host's program"),
            ("#!/bin/sh\nexit 3\n", "ended with exit status: 3"),
            ("#!/bin/sh\necho nginx 1.0.0\n", "it is another program than holdfast"),
            ("#!/bin/sh\necho holdfast next\n", "is no version"),
        ] {
            script(&new, text);
            let why = format!("{:#}", program.stage(&new).await.unwrap_err());
            assert!(why.contains(told), "{told}: {why}");
        }
        let itself = format!("{:#}", program.stage(&old).await.unwrap_err());
        assert!(itself.contains("is the host's program itself"), "{itself}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left");
    }
}
