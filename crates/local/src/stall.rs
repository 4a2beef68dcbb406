//! Disks that stall: each sync of a host, and of all that it starts, waits until this process lets it go on, which it does at once, or later
//! while the disk is to stall.
//!
//! The kernel asks, by a filter of system calls (seccomp_unotify(2)): that takes neither a right, nor a disk of the host's own, nor a word to its
//! program. Only syncs are asked about. Reads, and writes to the kernel's cache, take as long as they do.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use libc::sock_filter;
use nix::errno::Errno;
use nix::sys::prctl;
use tracing::info_span;

/// By what a program makes sure that the disk has something.
const SYNCS: [libc::c_long; 6] = [
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_msync,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_sync_file_range,
];

// Of linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
// Where a call's number, and whose numbers they are, lie in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// From now on each sync of this thread, and of all processes that it starts, waits for an answer: [`Syncs::answered`] by what is returned. What is
/// asked once that is closed fails.
///
/// # Errors
/// A kernel, or a processor, that this can't be had on.
pub fn ask_before_syncs() -> io::Result<OwnedFd> {
    let mut program = program()?;
    let len = libc::c_ushort::try_from(program.len()).map_err(io::Error::other)?;
    let filter = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    let set = || {
        // SAFETY: the filter and its program live through the call, which copies them.
        let made = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const filter,
            )
        };
        if made < 0 { Err(io::Error::last_os_error()) } else { Ok(made) }
    };
    let made = match set() {
        // Who isn't root, not even in a user namespace, must first do without programs that give rights.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            prctl::set_no_new_privs()?;
            set()
        }
        made => made,
    };
    let made = made.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => io::Error::other(
            "this program runs under a filter that asks about its calls already, such as a container runtime's, and the kernel takes one",
        ),
        _ => error,
    })?;
    let made = i32::try_from(made).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for this call, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// The filter: asks about the syncs, and lets all else go on.
fn program() -> io::Result<Vec<sock_filter>> {
    // Of linux/audit.h.
    let native = match ARCH {
        "x86_64" => 0xc000_003e,
        "aarch64" => 0xc000_00b7,
        other => return Err(io::Error::other(format!("the system calls of {other} aren't known here"))),
    };
    let instruction = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    // Six of them.
    let count = SYNCS.len() as u8;
    let mut program = vec![
        instruction(LOAD_WORD, ARCHITECTURE, 0, 0),
        // Programs for another processor have other numbers, and are let be.
        instruction(JUMP_IF_EQUAL, native, 0, count + 1),
        instruction(LOAD_WORD, NUMBER, 0, 0),
    ];
    for (sync, left) in SYNCS.iter().zip((1..=count).rev()) {
        let number = u32::try_from(*sync).map_err(io::Error::other)?;
        program.push(instruction(JUMP_IF_EQUAL, number, left, 0));
    }
    program.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    program.push(instruction(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0));
    Ok(program)
}

/// The syncs of a host, which are answered until this is dropped.
#[derive(Debug)]
pub struct Syncs {
    /// How long each waits, in microseconds.
    wait: Arc<AtomicU64>,
    /// Its end ends the thread that answers.
    _asked: UnixStream,
}

impl Syncs {
    /// Answers what [`ask_before_syncs`] has the kernel ask.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn answered(listener: OwnedFd) -> io::Result<Self> {
        let wait = Arc::new(AtomicU64::new(0));
        let (asked, over) = UnixStream::pair()?;
        let time = wait.clone();
        tasks::thread("syncs", info_span!("answer syncs"), move || {
            if let Err(error) = answer(&listener, &over, &time) {
                // They fail rather than hang.
                tracing::error!(%error, "the syncs of a host can't be answered any more, and fail from here on: that needs Linux 5.5 or newer");
            }
        })?;
        Ok(Self { wait, _asked: asked })
    }

    /// How long each sync that is asked about from now on waits.
    pub fn wait(&self, time: Duration) {
        self.wait.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[allow(clippy::disallowed_methods)] // A driver: a sync waits from now on.
fn now() -> Instant {
    Instant::now()
}

/// Answers until `over` ends. Each sync waits by itself, as those of one disk do that takes several at a time.
fn answer(listener: &OwnedFd, over: &UnixStream, wait: &AtomicU64) -> io::Result<()> {
    // Those that wait, and until when: no more than the host has threads.
    let mut waiting: BTreeSet<(Instant, u64)> = BTreeSet::new();
    loop {
        let at = now();
        while let Some((_, id)) = waiting.first().copied().filter(|(due, _)| *due <= at) {
            waiting.pop_first();
            let_go_on(listener, id)?;
        }
        // Rounded up, as poll takes whole milliseconds.
        let left =
            waiting.first().map(|(due, _)| due.saturating_duration_since(at) + Duration::from_millis(1));
        let left = left.map_or(-1, |left| i32::try_from(left.as_millis()).unwrap_or(i32::MAX));
        let mut heard = [listener.as_raw_fd(), over.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: the entries are initialised, two in number, and live through the call.
        if unsafe { libc::poll(heard.as_mut_ptr(), 2, left) } < 0 && Errno::last() != Errno::EINTR {
            return Err(io::Error::last_os_error());
        }
        let [asked, ended] = heard.map(|entry| entry.revents);
        if ended != 0 {
            return Ok(());
        }
        if asked & libc::POLLIN != 0 {
            let Some(id) = next(listener)? else { continue };
            let wait = Duration::from_micros(wait.load(Ordering::Relaxed));
            if wait.is_zero() {
                let_go_on(listener, id)?;
            } else {
                waiting.insert((now() + wait, id));
            }
        } else if asked != 0 {
            // Nobody is left that could ask.
            return Ok(());
        }
    }
}

/// Which sync is asked about; none if it was given up meanwhile.
fn next(listener: &OwnedFd) -> io::Result<Option<u64>> {
    // SAFETY: all of it is numbers, and the kernel wants them to be 0.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the call's number says how much the kernel writes, which is what there is room for.
    let heard = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    match heard {
        0 => Ok(Some(asked.id)),
        _ => match Errno::last() {
            Errno::ENOENT | Errno::EINTR => Ok(None),
            error => Err(error.into()),
        },
    }
}

/// Lets the kernel do the call that it has asked about. Who was to do it may be gone, or have been called away by a signal: then it asks once more.
fn let_go_on(listener: &OwnedFd, id: u64) -> io::Result<()> {
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
    // SAFETY: the kernel reads as much as the call's number says, which is all of it.
    let told = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    match told {
        0 => Ok(()),
        _ => match Errno::last() {
            Errno::ENOENT => Ok(()),
            error => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;

    use super::*;
    use crate::process::{HostProcess, Starter};

    /// Writes a file and syncs it, in a process of its own. Returns how long that took.
    async fn sync(starter: &Starter, folder: &Path) -> Duration {
        let file = format!("of={}", folder.join("file").display());
        let host = HostProcess {
            name: "n1".into(),
            program: "dd".into(),
            arguments: ["if=/dev/zero", &file, "bs=1", "count=1", "conv=fsync"].map(OsString::from).to_vec(),
            log: folder.join("log"),
            namespace: None,
        };
        let began = now();
        let ended = starter.start(host).await.unwrap().wait().await.unwrap();
        assert!(ended.success(), "{:?}", std::fs::read_to_string(folder.join("log")));
        now() - began
    }

    #[tokio::test]
    async fn syncs_wait_while_the_disk_stalls_and_no_longer() {
        const STALL: Duration = Duration::from_millis(1500);
        if !testing::has_seccomp() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (starter, listener) = Starter::after(ask_before_syncs).unwrap();
        let syncs = Syncs::answered(listener).unwrap();
        syncs.wait(STALL);
        assert!(sync(&starter, folder.path()).await >= STALL);
        syncs.wait(Duration::ZERO);
        // However busy the machine is, once it takes less.
        let mut took = Duration::MAX;
        for _ in 0..10 {
            took = took.min(sync(&starter, folder.path()).await);
        }
        assert!(took < STALL, "{took:?}");
        // One that is given up stays in nobody's way.
        syncs.wait(Duration::from_secs(3600));
        let late = tokio::time::timeout(STALL, sync(&starter, folder.path())).await;
        assert!(late.is_err(), "it waits");
        syncs.wait(Duration::ZERO);
        sync(&starter, folder.path()).await;
    }
}
