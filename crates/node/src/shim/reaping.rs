//! The dead, and those who must die. Everything beneath the shim comes to it when its parent dies (prctl(2),
//! `PR_SET_CHILD_SUBREAPER`), so nothing escapes by leaving its session.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid};

/// How often a session is looked at until those of it that don't die are left to the pod's end.
const ROUNDS: u32 = 1000;
/// Between two looks.
const REST: Duration = Duration::from_millis(1);
/// Between two looks at what doesn't end.
const LONGEST_REST: Duration = Duration::from_millis(20);
/// How long a child may take to stop once nothing else is left. One that waits for a disk stops when that answers.
const STOPS_WITHIN: Duration = Duration::from_secs(1);

/// A child that died and was not buried yet: until then nobody else gets its number.
pub(super) fn dead_child() -> Option<i32> {
    // SAFETY: zero is a value of this struct of numbers.
    let mut about: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the struct lives through the call, which fills it in.
    let found = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut about, flags) };
    // SAFETY: what waitid fills in has this field, which is zero where no child is dead.
    let pid = if found == 0 { unsafe { about.si_pid() } } else { 0 };
    (pid > 0).then_some(pid)
}

/// Whether this child is dead, or buried already.
pub(super) fn is_dead(pid: i32) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let found = waitid(Id::Pid(Pid::from_raw(pid)), flags);
    !matches!(found, Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
}

/// Buries a dead child; its exit code (128 and the signal's number for a signal), and the signal or 0.
pub(super) fn bury(pid: i32) -> (i32, i32) {
    loop {
        match waitpid(Pid::from_raw(pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return (code, 0),
            Ok(WaitStatus::Signaled(_, signal, _)) => return (128 + signal as i32, signal as i32),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return (255, 0),
        }
    }
}

/// A line of the table of processes: its number, its parent's, its session's, and whether it runs.
struct Line {
    pid: i32,
    parent: i32,
    session: i32,
    /// As proc_pid_stat(5) has it.
    state: char,
}

impl Line {
    fn runs(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

fn table() -> Vec<Line> {
    let line = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: state, parent, group, session.
        let mut fields = stat.rsplit(')').next()?.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let (parent, session) = (fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?);
        Some(Line { pid, parent, session, state })
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(line).collect()
}

/// Kills all of a session (its jobs in groups of their own too) and returns once they are dead.
#[allow(clippy::disallowed_methods, reason = "nothing tells when a session is empty")]
pub(super) fn end_session(leader: i32) {
    for _ in 0..ROUNDS {
        let left: Vec<i32> = table()
            .iter()
            .filter(|line| line.session == leader && line.runs())
            .map(|line| line.pid)
            .collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(REST);
    }
}

/// Those beneath a process, which isn't among them.
fn beneath(ancestor: i32) -> Vec<Line> {
    let mut children: BTreeMap<i32, Vec<Line>> = BTreeMap::new();
    for line in table() {
        children.entry(line.parent).or_default().push(line);
    }
    // Each is taken out once: the table, which isn't read in one moment, may have a circle.
    let (mut found, mut todo) = (Vec::new(), vec![ancestor]);
    while let Some(parent) = todo.pop() {
        let theirs = children.remove(&parent).unwrap_or_default();
        todo.extend(theirs.iter().map(|line| line.pid));
        found.extend(theirs);
    }
    found
}

/// Kills everything beneath this process, and returns once all of it is dead and buried.
pub(super) fn end_all_beneath() {
    loop {
        for line in beneath(getpid().as_raw()) {
            let _ = kill(Pid::from_raw(line.pid), Signal::SIGKILL);
        }
        // What was forked meanwhile comes here when its parent dies, and is in the next table.
        match waitpid(None, None) {
            // No child is left, and so nothing beneath.
            Err(Errno::ECHILD) => return,
            _ => bury_all(),
        }
    }
}

fn bury_all() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
    {
    }
}

/// Kills those beneath a process that the kernel lists as its children, theirs and so on, where it does (`CONFIG_PROC_CHILDREN`). That costs what is
/// there, while the whole table costs what all of the host runs, once for each pod that ends. It may miss some: who must be sure looks again.
pub(super) fn kill_listed(ancestor: i32) {
    let mut todo = children(ancestor);
    while let Some(pid) = todo.pop() {
        // First: of one that is dead nothing is listed.
        todo.extend(children(pid));
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn children(parent: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let of_thread = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).ok();
    let lists = threads.filter_map(of_thread);
    lists.flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Looks at what is beneath, for a process that is to have in memory by then what that takes.
pub(super) fn look() {
    beneath(getpid().as_raw());
    children(getpid().as_raw());
}

/// Stops a child of this process, and kills everything beneath it and beside it. Returns once all of that is dead and the child makes nothing new. If
/// it doesn't stop, it must be killed next: then it makes nothing new either, whatever it waits for.
#[allow(
    clippy::disallowed_methods,
    reason = "nothing tells when a process that isn't one's own child has ended"
)]
pub(super) fn end_all_but(child: i32) {
    let (mut rest, mut waited) = (REST, Duration::ZERO);
    loop {
        let _ = kill(Pid::from_raw(child), Signal::SIGSTOP);
        let (mut left, mut makes) = (false, false);
        for line in beneath(getpid().as_raw()).iter().filter(|line| line.runs()) {
            if line.pid == child {
                // Until it has stopped it may be about to make another one.
                makes = !matches!(line.state, 'T' | 't');
            } else {
                left = true;
                let _ = kill(Pid::from_raw(line.pid), Signal::SIGKILL);
            }
        }
        if !left && (!makes || waited >= STOPS_WITHIN) {
            return;
        }
        std::thread::sleep(rest);
        waited = if left { Duration::ZERO } else { waited + rest };
        rest = (rest * 2).min(LONGEST_REST);
    }
}

/// This process gets the children of those beneath it that die, and hears of its own by a signal.
pub(super) fn become_reaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}
