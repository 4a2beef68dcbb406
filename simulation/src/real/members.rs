//! The members' processes: started, killed, stopped and let go on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pki::{Authority, HostNames};
use store::Revision;

use super::ground::{Disk, Kind, Links, MEMBERS};
use super::lie::Lie;
use super::member::Setup;
use super::protocol::{Answer, Ask, Line};

/// With less than this free on a member's disk, it refuses changes.
pub const RESERVE: u64 = 8 << 20;

/// All three.
pub struct Members {
    /// Their links.
    pub links: Links,
    members: Vec<Member>,
}

struct Member {
    disk: Disk,
    setup: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    child: RefCell<Option<Child>>,
}

#[allow(clippy::disallowed_methods, reason = "certificates are valid from now on")]
fn now() -> SystemTime {
    SystemTime::now()
}

impl Members {
    /// Makes disks, certificates and settings for three members, in `dir`; starts none.
    pub fn prepare(links: Links, dir: &Path, lie: Option<Lie>) -> anyhow::Result<Self> {
        let name = |n: usize| format!("n{}", n + 1);
        let peers: BTreeMap<_, _> = (0..MEMBERS).map(|n| (name(n), links.address(n))).collect();
        let pki = dir.join("pki");
        let authority = Authority::create("real faults", now())?;
        authority.trust()?.save(&pki)?;
        let mut members = Vec::new();
        for n in 0..MEMBERS {
            let (name, address) = (name(n), links.address(n).ip());
            let host = HostNames {
                name: name.clone(),
                address,
                virtual_address: address,
                first_service_address: address,
            };
            authority.host_identity(&host, now())?.save(&pki, &name)?;
            let disk = Disk::make(dir.join(&name), &links)?;
            let member = Member {
                setup: dir.join(format!("{name}.json")),
                socket: dir.join(format!("{name}.socket")),
                log: dir.join(format!("{name}.log")),
                child: RefCell::new(None),
                disk,
            };
            let setup = Setup {
                name,
                peers: peers.clone(),
                pki: pki.clone(),
                data: member.disk.folder(),
                socket: member.socket.clone(),
                reserve: if member.disk.kind == Kind::Shared { 0 } else { RESERVE },
                lie,
            };
            fs::write(&member.setup, serde_json::to_vec(&setup)?)?;
            members.push(member);
        }
        Ok(Members { links, members })
    }

    /// A member's disk.
    pub fn disk(&self, n: usize) -> &Disk {
        &self.members[n].disk
    }

    /// Where clients reach a member.
    pub fn socket(&self, n: usize) -> &Path {
        &self.members[n].socket
    }

    /// Starts a member's process.
    pub fn start(&self, n: usize) -> anyhow::Result<()> {
        let member = &self.members[n];
        let log = OpenOptions::new().create(true).append(true).open(&member.log)?;
        let namespace = self.links.namespace(n)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("member").arg(&member.setup);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: between fork and exec there are system calls only: nothing allocates or takes a lock.
        unsafe { command.pre_exec(move || settle(namespace.as_ref())) };
        *member.child.borrow_mut() = Some(command.spawn().context("can't start a member")?);
        Ok(())
    }

    /// Sends a member's process a signal.
    pub fn signal(&self, n: usize, signal: Signal) -> anyhow::Result<()> {
        if let Some(child) = &*self.members[n].child.borrow() {
            kill(Pid::from_raw(child.id() as i32), signal)?;
        }
        Ok(())
    }

    /// Kills a member's process, and waits for its end.
    pub fn kill(&self, n: usize) -> anyhow::Result<()> {
        if let Some(mut child) = self.members[n].child.borrow_mut().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Whether a member's process ended by itself: what it said last.
    pub fn ended(&self, n: usize) -> anyhow::Result<Option<String>> {
        let member = &self.members[n];
        let mut child = member.child.borrow_mut();
        let Some(status) = child.as_mut().map(Child::try_wait).transpose()?.flatten() else {
            return Ok(None);
        };
        *child = None;
        let log = fs::read_to_string(&member.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        let how = status.signal().map_or(format!("{status}"), |signal| format!("signal {signal}"));
        Ok(Some(format!("n{} ended by itself ({how}): {}", n + 1, tail.join(" | "))))
    }

    /// Asks a member on a connection of its own.
    pub async fn ask(&self, n: usize, ask: &Ask, patience: Duration) -> anyhow::Result<Answer> {
        Line::open(self.socket(n)).await?.ask(ask, patience).await
    }

    /// Which member leads, if one says so soon.
    pub async fn leader(&self) -> Option<usize> {
        for n in 0..MEMBERS {
            let asked = self.ask(n, &Ask::Leads, Duration::from_millis(200)).await;
            if matches!(asked, Ok(Answer::Leads(true))) {
                return Some(n);
            }
        }
        None
    }

    /// Asks a member until it carries a change out.
    pub async fn change(&self, n: usize, ask: &Ask, within: Duration) -> anyhow::Result<Revision> {
        let tries = within.as_millis() / PAUSE.as_millis();
        let mut last = String::new();
        for _ in 0..tries.max(1) {
            match self.ask(n, ask, Duration::from_secs(6)).await {
                Ok(Answer::Done(revision)) => return Ok(revision),
                Ok(other) => last = format!("{other:?}"),
                Err(problem) => last = format!("{problem:#}"),
            }
            if let Some(ended) = self.ended(n)? {
                bail!("{ended}");
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("n{} takes no writes: {last}", n + 1)
    }
}

const PAUSE: Duration = Duration::from_millis(50);

impl Drop for Members {
    fn drop(&mut self) {
        for n in 0..self.members.len() {
            // One that is gone needs no end.
            let _ = self.kill(n);
        }
    }
}

/// Puts a new process into its network, and binds it to this one's life.
fn settle(namespace: Option<&OwnedFd>) -> std::io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if let Some(namespace) = namespace {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
    }
    Ok(())
}
