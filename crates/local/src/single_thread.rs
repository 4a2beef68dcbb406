//! The steps that must come before any thread: forks, and entering namespaces.

use std::fs::{File, OpenOptions, read_dir};
use std::io;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

/// Whether this process has one thread only.
pub fn is_single_threaded() -> io::Result<bool> {
    Ok(read_dir("/proc/self/task")?.count() == 1)
}

/// Leads this process' input and output nowhere.
pub fn quiet() -> io::Result<()> {
    let nowhere = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for lead in [dup2_stdin::<&File>, dup2_stdout::<&File>, dup2_stderr::<&File>] {
        lead(&nowhere)?;
    }
    Ok(())
}
