//! The keeper of the watchdog: a process of its own, which feeds the device.
//!
//! It asks nobody: until when the lease holds stands in memory that it shares with the host's process ([`LeasePage`]), and whether anything is
//! left that must not run twice shows in a lock that such pods' keepers and shims hold on the folder of all pods for as long as they live. When the
//! host's process ends, for an upgrade or for good, it feeds the device until nothing of that kind is left, and then closes it in order.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use membership::lease::Terms;
use membership::{LeasePage, boottime};
use nix::sys::signal::{SigHandler, Signal, signal};

use super::device::Device;
use super::policy::{Count, Feeder};

/// The program's argument by which it is a keeper.
pub(super) const KEEPER: &str = "watchdog-keeper";
/// What it says once the device is armed, before its timeout in milliseconds.
pub(super) const ARMED: &str = "armed ";
/// What it says while it waits, before the reason.
pub(super) const WAITS: &str = "waits ";
/// What it says before it ends as the device can't be used, before the reason.
pub(super) const REFUSED: &str = "refused ";
/// After this time a device that somebody else feeds is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// A keeper's arguments, in this order.
struct Arguments {
    device: PathBuf,
    /// The folder of all pods.
    pods: PathBuf,
    count: Count,
}

impl Arguments {
    fn of(mut words: impl Iterator<Item = std::ffi::OsString>) -> Option<Self> {
        let (device, pods) = (words.next()?.into(), words.next()?.into());
        let mut time = || Some(Duration::from_millis(words.next()?.to_str()?.parse().ok()?));
        let terms = Terms { lease: time()?, fence: time()? };
        Some(Arguments { device, pods, count: Count { terms, beat: time()? } })
    }
}

/// If this process was started to be a keeper, is it until its end, with a device of this kind. To be called before anything else in `main`.
pub fn run_watchdog_keeper<D: Device>() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != KEEPER {
        return None;
    }
    let arguments = Arguments::of(words)?;
    // Who started it sees its end; what made it end was said before, if anything can be.
    Some(match be_keeper::<D>(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn be_keeper<D: Device>(arguments: &Arguments) -> io::Result<()> {
    // What ends the host's process ends this one by the end of their connection, in order.
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGPIPE] {
        // SAFETY: nothing of ours runs in a handler: there is none.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    let page = LeasePage::of(io::stdout().as_fd().try_clone_to_owned()?)?;
    let mut host = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // A host that is stopped hears nothing, and must not hold this up.
    host.set_nonblocking(true)?;
    let pods = File::open(&arguments.pods)?;
    if let Err(error) = lock(&pods, libc::LOCK_SH) {
        return say(&mut host, REFUSED, format!("{} can't be locked: {error}", arguments.pods.display()));
    }
    lock(&pods, libc::LOCK_UN)?;
    be_prompt();
    let Some(mut device) = open::<D>(arguments, &mut host)? else { return Ok(()) };
    let Some(mut feeder) = Feeder::new(arguments.count, device.timeout()) else {
        let timeout = device.timeout();
        device.disarm()?;
        let needed = arguments.count.needed(timeout).as_millis();
        return say(
            &mut host,
            REFUSED,
            format!(
                "it resets the machine after {timeout:?} at the least, when the others count the host's lease as over already: with \
                 timeouts.lease.fencedAfter of {needed}ms it would do"
            ),
        );
    };
    say(&mut host, ARMED, device.timeout().as_millis())?;
    let mut host = Some(host);
    loop {
        feeder.follow(page.held_for());
        let step = feeder.step(page.until(), || is_anything_left(&pods), boottime());
        if step.feeds {
            device.feed()?;
        }
        let is_over = match &host {
            Some(host) => is_over(host, step.wait)?,
            None => wait(None, step.wait)?,
        };
        if is_over {
            host = None;
        }
        if host.is_none() && !is_anything_left(&pods) {
            return device.disarm();
        }
    }
}

/// Opens the device; nothing if the host ended before, or it can't be had.
fn open<D: Device>(arguments: &Arguments, host: &mut UnixStream) -> io::Result<Option<D>> {
    let mut is_said = false;
    loop {
        match D::open(&arguments.device, arguments.count.candidates()) {
            Ok(device) => return Ok(Some(device)),
            // Most often this host's last keeper, with pods that go on.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                if !std::mem::replace(&mut is_said, true) {
                    say(
                        host,
                        WAITS,
                        "somebody else feeds it: systemd (RuntimeWatchdogSec), or this host's former process, whose pods go on",
                    )?;
                }
            }
            Err(error) => {
                say(host, REFUSED, error)?;
                return Ok(None);
            }
        }
        if is_over(host, AGAIN)? {
            return Ok(None);
        }
    }
}

fn say(host: &mut UnixStream, what: &str, more: impl std::fmt::Display) -> io::Result<()> {
    // Who is gone, or doesn't read, isn't waited for.
    match host.write_all(format!("{what}{more}\n").replace("\n ", " ").as_bytes()) {
        Err(error)
            if error.kind() != io::ErrorKind::BrokenPipe && error.kind() != io::ErrorKind::WouldBlock =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Waits so long at most, and answers whether the host's process is gone.
fn is_over(mut host: &UnixStream, most: Duration) -> io::Result<bool> {
    if !wait(Some(host), most)? {
        return Ok(false);
    }
    match host.read(&mut [0; 64]) {
        Ok(0) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(false)
        }
        // The other end went with something unread.
        Err(_) => Ok(true),
    }
}

/// Waits until there is something to read, or so long. Whether there is something.
fn wait(host: Option<&UnixStream>, most: Duration) -> io::Result<bool> {
    // A negative number is no file, and is skipped.
    let fd = host.map_or(-1, AsRawFd::as_raw_fd);
    let mut waits = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let most = libc::timespec {
        tv_sec: libc::time_t::try_from(most.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: most.subsec_nanos().into(),
    };
    // SAFETY: the entry and the time are initialised and live through the call; there is no mask.
    match unsafe { libc::ppoll(&raw mut waits, 1, &raw const most, std::ptr::null()) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}

/// Whether a pod's keeper or shim is left that has to do with what must not run twice. What can't be found out counts as if there was one.
fn is_anything_left(pods: &File) -> bool {
    match lock(pods, libc::LOCK_EX | libc::LOCK_NB) {
        Ok(()) => {
            let _ = lock(pods, libc::LOCK_UN);
            false
        }
        Err(_) => true,
    }
}

fn lock(file: &File, how: libc::c_int) -> io::Result<()> {
    // SAFETY: a system call on numbers.
    match unsafe { libc::flock(file.as_raw_fd(), how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes its turn before all others, stays in memory and is the last to be killed for want of it, as far as this process may ask for that.
fn be_prompt() {
    let flags = libc::MCL_CURRENT | libc::MCL_ONFAULT;
    // SAFETY: zero is a value of the struct; system calls on numbers and on that struct, which lives through its call. What is refused changes
    // nothing.
    unsafe {
        let mut first: libc::sched_param = std::mem::zeroed();
        first.sched_priority = 1;
        libc::setpriority(libc::PRIO_PROCESS, 0, -20);
        libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const first);
        libc::mlockall(flags);
    }
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}
