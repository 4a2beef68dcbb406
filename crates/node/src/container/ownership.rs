//! `fsGroup` of a volume that outlives its pods: everything in it is given to the group (upstream: `SetVolumeOwnership`).
//!
//! Another pod may work in the volume meanwhile, and put links where folders were: each step goes from one open folder to an
//! entry of it, and follows no link.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, fchownat};

/// How deep folders may be nested: each level holds a file open.
const DEEPEST: usize = 200;

/// Gives a folder and all that is in it to a group, which may read and write it, and what is made in it later too. With
/// `on_mismatch` nothing is done if the folder itself is as it should be (`fsGroupChangePolicy: OnRootMismatch`).
///
/// # Errors
/// If something can't be changed, or folders are nested too deep.
pub(crate) fn give_to_group(folder: &Path, group: u32, on_mismatch: bool) -> io::Result<()> {
    let root = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let is = fstat(&root)?;
    if on_mismatch && is.st_gid == group && is.st_mode & 0o7777 == mode(&is) {
        return Ok(());
    }
    // The root comes last: if this is interrupted, it isn't as it should be.
    give_entries(root.as_fd(), group, 0)?;
    give(root.as_fd(), &is, group)
}

fn give_entries(folder: BorrowedFd<'_>, group: u32, depth: usize) -> io::Result<()> {
    if depth == DEEPEST {
        return Err(io::Error::other(format!("folders are nested more than {DEEPEST} deep in the volume")));
    }
    for entry in fs::read_dir(link(folder))? {
        let name = entry?.file_name();
        // As a place only: to open a device may have effects of its own.
        let found = match openat(
            folder,
            name.as_os_str(),
            OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            Err(Errno::ENOENT) => continue,
            found => found?,
        };
        let is = fstat(&found)?;
        if kind(&is) == SFlag::S_IFDIR {
            give_entries(found.as_fd(), group, depth + 1)?;
        }
        give(found.as_fd(), &is, group)?;
    }
    Ok(())
}

fn give(place: BorrowedFd<'_>, is: &FileStat, group: u32) -> io::Result<()> {
    if is.st_gid != group {
        fchownat(place, c"", None, Some(Gid::from_raw(group)), AtFlags::AT_EMPTY_PATH)?;
    }
    let has_mode = matches!(kind(is), SFlag::S_IFDIR | SFlag::S_IFREG);
    // After the owner: to change that takes the bits for groups away.
    if has_mode && (is.st_gid != group || is.st_mode & 0o7777 != mode(is)) {
        fs::set_permissions(link(place), fs::Permissions::from_mode(mode(is)))?;
    }
    Ok(())
}

/// The kernel's own link to an open file, whatever bears its name by now.
fn link(place: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", place.as_raw_fd())
}

fn kind(is: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(is.st_mode) & SFlag::S_IFMT
}

/// The mode that it has, with all of the group's rights; what is made in a folder is the group's too.
fn mode(is: &FileStat) -> u32 {
    let more = if kind(is) == SFlag::S_IFDIR { 0o2770 } else { 0o660 };
    is.st_mode & 0o7777 | more
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn everything_in_a_volume_is_the_groups_and_nothing_outside() {
        let folder = tempfile::tempdir().unwrap();
        let (inside, outside) = (folder.path().join("v"), folder.path().join("outside"));
        fs::create_dir_all(inside.join("a/b")).unwrap();
        fs::write(inside.join("a/b/file"), b"x").unwrap();
        fs::set_permissions(inside.join("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::set_permissions(&outside, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&outside, inside.join("a/link")).unwrap();
        // Without root, the only group that a file can be given to is one's own.
        let root = nix::unistd::geteuid().is_root();
        let group = if root { 4711 } else { nix::unistd::getegid().as_raw() };
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        give_to_group(&inside, group, true).unwrap();
        for path in ["", "a", "a/b", "a/b/file"] {
            assert_eq!(fs::metadata(inside.join(path)).unwrap().gid(), group, "{path}");
        }
        assert_eq!(mode(&inside.join("a/b/file")), 0o660);
        assert_eq!(mode(&inside.join("a")) & 0o2070, 0o2070);
        assert_eq!(mode(&outside), 0o700, "no link is followed");
        assert_eq!(fs::metadata(&outside).unwrap().gid(), nix::unistd::getegid().as_raw());

        // As it should be: nothing is looked at again, unless that is asked for.
        fs::set_permissions(inside.join("a/b/file"), fs::Permissions::from_mode(0o600)).unwrap();
        give_to_group(&inside, group, true).unwrap();
        assert_eq!(mode(&inside.join("a/b/file")), 0o600);
        give_to_group(&inside, group, false).unwrap();
        assert_eq!(mode(&inside.join("a/b/file")), 0o660);
    }

    #[test]
    fn folders_nested_without_end_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", DEEPEST + 1).collect();
        fs::create_dir_all(folder.path().join(deep)).unwrap();
        let group = nix::unistd::getegid().as_raw();
        let why = give_to_group(folder.path(), group, false).unwrap_err();
        assert!(why.to_string().contains("nested"), "{why}");
    }
}
