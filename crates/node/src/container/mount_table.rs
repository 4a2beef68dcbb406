//! In which mount an open file lies, what the kernel says of that mount, and what is mounted beneath a folder.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;

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

/// Whether something is mounted at a folder.
///
/// # Errors
/// If the folder can't be opened, or the kernel doesn't say.
pub(crate) fn is_mounted(folder: &Path) -> io::Result<bool> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let inner = open(folder, flags, Mode::empty())?;
    let outer = openat(&inner, "..", flags, Mode::empty())?;
    Ok(mount_of(inner.as_fd())? != mount_of(outer.as_fd())?)
}

/// Unmounts all that is mounted beneath a folder, also where somebody uses it still. Fine if the folder isn't there.
///
/// # Errors
/// If it isn't known what is mounted, or something of it can't be unmounted.
pub(crate) fn unmount_beneath(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        about => about?,
    };
    // Of this thread: it may have mounts of its own.
    let table = fs::read("/proc/thread-self/mountinfo")?;
    for place in beneath(&String::from_utf8_lossy(&table), folder) {
        match umount2(&place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // It went with what it was mounted on.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Where something is mounted beneath a folder, the last first.
fn beneath(table: &str, folder: &Path) -> Vec<PathBuf> {
    let places = table.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(unescaped);
    places.filter(|place| place != folder && place.starts_with(folder)).collect()
}

/// A path that a mount table tells.
fn unescaped(text: &str) -> PathBuf {
    let (bytes, mut path, mut at) = (text.as_bytes(), Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 4).filter(|_| *byte == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(code.unwrap_or(*byte));
        at += if code.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beneath_a_folder_is_found_by_its_real_name() {
        let table = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:2 / /d/a rw - tmpfs a rw\n3 1 0:3 / /d rw - tmpfs a rw\n\
                     4 1 0:4 / /d/a\\040b\\134/c rw - tmpfs a rw\n5 1 0:5 / /dd/a rw - tmpfs a rw\nodd\n";
        let found = beneath(table, Path::new("/d"));
        assert_eq!(found, [Path::new("/d/a b\\/c"), Path::new("/d/a")]);
        assert_eq!(unescaped("\\9\\40"), Path::new("\\9\\40"), "no number of three digits");
    }
}
