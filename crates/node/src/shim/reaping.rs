//! The dead, and those who must die. Everything beneath the shim comes to it when its parent dies (prctl(2),
//! `PR_SET_CHILD_SUBREAPER`), so nothing escapes by leaving its session.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

/// How often a session is looked at until those of it that don't die are left to the pod's end.
const ROUNDS: u32 = 1000;
/// Between two looks.
const REST: Duration = Duration::from_millis(1);

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
    runs: bool,
}

fn table() -> Vec<Line> {
    let line = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: state, parent, group, session.
        let mut fields = stat.rsplit(')').next()?.split_whitespace();
        let runs = !matches!(fields.next()?, "Z" | "X");
        let (parent, session) = (fields.next()?.parse().ok()?, fields.nth(1)?.parse().ok()?);
        Some(Line { pid, parent, session, runs })
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(line).collect()
}

/// Kills all of a session (its jobs in groups of their own too) and returns once they are dead.
#[allow(clippy::disallowed_methods, reason = "nothing tells when a session is empty")]
pub(super) fn end_session(leader: i32) {
    for _ in 0..ROUNDS {
        let left: Vec<i32> =
            table().iter().filter(|line| line.session == leader && line.runs).map(|line| line.pid).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(REST);
    }
}

/// Kills everything beneath this process, and returns once all of it is dead and buried.
pub(super) fn end_all_beneath() {
    loop {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for line in table() {
            children.entry(line.parent).or_default().push(line.pid);
        }
        let (mut doomed, mut todo) = (BTreeSet::new(), vec![getpid().as_raw()]);
        while let Some(parent) = todo.pop() {
            for pid in children.get(&parent).into_iter().flatten() {
                if doomed.insert(*pid) {
                    todo.push(*pid);
                }
            }
        }
        for pid in doomed {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // What was forked meanwhile comes here when its parent dies, and is in the next table.
        match waitpid(None, None) {
            // No child is left, and so nothing beneath.
            Err(Errno::ECHILD) => return,
            _ => {
                while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
                {
                }
            }
        }
    }
}

/// This process gets the children of those beneath it that die, and hears of its own by a signal.
pub(super) fn become_reaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}
