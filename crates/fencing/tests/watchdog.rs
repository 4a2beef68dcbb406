//! A watchdog's keeper, as the process that it is, with a pipe for a device, which tells when it is fed and closed. The keepers are this program
//! itself, so it has no harness around it.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use fencing::{Device, Options, State, Watchdog};
use membership::lease::Terms;
use membership::{LeasePage, boottime};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(30);
/// A device that waits for a second is fed several times within this.
const UNFED: Duration = Duration::from_millis(600);
const LEASE: Duration = Duration::from_millis(1500);
const NAME: &str = "a_watchdog_is_fed_while_the_lease_holds_or_nothing_is_left_and_closed_in_order";

fn main() -> ExitCode {
    if let Some(ended) = fencing::run_watchdog_keeper::<Pipe>() {
        return ended;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().find(|argument| !argument.starts_with('-')) {
        _ if arguments.iter().any(|argument| argument == "--list") => {}
        Some(filter) if !NAME.contains(filter.as_str()) => {}
        _ => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(fed_while_the_lease_holds_or_nothing_is_left());
            runtime.block_on(an_orphan_goes_on_until_nothing_is_left());
            runtime.block_on(a_device_that_is_too_slow_is_closed_and_told_of());
            println!("test {NAME} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// A pipe that is a device, with the timeout that its name says in seconds.
struct Pipe(File, Duration);

impl Device for Pipe {
    fn open(path: &Path, mut seconds: impl Iterator<Item = u32>) -> io::Result<Self> {
        assert!(seconds.next().is_some());
        if path.with_extension("busy").exists() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        Ok(Pipe(File::options().write(true).open(path)?, Duration::from_secs(name.parse().unwrap())))
    }

    fn timeout(&self) -> Duration {
        self.1
    }

    fn feed(&mut self) -> io::Result<()> {
        self.0.write_all(b"f")
    }

    fn disarm(mut self) -> io::Result<()> {
        self.0.write_all(b"V")
    }
}

/// A host with a watchdog, whose lease is held while `holds` says so.
struct Host {
    folder: tempfile::TempDir,
    page: LeasePage,
    holds: Arc<AtomicBool>,
    device: PathBuf,
    /// What is written to the device.
    written: Receiver<u8>,
}

impl Host {
    fn new(seconds: u32) -> Host {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join(seconds.to_string());
        std::fs::create_dir(folder.path().join("pods")).unwrap();
        let path = std::ffi::CString::new(device.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is a string that ends with a zero and lives through the call.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        // Also for writing: that its writers come and go ends it for nobody.
        let mut pipe = File::options().read(true).write(true).open(&device).unwrap();
        let (says, written) = channel();
        std::thread::spawn(move || {
            let mut byte = [0];
            while pipe.read_exact(&mut byte).is_ok() && says.send(byte[0]).is_ok() {}
        });
        let (page, holds) = (LeasePage::create().unwrap(), Arc::new(AtomicBool::new(true)));
        tokio::spawn({
            let (page, holds) = (page.clone(), holds.clone());
            async move {
                loop {
                    if holds.load(Ordering::Relaxed) {
                        page.set(7, Some(boottime() + LEASE));
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Host { folder, page, holds, device, written }
    }

    fn start(&self) -> (JoinHandle<()>, watch::Receiver<State>) {
        let (watchdog, state) = Watchdog::new(Options {
            device: self.device.clone(),
            pods: self.folder.path().join("pods"),
            program: "/proc/self/exe".into(),
            page: self.page.clone(),
            terms: Terms { lease: LEASE, fence: Duration::from_secs(2) },
            beat: Duration::from_millis(50),
        });
        (tokio::spawn(watchdog.run()), state)
    }

    /// A pod that must not run twice, as long as this is held.
    fn pod(&self) -> File {
        let pods = File::open(self.folder.path().join("pods")).unwrap();
        // SAFETY: a system call on numbers.
        assert_eq!(unsafe { libc::flock(pods.as_raw_fd(), libc::LOCK_SH) }, 0);
        pods
    }

    fn is_fed(&self) {
        assert_eq!(self.written.recv_timeout(SOON), Ok(b'f'));
    }

    /// Waits until the device isn't fed any more.
    fn is_left_alone(&self) {
        loop {
            match self.written.recv_timeout(UNFED) {
                Ok(byte) => assert_eq!(byte, b'f'),
                Err(RecvTimeoutError::Timeout) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Waits until it is closed in order.
    fn is_closed(&self) {
        while self.written.recv_timeout(SOON).unwrap() != b'V' {}
    }

    /// The process that feeds it.
    fn keeper(&self) -> Option<Pid> {
        let device = self.device.as_os_str().as_bytes();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let is_keeper = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(2) == Some(device)
        };
        let mut pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        pids.find(is_keeper).map(Pid::from_raw)
    }
}

async fn until(state: &mut watch::Receiver<State>, wanted: impl FnMut(&State) -> bool) -> State {
    timeout(SOON, state.wait_for(wanted)).await.expect("in time").unwrap().clone()
}

async fn fed_while_the_lease_holds_or_nothing_is_left() {
    let host = Host::new(1);
    let busy = host.device.with_extension("busy");
    std::fs::write(&busy, "").unwrap();
    let (running, mut state) = host.start();
    let waits = |state: &State| matches!(state, State::Off(why) if why.contains("somebody else feeds it"));
    until(&mut state, waits).await;
    std::fs::remove_file(busy).unwrap();
    until(&mut state, |state| *state == State::Armed(Duration::from_secs(1))).await;
    let pod = host.pod();
    host.is_fed();
    // Nobody hears the host any more, and the pod doesn't stop.
    host.holds.store(false, Ordering::Relaxed);
    host.is_left_alone();
    drop(pod);
    host.is_fed();
    // Somebody kills the keeper: nobody closes the device, and the next one feeds it.
    let killed = host.keeper().unwrap();
    kill(killed, Signal::SIGKILL).unwrap();
    let follows = async {
        while host.keeper().is_none_or(|keeper| keeper == killed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, follows).await.expect("another keeper");
    // More than what was written before.
    (0..20).for_each(|_| host.is_fed());
    running.abort();
    host.is_closed();
}

async fn an_orphan_goes_on_until_nothing_is_left() {
    let host = Host::new(1);
    let (running, mut state) = host.start();
    until(&mut state, |state| matches!(state, State::Armed(_))).await;
    let pod = host.pod();
    let keeper = host.keeper().unwrap();
    // An upgrade: the pod stays, and the next process renews the lease.
    running.abort();
    let _ = running.await;
    // More than what was written before.
    (0..20).for_each(|_| host.is_fed());
    drop(pod);
    host.is_closed();
    let ends = async {
        while Path::new("/proc").join(keeper.to_string()).join("exe").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, ends).await.expect("the keeper ends");
}

async fn a_device_that_is_too_slow_is_closed_and_told_of() {
    let host = Host::new(2);
    let (running, mut state) = host.start();
    let refused = |state: &State| matches!(state, State::Off(why) if why.contains("timeouts.lease.fencedAfter of 2800ms"));
    until(&mut state, refused).await;
    host.is_closed();
    running.abort();
}
