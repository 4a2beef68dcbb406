//! What a host is to its machine: a process, files, and what is mounted among them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use super::is_beneath;
use crate::tell::say;

/// How long a host may take to end in order, with its pods, before it is killed: as long as systemd gives it.
const ORDERLY: Duration = Duration::from_secs(90);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A process that runs a host.
pub struct Process {
    pub pid: i32,
    config: PathBuf,
}

/// The processes of `holdfast host` with this configuration.
pub fn hosts_of(config: &Path) -> Vec<Process> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
    let process = |pid| Process { pid, config: config.to_owned() };
    pids.filter(|pid| *pid != getpid().as_raw()).map(process).filter(Process::runs).collect()
}

impl Process {
    /// Whether it is still that. One that has ended, and that nobody has asked for its end yet, has no arguments any more.
    fn runs(&self) -> bool {
        let folder = PathBuf::from(format!("/proc/{}", self.pid));
        let arguments = fs::read(folder.join("cmdline")).unwrap_or_default();
        let arguments = arguments.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
        let arguments: Vec<OsString> = arguments.collect();
        let Some(named) = config_of(&arguments) else { return false };
        let named = fs::read_link(folder.join("cwd")).unwrap_or_default().join(named);
        // By whatever path it was named; and a program in a container means another file by the same one.
        let there = folder.join("root").join(named.strip_prefix("/").unwrap_or(&named));
        match (fs::metadata(&self.config), fs::metadata(there)) {
            (Ok(own), Ok(its)) => (own.dev(), own.ino()) == (its.dev(), its.ino()),
            (Ok(_), Err(why)) if why.kind() == io::ErrorKind::NotFound => false,
            // It isn't ours to look at, or the file is gone: its name is all that is left.
            _ => named == self.config,
        }
    }

    /// Asks it to end, with its pods, and waits for that.
    pub async fn end(&self) -> anyhow::Result<()> {
        for (signal, patience) in [(Signal::SIGTERM, ORDERLY), (Signal::SIGKILL, LOOK * 100)] {
            if !self.runs() {
                return Ok(());
            }
            match kill(Pid::from_raw(self.pid), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(why) => {
                    anyhow::bail!("can't end the host's process {}: {why}; run this as root", self.pid)
                }
            }
            let gone = async {
                while self.runs() {
                    tokio::time::sleep(LOOK).await;
                }
            };
            if tokio::time::timeout(patience, gone).await.is_ok() {
                return Ok(());
            }
            say!("the host's process {} doesn't end within {patience:?}", self.pid);
        }
        anyhow::bail!("the host's process {} can't be ended: it may wait for a disk", self.pid)
    }
}

/// The configuration that the arguments of `holdfast host` name.
fn config_of(arguments: &[OsString]) -> Option<PathBuf> {
    let program = Path::new(arguments.first()?).file_name()?.to_str()?;
    let words = arguments.get(1..).filter(|_| program.starts_with("holdfast"))?;
    let words = words.get(1..).filter(|_| words[0] == "host")?;
    let named = words.iter().position(|word| word == "--config").and_then(|at| words.get(at + 1).cloned());
    let joined = || words.iter().find_map(|word| Some(word.to_str()?.strip_prefix("--config=")?.into()));
    named.or_else(joined).map(PathBuf::from)
}

/// Removes a file, or a folder with all in it. What is mounted in it is unmounted first, and never emptied: that may be a volume of
/// somebody's.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    let failed = || format!("can't remove {}", path.display());
    let kind = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        kind => kind.with_context(failed)?,
    };
    if kind.is_symlink() {
        say!("{} is a link: what it leads to stays", path.display());
    }
    if !kind.is_dir() {
        return fs::remove_file(path).with_context(failed);
    }
    let folder = path.canonicalize().with_context(failed)?;
    unmount_beneath(&folder)?;
    match fs::remove_dir_all(&folder) {
        // It is a disk's own place, and empty now.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        removed => removed.with_context(failed),
    }
}

/// Removes a folder if nothing is in it.
pub fn remove_if_empty(folder: &Path) {
    // It may be somebody else's, not be there, or be a disk's own place.
    let _ = fs::remove_dir(folder);
}

fn unmount_beneath(folder: &Path) -> anyhow::Result<()> {
    loop {
        let mut mounts = mounts_beneath(folder)?;
        // Those of which others are part go after these.
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
        let Some(first) = mounts.first() else { return Ok(()) };
        // Of a folder of the machine that is shown here with all that is mounted in it, the mounts may be shared: what is unmounted here
        // would be unmounted there. What can't be set apart refuses the next step, or is no such thing.
        for one in &mounts {
            let none = None::<&str>;
            let _ = mount(none, one, none, MsFlags::MS_PRIVATE, none);
        }
        // Detached: what is still open there is nobody's business any more, as no pod runs.
        umount2(first, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).with_context(|| {
            format!("can't unmount {}; nothing in {} was removed", first.display(), folder.display())
        })?;
    }
}

fn mounts_beneath(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo").context("can't read what is mounted")?;
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(points.map(unescaped).filter(|point| is_beneath(point, folder)).collect())
}

/// A path as the table writes it: `\040` for a space, and so on (proc_pid_mountinfo(5)).
fn unescaped(path: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, others @ ..] = rest {
        let digits = others.get(..3).filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &others[3..] } else { others };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_its_configuration() {
        let of = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            config_of(&words)
        };
        assert_eq!(of("/usr/bin/holdfast host --config /etc/c.yaml"), Some("/etc/c.yaml".into()));
        assert_eq!(of("holdfast host --log-format json --config=c.yaml"), Some("c.yaml".into()));
        for other in [
            "holdfast up --config c",
            "holdfast",
            "vi host --config c",
            "holdfast host",
            "",
            "holdfast check --config c",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_host_is_known_by_whatever_path_its_configuration_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("etc")).unwrap();
        std::os::unix::fs::symlink(at("etc"), at("link")).unwrap();
        for name in ["etc/config.yaml", "etc/other.yaml"] {
            fs::write(at(name), "").unwrap();
        }
        // A program of this name, with these arguments, that reads what is never written: the shell takes the first for a script.
        fs::write(at("host"), "echo; read -r line").unwrap();
        let starts = |named: &str| {
            let mut host = std::process::Command::new("/bin/sh");
            std::os::unix::process::CommandExt::arg0(&mut host, "holdfast");
            host.args(["host", "--config", named]).current_dir(dir.path());
            host.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap()
        };
        for (named, is_known) in [("link/../etc/config.yaml", true), ("etc/other.yaml", false)] {
            let mut host = starts(named);
            io::Read::read_exact(host.stdout.as_mut().unwrap(), &mut [0]).unwrap();
            let pid = i32::try_from(host.id()).unwrap();
            let found = hosts_of(&at("etc/config.yaml"));
            assert_eq!(found.iter().any(|process| process.pid == pid), is_known, "{named}");
            host.kill().unwrap();
            host.wait().unwrap();
        }
    }

    #[test]
    fn mounts_are_found_beneath_a_folder_and_not_beside_it() {
        assert_eq!(unescaped(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescaped(br"/a\9\04"), Path::new(r"/a\9\04"));
        assert!(is_beneath(Path::new("/var/lib/data/x"), Path::new("/var/lib/data")));
        for other in ["/var/lib/data", "/var/lib/database", "/var"] {
            assert!(!is_beneath(Path::new(other), Path::new("/var/lib/data")), "{other}");
        }
        assert!(mounts_beneath(Path::new("/")).unwrap().contains(&"/proc".into()));
    }

    #[test]
    fn files_folders_and_links_go_and_what_links_lead_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("data/deep")).unwrap();
        fs::create_dir(at("kept")).unwrap();
        fs::write(at("kept/file"), "").unwrap();
        std::os::unix::fs::symlink(at("kept"), at("data/link")).unwrap();
        std::os::unix::fs::symlink(at("kept"), at("link")).unwrap();
        for name in ["data", "data", "link", "nothing"] {
            remove(&at(name)).unwrap();
        }
        assert!(!at("data").exists() && at("link").symlink_metadata().is_err());
        remove_if_empty(&at("kept"));
        assert!(at("kept/file").exists());
    }
}
