//! This machine's processes, as /proc shows them.

use std::fs;
use std::path::{Path, PathBuf};

use super::text;
use crate::facts::Holder;

/// All that can be seen.
pub(super) fn all() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// One of them.
pub(super) fn holder(pid: u32, folder: &Path) -> Holder {
    let program = fs::read_link(folder.join("exe")).ok();
    let own = fs::read_link("/proc/self/exe").ok();
    let is_called = |program: &PathBuf| {
        program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("holdfast"))
    };
    let is_ours = program.as_ref().is_some_and(|program| is_called(program) || Some(program) == own.as_ref());
    let name = text(folder.join("comm")).unwrap_or_else(|| "a process".to_owned());
    Holder { pid, name, is_ours }
}
