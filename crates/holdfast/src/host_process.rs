//! The processes that run this machine's host: found by its configuration, and asked to end.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use crate::tell::say;

/// How long a host may take to end in order, with its pods, before it is killed: as long as systemd gives it.
const ORDERLY: Duration = Duration::from_secs(90);
/// How long it may take to leave without its pods.
const LEAVES: Duration = Duration::from_secs(30);
/// How long one may take that was killed.
const DIES: Duration = Duration::from_secs(5);
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
        self.end_by(Signal::SIGTERM, ORDERLY).await
    }

    /// Asks it to leave, without its pods, and waits for that.
    pub async fn leave(&self) -> anyhow::Result<()> {
        self.end_by(Signal::SIGUSR2, LEAVES).await
    }

    /// The file of its program; the name that it had, where that is another file's by now, or nobody's.
    pub fn program(&self) -> io::Result<PathBuf> {
        let path = fs::read_link(format!("/proc/{}/exe", self.pid))?.into_os_string().into_vec();
        // As the kernel marks it (proc_pid_exe(5)).
        let path = path.strip_suffix(b" (deleted)").map(<[u8]>::to_vec).unwrap_or(path);
        Ok(PathBuf::from(OsString::from_vec(path)))
    }

    /// Whether its program is the file that lies there now.
    pub fn is_of(&self, program: &Path) -> bool {
        let place = |path: &Path| fs::metadata(path).map(|about| (about.dev(), about.ino())).ok();
        let own = place(&PathBuf::from(format!("/proc/{}/exe", self.pid)));
        own.is_some() && own == place(program)
    }

    /// Who started it, by the name of that program, and may start it again.
    pub fn parent(&self) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim();
        Some(fs::read_to_string(format!("/proc/{parent}/comm")).ok()?.trim().to_owned())
    }

    async fn end_by(&self, signal: Signal, patience: Duration) -> anyhow::Result<()> {
        for (signal, patience) in [(signal, patience), (Signal::SIGKILL, DIES)] {
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
            let found = found.iter().find(|process| process.pid == pid);
            assert_eq!(found.is_some(), is_known, "{named}");
            if let Some(process) = found {
                assert_eq!(process.program().unwrap(), Path::new("/bin/sh").canonicalize().unwrap());
                assert!(process.is_of(Path::new("/bin/sh")) && !process.is_of(&at("host")));
                assert!(process.parent().is_some_and(|parent| !parent.is_empty()));
            }
            host.kill().unwrap();
            host.wait().unwrap();
        }
    }
}
