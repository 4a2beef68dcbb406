//! The shim's loop: hears the agent, the dead and the containers' output, in turn.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::contained::{Asker, Beside, Contained, Recipe};
use super::keeper::Lease;
use super::peer::{Peer, Question};
use super::reaping;
use super::wire::{Answer, Ask, Life, VERSION};
use crate::container::signal_group;
use crate::oci::{self, Held, Namespace, Wanted};
use crate::runtime::{Begun, Exit, RunError, Streams};

struct Supervisor {
    listener: UnixListener,
    /// By which lease of the host the pod runs, if by one.
    lease: Option<Lease>,
    signals: SignalFd,
    peers: Vec<Peer>,
    next_peer: u64,
    sandbox: Option<Held>,
    containers: BTreeMap<String, Contained>,
    commands: Vec<Beside>,
    trouble_asked: Vec<Asker>,
    is_ending: bool,
}

/// Runs until the pod ends. The socket to listen at is this process' input. The pod stops with the lease, if there is one: that is its
/// keeper's to see to (`keeper`).
///
/// # Errors
/// If there is no such socket, or the system refuses what a shim needs.
pub(super) fn run(lease: Option<Lease>) -> io::Result<()> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    // The loop's own name in the table of processes: it was executed by a path that says nothing.
    nix::sys::prctl::set_name(c"holdfast-shim")?;
    reaping::become_reaper()?;
    let mut heard = SigSet::empty();
    heard.add(Signal::SIGCHLD);
    heard.add(Signal::SIGTERM);
    heard.thread_block()?;
    let signals = SignalFd::with_flags(&heard, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let mut supervisor = Supervisor {
        listener,
        lease,
        signals,
        peers: Vec::new(),
        next_peer: 0,
        sandbox: None,
        containers: BTreeMap::new(),
        commands: Vec::new(),
        trouble_asked: Vec::new(),
        is_ending: false,
    };
    while !supervisor.is_ending {
        supervisor.wait()?;
        supervisor.turn()?;
    }
    supervisor.containers.values().for_each(Contained::kill_whole);
    reaping::end_all_beneath();
    // Agents take the end of their connection for the shim's own: it comes with the process'.
    std::mem::forget(supervisor);
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the shim's driver")]
fn now() -> (Instant, Timestamp) {
    (Instant::now(), Timestamp::now())
}

impl Supervisor {
    /// Waits until something is to be done.
    fn wait(&self) -> io::Result<()> {
        let mut waits = Vec::new();
        let mut wait = |fd, events| waits.push(libc::pollfd { fd, events, revents: 0 });
        wait(self.listener.as_raw_fd(), libc::POLLIN);
        wait(self.signals.as_fd().as_raw_fd(), libc::POLLIN);
        for (fd, events) in self.peers.iter().map(Peer::interest) {
            wait(fd, events);
        }
        self.containers.values().for_each(|container| container.output.interests(&mut wait));
        let wake = self.containers.values().filter_map(|container| container.output.wake()).min();
        // Rounded up: poll takes whole milliseconds, and woken before its time this loop would spin until it comes.
        let left = wake.map(|wake| wake.saturating_duration_since(now().0) + Duration::from_millis(1));
        let left = left.map_or(-1, |left| i32::try_from(left.as_millis()).unwrap_or(i32::MAX));
        let count = libc::nfds_t::try_from(waits.len()).unwrap_or(0);
        // SAFETY: the entries are initialised, are `count` in number, and live through the call.
        match unsafe { libc::poll(waits.as_mut_ptr(), count, left) } {
            0.. => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Does all that can be done now.
    fn turn(&mut self) -> io::Result<()> {
        // Emptied before the dead are looked for: signals of one kind merge, and that of a child that dies after the
        // look must be a new one.
        while let Some(signal) = self.signals.read_signal()? {
            self.is_ending |= i32::try_from(signal.ssi_signo) == Ok(libc::SIGTERM);
        }
        self.bury();
        while let Ok((stream, _)) = self.listener.accept() {
            self.next_peer += 1;
            self.peers.extend(Peer::new(self.next_peer, stream));
        }
        let mut gone = Vec::new();
        for number in self.peers.iter().map(|peer| peer.number).collect::<Vec<_>>() {
            while let Some(peer) = self.peers.iter_mut().find(|peer| peer.number == number) {
                match peer.flush().and_then(|()| peer.next()) {
                    Ok(Some(question)) => self.asked(number, question),
                    Ok(None) => break,
                    Err(_) => {
                        gone.push(number);
                        break;
                    }
                }
            }
        }
        let (now, wall) = now();
        for container in self.containers.values_mut() {
            container.output.pump(now, wall);
        }
        self.tell();
        for peer in &mut self.peers {
            if peer.flush().is_err() {
                gone.push(peer.number);
            }
        }
        self.peers.retain(|peer| !gone.contains(&peer.number));
        self.trouble_asked.retain(|by| !gone.contains(&by.0));
        // A command ends with the connection that asked for it.
        for command in self.commands.iter().filter(|command| gone.contains(&command.by.0)) {
            kill_command(command);
        }
        self.commands.retain(|command| command.exit.is_none() || !gone.contains(&command.by.0));
        Ok(())
    }

    /// Buries who died.
    fn bury(&mut self) {
        while let Some(pid) = reaping::dead_child() {
            let end = || {
                let (code, signal) = reaping::bury(pid);
                Exit { code, signal, at: now().1 }
            };
            let is_it = |container: &&mut Contained| container.begun.pid == pid && container.exit.is_none();
            if let Some(container) = self.containers.values_mut().find(is_it) {
                // With its first process the container is over: whatever that left behind in its group ends too, and
                // the jobs of a shell on its terminal. As long as it isn't buried nobody else has its number.
                container.kill_rest();
                container.exit = Some(end());
                container.output.ended(now().0);
                container.input = None;
                let name = &container.life.container;
                self.commands.iter().filter(|beside| beside.container == *name).for_each(kill_command);
            } else if let Some(command) =
                self.commands.iter_mut().find(|command| command.pid == pid && command.exit.is_none())
            {
                signal_group(pid, libc::SIGKILL);
                if command.is_session {
                    reaping::end_session(pid);
                }
                command.exit = Some(end());
            } else {
                reaping::bury(pid);
            }
        }
    }

    fn asked(&mut self, peer: u64, question: Question) {
        let Question { number, ask, files } = question;
        let by = (peer, number);
        let done = |result: Result<Answer, RunError>| Some(result.unwrap_or_else(Answer::Failed));
        let answer = match ask {
            Ask::Hello => {
                let lives = self.containers.values().map(Contained::told).collect();
                let lease = self.lease.as_ref().map(|lease| lease.epoch);
                let page = self.lease.as_ref().and_then(|lease| lease.page.file().try_clone_to_owned().ok());
                let hello = Answer::Hello { version: VERSION, lives, lease };
                return self.answer(by, &hello, page.into_iter().collect());
            }
            Ask::Start { life, command, isolation, log } => {
                let recipe = Recipe::Process(command, isolation);
                done(self.start(life, recipe, &log, files).map(Answer::Begun))
            }
            Ask::Sandbox(wanted) => done(self.hold(&wanted).map(Answer::Sandbox)),
            Ask::Network => match self.sandbox.as_ref().and_then(Held::network) {
                Some(file) => return self.answer(by, &Answer::Network, vec![file]),
                None => Some(Answer::Failed(RunError::Gone)),
            },
            Ask::StartBundle { life, folder, layers, streams, log, target } => {
                let host = self.sandbox.as_ref().and_then(Held::host_mounts);
                let recipe = Recipe::of_bundle(folder, layers, streams, host);
                let start = |recipe| match target {
                    Some(target) => self.start_beside(&target, life, recipe, &log, files),
                    None => self.start(life, recipe, &log, files),
                };
                done(recipe.and_then(start).map(Answer::Begun))
            }
            Ask::Exit(life) => match self.of(&life) {
                Some(container) => {
                    container.exit_asked.push(by);
                    None
                }
                None => Some(Answer::Failed(RunError::Gone)),
            },
            Ask::Signal { life, signal } => {
                if let Some(container) = self.of(&life).filter(|container| container.exit.is_none()) {
                    container.signal(signal);
                }
                Some(Answer::Done)
            }
            Ask::Exec { life, argv, streams } => {
                let container = self.of(&life).filter(|container| container.exit.is_none());
                let made = container.ok_or(RunError::Gone).and_then(|c| c.exec(argv, streams, files));
                done(made.map(|pid| {
                    let container = life.container;
                    // What a probe starts in a session of its own stays, as it does upstream, and others' sessions are
                    // looked for in the whole table of processes: not for each probe.
                    let is_session = streams != Streams::Outputs;
                    let (exit, asked, is_unwanted) = (None, None, false);
                    let beside = Beside { by, container, pid, is_session, exit, asked, is_unwanted };
                    self.commands.push(beside);
                    Answer::Begun(Begun { pid, since: now().1 })
                }))
            }
            Ask::ExecExit(of) => match self.commands.iter_mut().find(|command| command.by == (peer, of)) {
                Some(command) => {
                    command.asked = Some(by);
                    None
                }
                None => Some(Answer::Failed(RunError::Gone)),
            },
            Ask::ExecKill(of) => {
                for command in self.commands.iter_mut().filter(|command| command.by == (peer, of)) {
                    kill_command(command);
                    command.is_unwanted = true;
                }
                Some(Answer::Done)
            }
            Ask::Attach { life, stdout, stderr } => {
                let container = self.of(&life).filter(|container| !container.output.is_over());
                let attached =
                    container.ok_or(RunError::Gone).and_then(|c| c.attach([stdout, stderr], files));
                match attached {
                    Ok(files) => return self.answer(by, &Answer::Attached, files),
                    Err(error) => Some(Answer::Failed(error)),
                }
            }
            Ask::CloseInput(life) => {
                if let Some(container) = self.of(&life) {
                    container.input = None;
                }
                Some(Answer::Done)
            }
            Ask::Log { life, seen } => match self.of(&life) {
                Some(container) => {
                    container.log_asked.push((by, seen));
                    None
                }
                None => Some(Answer::Failed(RunError::Gone)),
            },
            Ask::Trouble => {
                self.trouble_asked.push(by);
                None
            }
            Ask::End => {
                self.is_ending = true;
                None
            }
        };
        if let Some(answer) = answer {
            self.answer(by, &answer, Vec::new());
        }
    }

    fn of(&mut self, life: &Life) -> Option<&mut Contained> {
        self.containers.get_mut(&life.container).filter(|container| container.life == *life)
    }

    fn start(
        &mut self,
        life: Life,
        recipe: Recipe,
        log: &Path,
        files: Vec<OwnedFd>,
    ) -> Result<Begun, RunError> {
        let before = self.containers.get(&life.container);
        if before.is_some_and(|before| before.exit.is_none() || !before.output.is_over()) {
            return Err(RunError::System("its last life isn't over".into()));
        }
        let container = Contained::start(life, recipe, log, files, now().1)?;
        let begun = container.begun;
        self.containers.insert(container.life.container.clone(), container);
        Ok(begun)
    }

    /// Starts a container among the processes of another.
    fn start_beside(
        &mut self,
        target: &Life,
        life: Life,
        mut recipe: Recipe,
        log: &Path,
        files: Vec<OwnedFd>,
    ) -> Result<Begun, RunError> {
        let of = self.of(target).filter(|container| container.exit.is_none());
        let of = of.ok_or_else(|| RunError::no_target(&target.container))?.begun.pid;
        // Nobody else has its first process' number before that is buried, here; and an open namespace stays the one that it is.
        let processes = oci::processes_of(of).map_err(RunError::System)?;
        recipe.join(&processes);
        let begun = self.start(life, recipe, log, files);
        // With that process dead, nothing more is made in its namespace.
        begun.map_err(|why| if reaping::is_dead(of) { RunError::no_target(&target.container) } else { why })
    }

    /// What all of the pod's containers share; made if it isn't there.
    fn hold(&mut self, wanted: &Wanted) -> Result<Vec<Namespace>, RunError> {
        let held = match self.sandbox.take() {
            Some(held) => held,
            None => Held::make(wanted).map_err(RunError::System)?,
        };
        Ok(self.sandbox.insert(held).namespaces())
    }

    /// Answers the questions whose time has come.
    fn tell(&mut self) {
        let mut answers: Vec<(Asker, Answer)> = Vec::new();
        for container in self.containers.values_mut() {
            let name = &container.life.container;
            // The commands were killed when the container was buried. Nothing of this life may run any more when the
            // agent hears of its end.
            let is_alone =
                !self.commands.iter().any(|beside| beside.container == *name && beside.exit.is_none());
            if let Some(exit) = container.exit.filter(|_| is_alone && container.output.is_over()) {
                answers.extend(container.exit_asked.drain(..).map(|by| (by, Answer::Exit(exit))));
            }
            let progress = container.output.progress();
            container.log_asked.retain(|(by, seen)| {
                let is_news = progress.writes > *seen || progress.ended;
                if is_news {
                    answers.push((*by, Answer::Log(progress)));
                }
                !is_news
            });
        }
        self.commands.retain(|command| match (command.exit, command.asked) {
            (Some(exit), Some(by)) => {
                answers.push((by, Answer::Exit(exit)));
                false
            }
            (Some(_), None) => !command.is_unwanted,
            _ => true,
        });
        let trouble =
            |container: &mut Contained| Some((container.life.clone(), container.output.take_trouble()?));
        if !self.trouble_asked.is_empty()
            && let Some((life, why)) = self.containers.values_mut().find_map(trouble)
        {
            let answer = |by| (by, Answer::Trouble { life: life.clone(), why: why.clone() });
            answers.extend(self.trouble_asked.drain(..).map(answer));
        }
        for (by, answer) in answers {
            self.answer(by, &answer, Vec::new());
        }
    }

    /// A peer that is gone gets no answer.
    fn answer(&mut self, by: Asker, answer: &Answer, files: Vec<OwnedFd>) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.number == by.0) {
            peer.answer(by.1, answer, files);
        }
    }
}

/// The rest of its session follows when it is buried.
fn kill_command(command: &Beside) {
    if command.exit.is_none() {
        signal_group(command.pid, libc::SIGKILL);
    }
}
