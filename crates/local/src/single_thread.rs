//! The steps that must come before any thread: forks, and entering namespaces.

/// How many threads this process has.
pub fn threads() -> std::io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Whether this process has one thread only.
pub fn is_single_threaded() -> std::io::Result<bool> {
    Ok(threads()? == 1)
}
