//! The keeper of a pod that must not run twice: the shim's parent, which kills all of the pod once the host's lease is over.
//!
//! It waits for one time and does nothing else: it asks nobody, reads no file and writes none, so that neither an agent that hangs, is stopped or is
//! gone keeps it from that, nor a shim that waits for a slow disk. Until when the lease holds stands in memory that it shares with the
//! host's heartbeats ([`LeasePage`]). Once that time has passed by CLOCK_BOOTTIME, or another epoch has begun, the pod is killed
//! from the containers up, the shim last: so who sees the shim's end knows that nothing of the pod is left.
//!
//! It is the parent, so that whatever the shim leaves behind comes to it. If it ends itself, it has the shim end the pod.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use membership::LeasePage;
use membership::lease::{Boottime, Epoch};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getppid};

use super::{KEEPER, reaping, supervisor};
use crate::container::cgroup;

/// How often a lock is tried to be had that somebody else has for a moment.
const LOOKS: usize = 400;

/// By which lease a pod runs.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) epoch: Epoch,
    pub(super) page: LeasePage,
}

/// Is the keeper, and has a child that is the shim. The page is this process' output, and what its errors would go to is the cgroup of the
/// host's pods, where they have any.
///
/// # Errors
/// If the lease of this epoch is over, or the system refuses what either needs. Then nothing was started.
pub(super) fn run(epoch: Epoch) -> io::Result<()> {
    let page = LeasePage::of(io::stdout().as_fd().try_clone_to_owned()?)?;
    let cgroups = io::stderr().as_fd().try_clone_to_owned()?;
    // Neither is the pod's business.
    for stream in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        nothing_at(stream)?;
    }
    reaping::become_reaper()?;
    let mut heard = SigSet::empty();
    heard.add(Signal::SIGCHLD);
    heard.add(Signal::SIGTERM);
    heard.thread_block()?;
    let _left = hold_all_pods()?;
    let signals = SignalFd::with_flags(&heard, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let timer = Timer::make()?;
    if page.ends(epoch).is_none() {
        return Err(io::Error::other("the lease is over"));
    }
    let keeper = std::process::id();
    // SAFETY: this process has one thread.
    let shim = match unsafe { libc::fork() } {
        0 => {
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            // It may have ended just before.
            if u32::try_from(getppid().as_raw()) != Ok(keeper) {
                return Err(io::Error::other("the keeper is gone"));
            }
            return supervisor::run(Some(Lease { epoch, page }));
        }
        error if error < 0 => return Err(io::Error::last_os_error()),
        pid => pid,
    };
    // The connections' end is to be the shim's.
    nothing_at(libc::STDIN_FILENO)?;
    nix::sys::prctl::set_name(KEEPER)?;
    be_prompt();
    let kept = keep(epoch, &page, &timer, &signals, shim);
    if kept != Ok(Kept::Over) {
        // It would see its containers end, and not know why.
        let _ = kill(Pid::from_raw(shim), Signal::SIGSTOP);
        // First what a table of processes may be too slow for: one that makes others without end.
        if let Some(uid) = pod() {
            let _ = cgroup::kill_pod(cgroups.as_fd(), &uid);
        }
        reaping::kill_listed(shim);
        reaping::end_all_but(shim);
        let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
    }
    reaping::end_all_beneath();
    Ok(())
}

/// What ended the wait.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    /// The shim ended.
    Over,
    /// The lease ended, or somebody asked for the pod's end.
    Ended,
}

/// Waits until the pod must end, or has ended.
fn keep(
    epoch: Epoch,
    page: &LeasePage,
    timer: &Timer,
    signals: &SignalFd,
    shim: i32,
) -> Result<Kept, io::ErrorKind> {
    while let Some(until) = page.ends(epoch) {
        timer.set(until).map_err(|error| error.kind())?;
        wait([timer.0.as_raw_fd(), signals.as_fd().as_raw_fd()]).map_err(|error| error.kind())?;
        timer.clear();
        // Emptied before the dead are looked for: signals of one kind merge.
        while let Some(signal) = signals.read_signal().map_err(|errno| io::Error::from(errno).kind())? {
            if i32::try_from(signal.ssi_signo) == Ok(libc::SIGTERM) {
                return Ok(Kept::Ended);
            }
        }
        while let Some(pid) = reaping::dead_child() {
            reaping::bury(pid);
            if pid == shim {
                return Ok(Kept::Over);
            }
        }
    }
    Ok(Kept::Ended)
}

fn wait(files: [i32; 2]) -> io::Result<()> {
    let mut waits = files.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: the entries are initialised, two in number, and live through the call.
    match unsafe { libc::poll(waits.as_mut_ptr(), 2, -1) } {
        0.. => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            error => Err(error),
        },
    }
}

/// A timer by CLOCK_BOOTTIME: after the machine has slept, what has passed meanwhile has passed at once.
struct Timer(OwnedFd);

impl Timer {
    fn make() -> io::Result<Self> {
        // SAFETY: a system call on numbers.
        let made =
            unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made it for this process, and nobody else has it.
        Ok(Timer(unsafe { OwnedFd::from_raw_fd(made) }))
    }

    fn set(&self, at: Boottime) -> io::Result<()> {
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = libc::timespec {
            tv_sec: libc::time_t::try_from(at.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: at.subsec_nanos().into(),
        };
        let wanted = libc::itimerspec { it_interval: never, it_value };
        // SAFETY: the struct is initialised and lives through the call, which writes nothing.
        let set = unsafe {
            libc::timerfd_settime(
                self.0.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const wanted,
                std::ptr::null_mut(),
            )
        };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// That it rang is heard.
    fn clear(&self) {
        if let Ok(file) = self.0.try_clone() {
            let _ = std::fs::File::from(file).read(&mut [0; 8]);
        }
    }
}

/// Nobody reads or writes anything at this number any more.
fn nothing_at(stream: libc::c_int) -> io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    // SAFETY: a system call on numbers; the number is a standard stream's, which no other value owns.
    if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Holds a lock on the folder of all pods for as long as this process or the shim has it open: by that it is seen that something is left here that
/// must not run twice, without asking anybody (`fencing`'s watchdog). Where the file system knows no locks, no watchdog is armed either.
///
/// # Errors
/// If there is no such folder, or somebody else has the lock for seconds.
fn hold_all_pods() -> io::Result<Option<std::fs::File>> {
    let Some(folder) = std::env::args_os().nth(2) else { return Ok(None) };
    let Some(pods) = Path::new(&folder).parent() else { return Ok(None) };
    let pods = std::fs::File::open(pods)?;
    for _ in 0..LOOKS {
        // SAFETY: a system call on numbers.
        if unsafe { libc::flock(pods.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } == 0
            || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
        {
            return Ok(Some(pods));
        }
        // A watchdog's keeper looks, for microseconds.
        // SAFETY: there are no entries: it only waits.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 5) };
    }
    // Without it the watchdog would take what runs here for ended.
    Err(io::Error::other("somebody else keeps a lock (flock(2)) on the folder of all pods"))
}

/// The uid of the pod: its folder's name.
fn pod() -> Option<String> {
    let folder = std::env::args_os().nth(2)?;
    Path::new(&folder).file_name().and_then(OsStr::to_str).map(str::to_owned)
}

/// Takes its turn before others, stays in memory and is the last to be killed for want of it, as far as this process may ask for that.
fn be_prompt() {
    // MCL_ONFAULT: of the program only what is used, which is little. As long as it is in memory a disk that hangs holds up nothing here.
    let flags = libc::MCL_CURRENT | libc::MCL_ONFAULT;
    // SAFETY: system calls on numbers.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, -20);
        libc::mlockall(flags);
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    // What is needed in the end was needed once.
    reaping::look();
}
