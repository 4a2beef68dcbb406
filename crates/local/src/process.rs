//! Host processes: how they start, and what ties them to this one.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid, sethostname, setsid};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tracing::info_span;

/// Why a host's process can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its log can't be opened.
    #[error("can't open the log {path}: {why}")]
    Log {
        /// The log.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The program can't be run.
    #[error("can't start {program}: {why}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The thread that starts hosts is gone.
    #[error("can't start a host: the cluster is being taken down")]
    Ending,
}

/// What to start.
#[derive(Debug)]
pub struct HostProcess {
    /// The host's name: its host name where it has one of its own.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where its output goes.
    pub log: PathBuf,
    /// The network namespace that it lives in; none for this process' own.
    pub namespace: Option<OwnedFd>,
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that all hosts are started from. The kernel kills a host when the thread that started it ends
/// (prctl(2), `PR_SET_PDEATHSIG`), however this process ends; so the thread lives as long as the cluster.
#[derive(Debug)]
pub struct Starter {
    jobs: mpsc::Sender<Job>,
}

impl Starter {
    /// Starts the thread.
    pub fn new() -> io::Result<Self> {
        Ok(Self::after(|| Ok(()))?.0)
    }

    /// Starts the thread, which does `first` before all else: all hosts that it starts inherit what becomes of it by that.
    pub fn after<T: Send + 'static>(
        first: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<(Self, T)> {
        let (jobs, received) = mpsc::channel::<Job>();
        let (sender, done) = mpsc::channel();
        tasks::thread("power", info_span!("power"), move || {
            let outcome = first();
            let is_ready = outcome.is_ok();
            // It is waited for.
            let _ = sender.send(outcome);
            while is_ready && let Ok(job) = received.recv() {
                job();
            }
        })?;
        let made = done.recv().map_err(io::Error::other)??;
        Ok((Self { jobs }, made))
    }

    /// Starts a host's process.
    pub async fn start(&self, host: HostProcess) -> Result<Child, Error> {
        let runtime = tokio::runtime::Handle::current();
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            let _context = runtime.enter();
            // A receiver that is gone drops the child, which dies with it.
            let _ = sender.send(spawn(host));
        };
        self.jobs.send(Box::new(job)).map_err(|_| Error::Ending)?;
        receiver.await.map_err(|_| Error::Ending)?
    }
}

fn spawn(host: HostProcess) -> Result<Child, Error> {
    let HostProcess { name, program, arguments, log, namespace } = host;
    let open = || {
        let file = OpenOptions::new().create(true).append(true).open(&log)?;
        Ok((file.try_clone()?, file))
    };
    let (output, errors) = open().map_err(|why| Error::Log { path: log.clone(), why })?;
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::from(output)).stderr(Stdio::from(errors));
    command.kill_on_drop(true);
    let launcher = getpid();
    // SAFETY: between fork and exec there are system calls only: nothing allocates or takes a lock.
    unsafe { command.pre_exec(move || enter(launcher, namespace.as_ref(), &name)) };
    command.spawn().map_err(|why| Error::Start { program, why })
}

/// Makes the new process a host: in a session of its own, the root of all that it starts, bound to the
/// launcher's life, and in its namespaces.
fn enter(launcher: Pid, namespace: Option<&OwnedFd>, name: &str) -> io::Result<()> {
    setsid()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The launcher may have died before the kernel knew of the wish: then nobody would ever end this host.
    if getppid() != launcher {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    prctl::set_child_subreaper(true)?;
    keep_out_strangers()?;
    let Some(namespace) = namespace else { return Ok(()) };
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
    // A name, mounts and shared memory of its own are good to have; a host that is refused them still runs.
    if unshare(CloneFlags::CLONE_NEWUTS).is_ok() {
        let _ = sethostname(name);
    }
    let _ = unshare(CloneFlags::CLONE_NEWIPC);
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        let none: Option<&str> = None;
        let _ = mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none);
    }
    Ok(())
}

/// Lets no descriptor that the launcher's own shell left open reach the host, and its pods: only input, output and
/// errors go on. They are closed by the exec, as the namespace is entered first.
fn keep_out_strangers() -> io::Result<()> {
    const FIRST: libc::c_uint = libc::STDERR_FILENO as libc::c_uint + 1;
    // SAFETY: the call takes numbers, and closes nothing yet.
    let marked =
        unsafe { libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    match marked {
        0 => Ok(()),
        // A kernel before 5.11 doesn't know the flag; the host runs there too.
        _ if matches!(Errno::last(), Errno::EINVAL | Errno::ENOSYS) => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
