//! What is in a container's `/dev` (runtime specification, `config-linux.md`, "Default Devices").

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, fchmodat, makedev, mknodat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::child::{Failure, Trying};
use super::inside::{Inside, standard, trusted};
use crate::container::mounting::{Attributes, NOEXEC, NOSUID, move_mount, open_tree, set_tree_attributes};
use crate::oci::spec::{Device, Spec};

/// The character devices that every container has: name, major and minor number.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", KERNEL_MEMORY),
    ("ptmx", "pts/ptmx"),
];
/// Not every kernel shows its memory.
const KERNEL_MEMORY: &str = "/proc/kcore";

/// Fills the container's `/dev`. Where it may use only these devices, or its user namespace can't make any, they are the
/// host's, shown one by one: what it makes itself lies where no device counts (`nodev`).
pub(super) fn make(spec: &Spec, inside: &Inside, is_mapped: bool) -> Result<(), Failure> {
    let shows = is_mapped || !spec.linux.resources.allows_devices();
    let default = DEFAULT.iter().map(|(name, major, minor)| Device {
        path: Path::new("/dev").join(name),
        kind: "c".into(),
        major: *major,
        minor: *minor,
        file_mode: 0o666,
        ..Device::default()
    });
    for device in default.chain(spec.linux.devices.iter().cloned()) {
        let what = format!("make the device {}", device.path.display());
        if shows {
            let source = trusted(&device.path).trying(&what)?;
            show(&source, &device.path, inside).trying(what)?;
        } else {
            node(&device, inside).trying(what)?;
        }
    }
    let dev = inside.find(Path::new("/dev")).trying("open /dev")?;
    for (name, to) in LINKS {
        // As runc has it: no link to what no kernel of this machine shows.
        if to == KERNEL_MEMORY && trusted(Path::new(to)).is_err() {
            continue;
        }
        match symlinkat(to, &dev, name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error).trying(format_args!("make /dev/{name}")),
        }
    }
    if spec.process.terminal {
        let terminal = standard(0).trying("find the terminal")?;
        show(&terminal, Path::new("/dev/console"), inside).trying("make /dev/console")?;
    }
    Ok(())
}

/// Shows an open device.
fn show(device: &OwnedFd, at: &Path, inside: &Inside) -> io::Result<()> {
    let tree = open_tree(device.as_fd(), false)?;
    let set = NOSUID | NOEXEC;
    let attributes = Attributes { set, propagation: libc::MS_PRIVATE, ..Attributes::default() };
    set_tree_attributes(tree.as_fd(), false, attributes)?;
    move_mount(tree.as_fd(), inside.make(at, false)?.as_fd())
}

fn node(device: &Device, inside: &Inside) -> io::Result<()> {
    let (Some(folder), Some(name)) = (device.path.parent(), device.path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = inside.make(folder, true)?;
    let kind = match device.kind.as_str() {
        "b" => SFlag::S_IFBLK,
        "p" => SFlag::S_IFIFO,
        _ => SFlag::S_IFCHR,
    };
    let mode = Mode::from_bits_truncate(device.file_mode);
    match mknodat(&folder, name, kind, mode, makedev(device.major.into(), device.minor.into())) {
        Err(Errno::EEXIST) => return Ok(()),
        made => made?,
    }
    fchmodat(&folder, name, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    Ok(fchownat(&folder, name, Some(uid), Some(gid), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?)
}

/// The host's devices, for containers that may use them all; without terminals, which each container has of its own.
pub(crate) fn of_host() -> Vec<Device> {
    let mut found = Vec::new();
    let mut folders = vec![std::path::PathBuf::from("/dev")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            use std::os::unix::fs::{FileTypeExt, MetadataExt};
            let Ok(about) = entry.metadata() else { continue };
            let name = entry.file_name();
            let is_left_out = |names: &[&str]| names.iter().any(|out| name == *out);
            let kind = about.file_type();
            if kind.is_dir() {
                if !is_left_out(&["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"]) {
                    folders.push(entry.path());
                }
            } else if (kind.is_char_device() || kind.is_block_device()) && !is_left_out(&["console", "ptmx"])
            {
                let number = about.rdev();
                let part = |part: u64| u32::try_from(part).unwrap_or(0);
                found.push(Device {
                    path: entry.path(),
                    kind: if kind.is_block_device() { "b" } else { "c" }.into(),
                    major: part(nix::sys::stat::major(number)),
                    minor: part(nix::sys::stat::minor(number)),
                    file_mode: about.mode() & 0o7777,
                    uid: about.uid(),
                    gid: about.gid(),
                });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}
