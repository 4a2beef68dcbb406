//! The processes of a host: found by their parents, frozen all at once, killed without one of them noticing
//! another's end.
//!
//! A host process is the subreaper of all that it starts (prctl(2), `PR_SET_CHILD_SUBREAPER`), so that what
//! detaches itself from a pod stays beneath its host.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long freezing and killing go on before they give up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a process tree can't be frozen or killed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// /proc can't be read.
    #[error("can't read the table of processes: {0}; is /proc mounted?")]
    Table(io::Error),
    /// A signal was refused.
    #[error("can't send {signal} to process {pid}: {errno}")]
    Signal {
        /// Which signal.
        signal: Signal,
        /// To whom.
        pid: i32,
        /// What the system said.
        errno: Errno,
    },
    /// Some processes go on.
    #[error("processes {0:?} don't obey SIGSTOP or SIGKILL; they are stuck in the kernel")]
    Stuck(Vec<i32>),
}

impl From<io::Error> for Error {
    fn from(why: io::Error) -> Self {
        Error::Table(why)
    }
}

/// A line of the table of processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its state, as in proc_pid_stat(5).
    pub state: char,
    /// When it started, in clock ticks since boot: with the pid, what tells it from all others.
    pub started: u64,
    /// Clock ticks spent in user and kernel mode.
    pub ticks: u64,
}

impl Process {
    /// Whether no instruction of it runs any more: stopped, a zombie, or on its way out. One in
    /// uninterruptible sleep meets its stop before it is back in its own code.
    fn is_still(&self) -> bool {
        matches!(self.state, 'T' | 't' | 'Z' | 'X' | 'x' | 'D')
    }

    /// Whether it has ended, though its parent may not know yet.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Parses the contents of `/proc/PID/stat`.
fn parse_stat(text: &str) -> Option<Process> {
    // The command's name stands in parentheses and may contain any character, parentheses too.
    let (head, tail) = text.split_at_checked(text.rfind(')')? + 1)?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    Some(Process {
        pid: head.split('(').next()?.trim().parse().ok()?,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// One process, if it is there.
pub fn look_up(pid: i32) -> Option<Process> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// All processes that this one may see.
pub fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            // A process may end between the listing and the look at it.
            found.extend(look_up(pid));
        }
    }
    Ok(found)
}

/// The processes beneath `roots`, these included, ancestors before descendants.
pub fn beneath(table: &[Process], roots: &[i32]) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in table {
        children.entry(process.parent).or_default().push(*process);
    }
    let mut found: Vec<Process> = table.iter().filter(|p| roots.contains(&p.pid)).copied().collect();
    let mut seen: BTreeSet<i32> = found.iter().map(|p| p.pid).collect();
    let mut next = 0;
    while let Some(process) = found.get(next).copied() {
        next += 1;
        for child in children.get(&process.pid).into_iter().flatten() {
            if seen.insert(child.pid) {
                found.push(*child);
            }
        }
    }
    found
}

fn signal(process: Process, signal: Signal) -> Result<(), Error> {
    match kill(Pid::from_raw(process.pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(Error::Signal { signal, pid: process.pid, errno }),
    }
}

/// Freezes `roots` and all beneath them, and returns them. Repeats until no unstopped descendant remains,
/// since a process may start another one while it is being stopped. The roots stop first.
#[allow(clippy::disallowed_methods)] // A driver: bounds its own patience.
pub fn freeze(roots: &[i32]) -> Result<Vec<Process>, Error> {
    let deadline = Instant::now() + PATIENCE;
    for &root in roots {
        if let Some(process) = look_up(root) {
            signal(process, Signal::SIGSTOP)?;
        }
    }
    let mut stopped = BTreeSet::new();
    loop {
        let tree = beneath(&processes()?, roots);
        let mut quiet = true;
        for process in &tree {
            if !process.is_dead() && stopped.insert((process.pid, process.started)) {
                signal(*process, Signal::SIGSTOP)?;
                quiet = false;
            }
            quiet &= process.is_still();
        }
        if quiet {
            return Ok(tree);
        }
        if Instant::now() > deadline {
            return Err(Error::Stuck(tree.iter().filter(|p| !p.is_still()).map(|p| p.pid).collect()));
        }
        std::thread::yield_now();
    }
}

/// Kills `roots` and all beneath them, frozen first so that none starts another or sees another die.
/// Returns when none of them runs any more.
pub fn kill_all(roots: &[i32]) -> Result<(), Error> {
    let tree = match freeze(roots) {
        Ok(tree) => tree,
        // What can't be frozen can still be killed.
        Err(Error::Stuck(_)) => beneath(&processes()?, roots),
        Err(other) => return Err(other),
    };
    kill_these(&tree)
}

/// Kills these very processes, the last first: in a tree, descendants before their ancestors, because a parent
/// that ends wakes the stopped process groups of its children (SIGHUP and SIGCONT to orphaned groups).
/// Returns when none of them runs any more.
#[allow(clippy::disallowed_methods)] // A driver: bounds its own patience.
pub fn kill_these(tree: &[Process]) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    let is_here = |process: &Process| {
        look_up(process.pid).filter(|now| now.started == process.started && !now.is_dead()).is_some()
    };
    for process in tree.iter().rev().filter(|process| is_here(process)) {
        signal(*process, Signal::SIGKILL)?;
    }
    loop {
        let left: Vec<i32> = tree.iter().filter(|p| is_here(p)).map(|p| p.pid).collect();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::Stuck(left));
        }
        std::thread::yield_now();
    }
}

/// The processes in a network namespace, by the namespace's inode.
pub fn in_network(inode: u64) -> Vec<i32> {
    use std::os::unix::fs::MetadataExt;
    let is_in = |pid: &i32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|file| file.ino() == inode);
    processes().unwrap_or_default().into_iter().map(|process| process.pid).filter(is_in).collect()
}

/// The shims of pods whose folders lie in `folder`: they outlive their host's process, and are beneath nobody of the
/// host's then. A shim is the program with the arguments `shim FOLDER-OF-THE-POD`.
pub fn shims(folder: &Path) -> Vec<i32> {
    let is_shim = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        words.next() == Some(b"shim")
            && words.next().is_some_and(|pod| Path::new(OsStr::from_bytes(pod)).starts_with(folder))
    };
    processes().unwrap_or_default().into_iter().map(|process| process.pid).filter(is_shim).collect()
}

/// The first argument of a process; empty where there is none.
pub fn first_argument(pid: i32) -> Vec<u8> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1).unwrap_or_default().to_vec()
}

/// The name of a process in the table of processes; empty where there is none.
pub fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

/// The resident memory of a process in bytes: `VmRSS` in `/proc/PID/status`.
pub fn resident_memory(pid: i32) -> Option<u64> {
    memory(pid, "VmRSS:")
}

/// The most resident memory that a process has had, in bytes: `VmHWM` in `/proc/PID/status`.
pub fn peak_memory(pid: i32) -> Option<u64> {
    memory(pid, "VmHWM:")
}

/// Lets [`peak_memory`] count from now on, by a 5 in `/proc/PID/clear_refs` (proc_pid_clear_refs(5)).
pub fn forget_peak(pid: i32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

fn memory(pid: i32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The time that a process has spent on a processor.
pub fn processor_time(pid: i32) -> Option<Duration> {
    // SAFETY: sysconf only reads a constant of the system.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|&n| n > 0)?;
    Some(Duration::from_secs(look_up(pid)?.ticks) / u32::try_from(per_second).ok()?)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        Process { pid, parent, state: 'S', started: 1, ticks: 0 }
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_is_no_obstacle() {
        let text = "42 (a) S (b) T 7 42 42 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 1 0 12345 1 2";
        let found = parse_stat(text).unwrap();
        assert_eq!((found.pid, found.parent, found.state), (42, 7, 'T'));
        assert_eq!((found.ticks, found.started), (110, 12345));
        for bad in ["", "42", "42 (a", "42 (a)", "x (a) T 1", ")"] {
            assert_eq!(parse_stat(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_tree_is_its_root_and_all_beneath() {
        let table =
            [process(1, 0), process(9, 5), process(2, 1), process(5, 2), process(3, 1), process(7, 3)];
        let pids = |roots: &[i32]| beneath(&table, roots).iter().map(|p| p.pid).collect::<Vec<_>>();
        assert_eq!(pids(&[2]), [2, 5, 9]);
        assert_eq!(pids(&[1]), [1, 2, 3, 5, 7, 9]);
        assert_eq!(pids(&[4]), [0; 0]);
        assert_eq!(pids(&[3, 2]), [2, 3, 5, 7, 9]);
    }

    /// A shell with a child, and a grandchild in a session of its own that has lost its parent.
    fn start_tree() -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & (setsid sleep 1000 &) ; echo ready; wait"]).stdout(Stdio::piped());
        // SAFETY: prctl is async-signal-safe.
        unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_child_subreaper(true)?)) };
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    fn wait_for_tree(root: i32, size: usize) -> Vec<Process> {
        loop {
            let tree = beneath(&processes().unwrap(), &[root]);
            if tree.len() == size {
                return tree;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_tree_is_frozen_with_its_strays_and_killed() {
        let mut child = start_tree();
        let root = child.id() as i32;
        wait_for_tree(root, 3);
        let frozen = freeze(&[root]).unwrap();
        assert_eq!(frozen.len(), 3);
        assert!(frozen.iter().all(|p| look_up(p.pid).unwrap().state == 'T'), "{frozen:?}");
        kill_all(&[root]).unwrap();
        assert!(frozen.iter().all(|p| look_up(p.pid).is_none_or(|p| p.is_dead())));
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_tree_that_grows_while_it_is_frozen_does_not_escape() {
        let mut child =
            Command::new("sh").args(["-c", "while :; do sleep 0.001 & wait; done"]).spawn().unwrap();
        let root = child.id() as i32;
        let frozen = freeze(&[root]).unwrap();
        let again = beneath(&processes().unwrap(), &[root]);
        assert_eq!(
            frozen.iter().map(|p| p.pid).collect::<Vec<_>>(),
            again.iter().map(|p| p.pid).collect::<Vec<_>>()
        );
        kill_all(&[root]).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_peak_is_forgotten() {
        let mut child = Command::new("sh")
            .args(["-c", "x=$(head -c 40000000 /dev/zero | tr '\\0' x); x=; echo ready; read _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let pid = child.id() as i32;
        let before = peak_memory(pid).unwrap();
        assert!(before > 30_000_000, "{before}");
        forget_peak(pid).unwrap();
        let after = peak_memory(pid).unwrap();
        assert!(after < before, "{after} of {before}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn memory_and_processor_time_are_read() {
        let me = std::process::id() as i32;
        assert!(resident_memory(me).unwrap() > 100_000);
        assert!(processor_time(me).is_some());
        assert!(peak_memory(me).unwrap() >= resident_memory(me).unwrap());
        assert_eq!((resident_memory(-1), peak_memory(-1)), (None, None));
    }
}
