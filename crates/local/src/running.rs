//! The launcher that runs a cluster's folder, as others find it: by the lock that it holds, which ends with it however it ends.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::folder::lock_file;
use crate::tree::{self, Process};

/// A launcher that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    program: Process,
    /// Its guard, which ends a moment later, with what was left.
    guard: Option<Process>,
}

impl Running {
    /// The launcher that holds a folder; none where none does.
    ///
    /// # Errors
    /// The lock or /proc can't be read.
    pub fn on(folder: &Path) -> io::Result<Option<Self>> {
        let Ok(path) = fs::canonicalize(lock_file(folder)) else { return Ok(None) };
        let holders = holders(&fs::read_to_string("/proc/locks")?);
        let mut processes = holders.into_iter().filter_map(tree::look_up);
        let found = processes.find(|process| has_open(process.pid, &path));
        Ok(found.map(|program| {
            // It was forked by its guard, so both have one command line.
            let guard = tree::look_up(program.parent)
                .filter(|parent| command_line(parent.pid) == command_line(program.pid));
            Running { program, guard }
        }))
    }

    /// The number of its process.
    pub fn pid(&self) -> i32 {
        self.program.pid
    }

    /// Asks it to end as Ctrl-C does. One that has ended meanwhile needs no word.
    ///
    /// # Errors
    /// It is another user's.
    pub fn ask_to_end(&self) -> io::Result<()> {
        if !is_there(&self.program) {
            return Ok(());
        }
        match kill(Pid::from_raw(self.program.pid), Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    /// Whether nothing of it is left.
    pub fn has_ended(&self) -> bool {
        ![Some(self.program), self.guard].iter().flatten().any(is_there)
    }
}

/// Whether a process runs still; one whose parent has not asked for its status yet runs no more.
fn is_there(process: &Process) -> bool {
    tree::look_up(process.pid).is_some_and(|now| now.started == process.started && !now.is_dead())
}

/// Who holds a lock of flock(2) on any file, by proc_locks(5). The file's number there is another one than stat(2) tells on some file
/// systems (overlayfs, btrfs), so it isn't looked at.
fn holders(locks: &str) -> Vec<i32> {
    let holder = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // One that waits has an arrow in the place of the kind.
        let [_, "FLOCK", _, "WRITE", pid, ..] = words[..] else { return None };
        pid.parse().ok()
    };
    locks.lines().filter_map(holder).collect()
}

fn has_open(pid: i32, path: &Path) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok);
    files.map(|file| fs::read_link(file.path()).unwrap_or_else(|_| PathBuf::new())).any(|file| file == path)
}

fn command_line(pid: i32) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::NetKind;
    use crate::folder::Folder;

    #[test]
    fn a_folder_tells_who_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster");
        assert_eq!(Running::on(&path).unwrap(), None, "there is none");
        let folder = Folder::open_or_create(&path, 1, NetKind::Loopback).unwrap();
        let running = Running::on(&path).unwrap().unwrap();
        assert_eq!(running.pid(), std::process::id() as i32);
        assert!(!running.has_ended());
        drop(folder);
        assert_eq!(Running::on(&path).unwrap(), None, "it is free again");
        let program = Process { started: running.program.started + 1, ..running.program };
        let other = Running { program, guard: None };
        assert!(other.has_ended(), "a number may be given again");
        other.ask_to_end().unwrap();
    }

    #[test]
    fn locks_are_read_as_the_kernel_writes_them() {
        let locks = "1: FLOCK  ADVISORY  WRITE 812 00:2f:4711 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 813 00:2f:4711 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 814 00:2f:4711 0 EOF\n3: FLOCK  ADVISORY  WRITE 815 00:2f:4712 0 EOF\nodd\n";
        assert_eq!(holders(locks), [812, 815]);
    }
}
