//! What a bundle takes from an image beside its settings: who its users are.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::container::Accounts;

/// How much of a file of users is read: an image may hold anything under that name.
const LONGEST: u64 = 4 << 20;

/// The users and groups of an image whose layers are these folders, the lowest first, in overlayfs' form.
///
/// # Errors
/// If a layer can't be read.
pub(crate) fn accounts(layers: &[PathBuf]) -> io::Result<Accounts> {
    Ok(Accounts { passwd: text(layers, "etc/passwd")?, group: text(layers, "etc/group")? })
}

/// What a file of the image holds; nothing if there is none. As overlayfs looks a name up: the uppermost layer that has
/// it, unless one above hides it. A link is followed within its own layer only.
fn text(layers: &[PathBuf], path: &str) -> io::Result<String> {
    for layer in layers.iter().rev() {
        let about = |error: Errno| {
            io::Error::new(io::Error::from(error).kind(), format!("{}: {}", layer.display(), error.desc()))
        };
        let root = open(layer, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let root = root.map_err(about)?;
        match find(&root, path, OFlag::O_PATH).map_err(about)? {
            Some(place) if kind(&place).map_err(about)? == SFlag::S_IFREG => {
                let Some(file) = find(&root, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map_err(about)?
                else {
                    continue;
                };
                let mut bytes = Vec::new();
                File::from(file).take(LONGEST).read_to_end(&mut bytes)?;
                return Ok(String::from_utf8_lossy(&bytes).into_owned());
            }
            // A whiteout, or something that is no list of users.
            Some(_) => return Ok(String::new()),
            None => {}
        }
        for folder in Path::new(path).ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            let above = find(&root, &folder.to_string_lossy(), OFlag::O_PATH).map_err(about)?;
            if above.is_some_and(|above| hides_below(&above)) {
                return Ok(String::new());
            }
        }
    }
    Ok(String::new())
}

fn find(root: &OwnedFd, path: &str, flags: OFlag) -> Result<Option<OwnedFd>, Errno> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC);
    let how = how.resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(root.as_fd(), path, how) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn kind(place: &OwnedFd) -> Result<SFlag, Errno> {
    Ok(SFlag::from_bits_truncate(fstat(place)?.st_mode) & SFlag::S_IFMT)
}

/// Whether nothing of the layers below shows here: a whiteout, or a folder that is marked as opaque.
fn hides_below(place: &OwnedFd) -> bool {
    if kind(place).is_ok_and(|kind| kind != SFlag::S_IFDIR) {
        return true;
    }
    let Ok(path) = CString::new(format!("/proc/self/fd/{}", place.as_raw_fd())) else { return false };
    let mut value = [0_u8; 1];
    let name = c"trusted.overlay.opaque";
    // SAFETY: both strings and the buffer, of which the length is right, live through the call.
    let got = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    got == 1 && value == *b"y"
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn users_are_those_of_the_uppermost_layer_that_has_some() {
        let folder = tempfile::tempdir().unwrap();
        let layer = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.join("etc")).unwrap();
            path
        };
        let (low, high, link) = (layer("low"), layer("high"), layer("link"));
        fs::write(low.join("etc/passwd"), "low").unwrap();
        fs::write(low.join("etc/group"), "groups").unwrap();
        fs::write(high.join("etc/passwd"), "high").unwrap();
        let read =
            |layers: &[&PathBuf]| accounts(&layers.iter().map(|l| (*l).clone()).collect::<Vec<_>>()).unwrap();
        let found = read(&[&low, &high]);
        assert_eq!((found.passwd.as_str(), found.group.as_str()), ("high", "groups"));
        assert_eq!(read(&[&high, &low]).passwd, "low");
        // A link of the image's leads nowhere outside.
        fs::write(folder.path().join("outside"), "the host's").unwrap();
        symlink("../../outside", link.join("etc/passwd")).unwrap();
        symlink("/etc/real", link.join("etc/group")).unwrap();
        fs::write(link.join("etc/real"), "within").unwrap();
        let found = read(&[&link]);
        assert_eq!((found.passwd.as_str(), found.group.as_str()), ("", "within"));
        assert!(accounts(&[folder.path().join("missing")]).is_err());
    }
}
