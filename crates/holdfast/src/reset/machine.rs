//! What a host is to its machine besides its process: files, and what is mounted among them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::is_beneath;
use crate::tell::say;

/// Removes a file, or a folder with all in it. What is mounted in it is unmounted first, and never emptied: that may be a volume of
/// somebody's.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    let failed = || format!("can't remove {}", path.display());
    let kind = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        kind => kind.with_context(failed)?,
    };
    if kind.is_symlink() {
        say!("{} is a link: what it leads to stays", path.display());
    }
    if !kind.is_dir() {
        return fs::remove_file(path).with_context(failed);
    }
    let folder = path.canonicalize().with_context(failed)?;
    unmount_beneath(&folder)?;
    match fs::remove_dir_all(&folder) {
        // It is a disk's own place, and empty now.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        removed => removed.with_context(failed),
    }
}

/// Removes a folder if nothing is in it.
pub fn remove_if_empty(folder: &Path) {
    // It may be somebody else's, not be there, or be a disk's own place.
    let _ = fs::remove_dir(folder);
}

fn unmount_beneath(folder: &Path) -> anyhow::Result<()> {
    loop {
        let mut mounts = mounts_beneath(folder)?;
        // Those of which others are part go after these.
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.components().count()));
        let Some(first) = mounts.first() else { return Ok(()) };
        // Of a folder of the machine that is shown here with all that is mounted in it, the mounts may be shared: what is unmounted here
        // would be unmounted there. What can't be set apart refuses the next step, or is no such thing.
        for one in &mounts {
            let none = None::<&str>;
            let _ = mount(none, one, none, MsFlags::MS_PRIVATE, none);
        }
        // Detached: what is still open there is nobody's business any more, as no pod runs.
        umount2(first, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).with_context(|| {
            format!("can't unmount {}; nothing in {} was removed", first.display(), folder.display())
        })?;
    }
}

fn mounts_beneath(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo").context("can't read what is mounted")?;
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(points.map(unescaped).filter(|point| is_beneath(point, folder)).collect())
}

/// A path as the table writes it: `\040` for a space, and so on (proc_pid_mountinfo(5)).
fn unescaped(path: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, others @ ..] = rest {
        let digits = others.get(..3).filter(|_| *first == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &others[3..] } else { others };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_beneath_a_folder_and_not_beside_it() {
        assert_eq!(unescaped(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescaped(br"/a\9\04"), Path::new(r"/a\9\04"));
        assert!(is_beneath(Path::new("/var/lib/data/x"), Path::new("/var/lib/data")));
        for other in ["/var/lib/data", "/var/lib/database", "/var"] {
            assert!(!is_beneath(Path::new(other), Path::new("/var/lib/data")), "{other}");
        }
        assert!(mounts_beneath(Path::new("/")).unwrap().contains(&"/proc".into()));
    }

    #[test]
    fn files_folders_and_links_go_and_what_links_lead_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("data/deep")).unwrap();
        fs::create_dir(at("kept")).unwrap();
        fs::write(at("kept/file"), "").unwrap();
        std::os::unix::fs::symlink(at("kept"), at("data/link")).unwrap();
        std::os::unix::fs::symlink(at("kept"), at("link")).unwrap();
        for name in ["data", "data", "link", "nothing"] {
            remove(&at(name)).unwrap();
        }
        assert!(!at("data").exists() && at("link").symlink_metadata().is_err());
        remove_if_empty(&at("kept"));
        assert!(at("kept/file").exists());
    }
}
