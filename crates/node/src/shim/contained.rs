//! The containers of the pod, each in its current life, and the commands beside them.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;

use super::output::Output;
use super::reaping;
use super::wire::{Life, Told};
use crate::container::{LogFile, cgroup, open_terminal, signal_group};
use crate::host::{Command, Isolation, MountPlan, spawn};
use crate::oci::{self, Bundle, Spec, config_file};
use crate::runtime::{Begun, Exit, RunError, Streams};

/// Where an answer is awaited: on which connection, and to which of its questions.
pub(super) type Asker = (u64, u64);

/// A container in its current life.
#[derive(Debug)]
pub(super) struct Contained {
    pub(super) life: Life,
    pub(super) begun: Begun,
    /// How its process ended.
    pub(super) exit: Option<Exit>,
    pub(super) output: Output,
    /// What it reads.
    pub(super) input: Option<OwnedFd>,
    pub(super) terminal: Option<OwnedFd>,
    /// How commands are run beside it.
    recipe: Recipe,
    /// What its processes are in, where there are cgroups; the first holds them together.
    cgroups: Vec<OwnedFd>,
    pub(super) exit_asked: Vec<Asker>,
    /// With what they have seen.
    pub(super) log_asked: Vec<(Asker, u64)>,
}

/// How a container is made.
#[derive(Debug)]
pub(super) enum Recipe {
    /// A process of the host.
    Process(Box<Command>, Isolation),
    /// A root of its own, by its bundle.
    Bundle(Box<Spec>, Streams, Option<Bundle>),
}

impl Recipe {
    /// Reads the bundle in that folder; `host` is the mount namespace of the host.
    pub(super) fn of_bundle(
        folder: PathBuf,
        layers: Vec<PathBuf>,
        streams: Streams,
        host: Option<Arc<OwnedFd>>,
    ) -> Result<Self, RunError> {
        let text = std::fs::read(config_file(&folder)).map_err(system("read the bundle"))?;
        let spec = serde_json::from_slice(&text);
        let spec = spec.map_err(|why| RunError::Config(format!("the bundle makes no sense: {why}")))?;
        Ok(Recipe::Bundle(Box::new(spec), streams, Some(Bundle::new(folder, layers, host))))
    }

    /// Has the container begin in an open namespace of processes, which must stay open until then.
    pub(super) fn join(&mut self, processes: &OwnedFd) {
        if let Recipe::Bundle(spec, ..) = self {
            spec.join_processes(processes);
        }
    }

    fn streams(&self) -> Streams {
        match self {
            Recipe::Process(command, _) => command.streams,
            Recipe::Bundle(_, streams, _) => *streams,
        }
    }

    /// Makes the first process; from then on the recipe is for those beside it.
    fn start(&mut self, streams: [OwnedFd; 3], cgroups: &[OwnedFd]) -> Result<i32, RunError> {
        match self {
            Recipe::Process(command, isolation) => {
                if command.streams == Streams::Terminal {
                    give(&streams[0], command)?;
                }
                let pid = spawn(command, *isolation, streams, cgroups)?;
                command.beside = Some(pid);
                // What it saw mounted is its own affair from here on.
                command.plan = MountPlan::default();
                Ok(pid)
            }
            Recipe::Bundle(spec, _, bundle) => {
                let bundle = bundle.take().ok_or(RunError::Gone)?;
                oci::start(spec, &bundle, &streams, &entrances(cgroups)?)
            }
        }
    }

    fn exec(
        &self,
        argv: Vec<String>,
        streams: Streams,
        files: [OwnedFd; 3],
        cgroups: &[OwnedFd],
        beside: i32,
    ) -> Result<i32, RunError> {
        let is_terminal = streams == Streams::Terminal;
        match self {
            Recipe::Process(command, isolation) => {
                let mut command = Command { argv, streams, ..(**command).clone() };
                if is_terminal {
                    give(&files[0], &command)?;
                    if !command.env.iter().any(|(name, _)| name == "TERM") {
                        command.env.push(("TERM".into(), "xterm".into()));
                    }
                }
                spawn(&command, *isolation, files, cgroups)
            }
            Recipe::Bundle(spec, ..) => {
                let mut process = spec.process.clone();
                (process.args, process.terminal) = (argv, is_terminal);
                if is_terminal && !process.env.iter().any(|variable| variable.starts_with("TERM=")) {
                    process.env.push("TERM=xterm".into());
                }
                oci::exec(spec, &process, beside, &files, &entrances(cgroups)?)
            }
        }
    }
}

fn entrances(cgroups: &[OwnedFd]) -> Result<Vec<File>, RunError> {
    cgroup::entrances(cgroups).map_err(system("enter its cgroups"))
}

/// A command beside a container.
#[derive(Debug)]
pub(super) struct Beside {
    /// The question that began it.
    pub(super) by: Asker,
    pub(super) container: String,
    pub(super) pid: i32,
    /// Whether all of its session ends with it.
    pub(super) is_session: bool,
    pub(super) exit: Option<Exit>,
    /// Where its end is awaited.
    pub(super) asked: Option<Asker>,
    /// Whether nobody will ask any more.
    pub(super) is_unwanted: bool,
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> RunError {
    move |why| RunError::System(format!("{what}: {why}"))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), RunError> {
    pipe2(OFlag::O_CLOEXEC).map_err(|errno| system("make a pipe")(errno.into()))
}

/// Reading or writing at this end waits for nobody.
fn without_waiting(end: OwnedFd) -> Result<OwnedFd, RunError> {
    let set = || {
        let flags = OFlag::from_bits_retain(fcntl(&end, FcntlArg::F_GETFL)?);
        fcntl(&end, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))
    };
    set().map_err(|errno| system("set up a pipe")(errno.into()))?;
    Ok(end)
}

fn again(file: &OwnedFd) -> Result<OwnedFd, RunError> {
    file.try_clone().map_err(system("open a stream"))
}

fn nothing() -> Result<OwnedFd, RunError> {
    let null = File::options().read(true).write(true).open("/dev/null");
    null.map(OwnedFd::from).map_err(system("open /dev/null"))
}

/// A terminal belongs to its process' user.
fn give(terminal: &OwnedFd, command: &Command) -> Result<(), RunError> {
    match command.user.filter(|_| nix::unistd::geteuid().is_root()) {
        Some(user) => fchown(terminal, Some(user), None).map_err(system("make a terminal")),
        None => Ok(()),
    }
}

impl Contained {
    /// Starts it.
    pub(super) fn start(
        life: Life,
        mut recipe: Recipe,
        log: &Path,
        cgroups: Vec<OwnedFd>,
        since: jiff::Timestamp,
    ) -> Result<Self, RunError> {
        let log = LogFile::open(log, life.attempt).map_err(system("can't make the log"))?;
        let (mut input, mut terminal) = (None, None);
        let (streams, outputs) = match recipe.streams() {
            Streams::Terminal => {
                let (master, inside) = open_terminal().map_err(system("make a terminal"))?;
                terminal = Some(again(&master)?);
                ([again(&inside)?, again(&inside)?, inside], [Some(master), None])
            }
            Streams::Pipes | Streams::Outputs => {
                let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
                let stdin = if recipe.streams() == Streams::Pipes {
                    let (stdin, write) = pipe()?;
                    input = Some(without_waiting(write)?);
                    stdin
                } else {
                    nothing()?
                };
                let outputs = [Some(without_waiting(stdout)?), Some(without_waiting(stderr)?)];
                ([stdin, out, err], outputs)
            }
        };
        let pid = recipe.start(streams, &cgroups)?;
        Ok(Contained {
            life,
            begun: Begun { pid, since },
            exit: None,
            output: Output::new(outputs, log),
            input,
            terminal,
            recipe,
            cgroups,
            exit_asked: Vec::new(),
            log_asked: Vec::new(),
        })
    }

    /// Runs a command beside it, with these three streams.
    pub(super) fn exec(
        &self,
        argv: Vec<String>,
        streams: Streams,
        files: Vec<OwnedFd>,
    ) -> Result<i32, RunError> {
        let files: [OwnedFd; 3] =
            files.try_into().map_err(|_| RunError::System("three streams are needed".into()))?;
        self.recipe.exec(argv, streams, files, &self.cgroups, self.begun.pid)
    }

    /// Sends it a signal: to the group of a process of the host, whose first process may be a shell that passes nothing on; to
    /// the first process alone of a container with a root of its own, as other runtimes do.
    pub(super) fn signal(&self, signal: libc::c_int) {
        match self.recipe {
            Recipe::Process(..) => signal_group(self.begun.pid, signal),
            Recipe::Bundle(..) => {
                // SAFETY: a system call on numbers. It isn't buried yet: nobody else has its number.
                let _ = unsafe { libc::kill(self.begun.pid, signal) };
            }
        }
    }

    /// Kills what its first process, which is dead, left behind.
    pub(super) fn kill_rest(&self) {
        signal_group(self.begun.pid, libc::SIGKILL);
        if self.terminal.is_some() {
            reaping::end_session(self.begun.pid);
        }
        if matches!(self.recipe, Recipe::Bundle(..)) {
            // In a namespace of processes that others are in too, nothing else ends with the first one.
            self.kill_whole();
        }
    }

    /// Somebody sees what it prints, and gets what it reads or its terminal.
    pub(super) fn attach(
        &mut self,
        wanted: [bool; 2],
        files: Vec<OwnedFd>,
    ) -> Result<Vec<OwnedFd>, RunError> {
        let mut files = files.into_iter();
        let mut pipe = |wanted: bool| match wanted.then(|| files.next()).flatten() {
            Some(file) => without_waiting(file).map(Some),
            None => Ok(None),
        };
        let pipes = [pipe(wanted[0])?, pipe(wanted[1])?];
        self.output.watch(pipes);
        self.terminal.as_ref().or(self.input.as_ref()).map(again).into_iter().collect()
    }

    /// Kills all that is in its cgroup, whatever it forks meanwhile.
    pub(super) fn kill_whole(&self) {
        if let Some(cgroup) = self.cgroups.first() {
            // What this misses is found beneath the shim.
            let _ = cgroup::kill(cgroup.as_fd());
        }
    }

    pub(super) fn told(&self) -> Told {
        // An agent that hears of an end reads the last words and may begin the next life: not before the log is
        // complete.
        let exit = self.exit.filter(|_| self.output.is_over());
        Told { life: self.life.clone(), begun: self.begun, exit }
    }
}
