//! In which mount an open file lies, and what the kernel says of that mount.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The number of the mount that an open folder is in (proc_pid_fdinfo(5), since Linux 3.15). The device's number isn't enough: what is
/// mounted may be another folder of the same file system.
///
/// # Errors
/// If the kernel doesn't say.
pub(super) fn mount_of(folder: BorrowedFd<'_>) -> io::Result<u64> {
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", folder.as_raw_fd()))?;
    let number = told.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    number.ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "the kernel doesn't say what is mounted where")
    })
}

/// Whether what is mounted below an open folder shows in other mount namespaces too (mount_namespaces(7), "shared"). The folder lies in the
/// mount namespace of this process.
///
/// # Errors
/// If the kernel doesn't say.
pub(crate) fn is_shared(folder: BorrowedFd<'_>) -> io::Result<bool> {
    let mount = mount_of(folder)?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let line =
        table.lines().find(|line| line.split(' ').next().and_then(|id| id.parse().ok()) == Some(mount));
    // The optional fields begin after six, and end with a dash (proc_pid_mountinfo(5)).
    Ok(line.is_some_and(|line| {
        line.split(' ').skip(6).take_while(|field| *field != "-").any(|field| field.starts_with("shared:"))
    }))
}
