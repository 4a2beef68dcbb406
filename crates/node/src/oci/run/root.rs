//! A container's root: its image's layers with room for what it writes, and all that its bundle mounts there. It is seen in
//! the container's own mount namespace alone, and so ends with its last process.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::child::{Failure, Trying, check};
use super::devices;
use super::inside::{Inside, is_folder, trusted};
use super::sandbox::enter;
use crate::container::mounting::{
    ATIME, Attributes, NOATIME, NODEV, NOEXEC, NOSUID, RDONLY, STRICTATIME, map_ids, move_mount, new_mount,
    open_tree, set_tree_attributes,
};
use crate::container::{ConfinedPath, is_shared};
use crate::oci::spec::{ImageMount, Mount, NamespaceKind, Spec};

/// Where in a bundle lies what its container writes into its root.
pub(crate) const WRITTEN: &str = "upper";

/// What a bundle's folder holds beside `config.json`.
#[derive(Debug, Clone)]
pub(crate) struct Bundle {
    folder: PathBuf,
    /// The image's layers, the lowest first.
    layers: Vec<PathBuf>,
    /// The host's mount namespace.
    host: Option<Arc<OwnedFd>>,
}

impl Bundle {
    pub(crate) fn new(folder: PathBuf, layers: Vec<PathBuf>, host: Option<Arc<OwnedFd>>) -> Self {
        Bundle { folder, layers, host }
    }

    /// Makes its folders: what the container's former life wrote must be gone.
    ///
    /// # Errors
    /// If they can't be made.
    pub(crate) fn make_folders(&self) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for name in [WRITTEN, "work", "rootfs", "lower", "empty", "lowest"] {
            fs::create_dir_all(self.folder.join(name))?;
        }
        // The root folder that the container sees: its user must be able to enter it, whichever that is.
        fs::set_permissions(self.folder.join(WRITTEN), fs::Permissions::from_mode(0o755))
    }

    /// Mounts the root at its place, and enters it. `users` is the container's namespace of users, `owner` its root there.
    pub(super) fn mount(&self, spec: &Spec, users: Option<(&OwnedFd, u32)>) -> Result<(), Failure> {
        let place = |name: &str| self.folder.join(name);
        let owner = users.map(|(_, owner)| owner);
        let users = users.map(|(users, _)| users);
        let lower = self.lower("", &self.layers, users)?;
        let (upper, work) = (opened(&place(WRITTEN))?, opened(&place("work"))?);
        if let Some(owner) = owner {
            std::os::unix::fs::chown(place(WRITTEN), Some(owner), Some(owner))
                .trying("give the root to its user")?;
        }
        // What a container writes there is lost with it in any case: nothing of it must be synced to the disk.
        let more = format!(",upperdir={},workdir={},volatile", by_descriptor(&upper), by_descriptor(&work));
        let flags = if spec.linux.resources.allows_devices() { 0 } else { libc::MS_NODEV };
        let root = place(&spec.root.path.to_string_lossy());
        overlay(&lower, &more, &root, flags).map_err(|why| format!("mount the image's layers: {why}"))?;
        for (number, image) in spec.images.iter().enumerate() {
            self.mount_image(number, image, users)?;
        }
        std::env::set_current_dir(&root).trying("enter the container's root")
    }

    /// Mounts an image that is a volume: as it is, whatever the container may.
    fn mount_image(&self, number: usize, image: &ImageMount, users: Option<&OwnedFd>) -> Result<(), Failure> {
        let what = format!("mount the image at {}", image.place.display());
        fs::create_dir_all(&image.place).trying(&what)?;
        let mut lower = self.lower(&format!("{number}-"), &image.layers, users)?;
        // Without a layer to write to, overlayfs wants two others.
        lower.insert(0, opened(&self.folder.join("lowest"))?);
        let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        overlay(&lower, "", &image.place, flags).map_err(|why| format!("{what}: {why}"))
    }

    /// Opens layers, the lowest first, mapped to the container's users where it has some. `mark` tells them from others of the bundle.
    fn lower(
        &self,
        mark: &str,
        layers: &[PathBuf],
        users: Option<&OwnedFd>,
    ) -> Result<Vec<OwnedFd>, Failure> {
        let mut lower = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            let layer_root = opened(layer)?;
            lower.push(match users {
                None => layer_root,
                Some(users) => {
                    let shown = self.folder.join("lower").join(format!("{mark}{number}"));
                    fs::create_dir_all(&shown).trying("make a folder for a layer")?;
                    let tree = open_tree(layer_root.as_fd(), false).trying("show a layer")?;
                    map_ids(tree.as_fd(), users.as_fd()).trying(format_args!(
                        "map the users of {} (its file system must allow idmapped mounts)",
                        layer.display()
                    ))?;
                    move_mount(tree.as_fd(), opened(&shown)?.as_fd()).trying("show a layer")?;
                    opened(&shown)?
                }
            });
        }
        if lower.is_empty() {
            // An image of nothing: what is mounted is all that it has.
            lower.push(opened(&self.folder.join("empty"))?);
        }
        Ok(lower)
    }
}

fn opened(path: &Path) -> Result<OwnedFd, Failure> {
    trusted(path).trying(format_args!("open {}", path.display()))
}

/// By descriptors: paths may hold what separates options, and forty of them don't fit into the page that the kernel takes.
fn by_descriptor(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Mounts layers, the lowest first, with more options.
fn overlay(lower: &[OwnedFd], more: &str, at: &Path, flags: libc::c_ulong) -> Result<(), Failure> {
    let lower: Vec<String> = lower.iter().rev().map(by_descriptor).collect();
    let options = CString::new(format!("lowerdir={}{more}", lower.join(":"))).trying("name the layers")?;
    let target = c_path(at)?;
    let (kind, data) = (c"overlay".as_ptr(), options.as_ptr().cast());
    // SAFETY: all are strings that live through the call.
    check(unsafe { libc::mount(kind, target.as_ptr(), kind, flags, data) }).trying(at.display())
}

fn c_path(path: &Path) -> Result<CString, Failure> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).trying("a path")
}

/// What a mount's options mean.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    attributes: u64,
    atime: Option<u64>,
    /// Whether all below it is read-only too.
    is_read_only_below: bool,
    is_recursive: bool,
    propagation: libc::c_ulong,
    /// The file system's own.
    data: Vec<(String, Option<String>)>,
}

impl Wish {
    fn of(mount: &Mount) -> Self {
        let mut wish = Wish::default();
        for option in &mount.options {
            match option.as_str() {
                "rw" | "bind" | "suid" | "dev" | "exec" => {}
                "rbind" => wish.is_recursive = true,
                "ro" => wish.attributes |= RDONLY,
                "rro" => {
                    wish.attributes |= RDONLY;
                    wish.is_read_only_below = true;
                }
                "nosuid" => wish.attributes |= NOSUID,
                "nodev" => wish.attributes |= NODEV,
                "noexec" => wish.attributes |= NOEXEC,
                "relatime" => wish.atime = Some(0),
                "noatime" => wish.atime = Some(NOATIME),
                "strictatime" => wish.atime = Some(STRICTATIME),
                "private" | "rprivate" => wish.propagation = libc::MS_PRIVATE,
                "slave" | "rslave" => wish.propagation = libc::MS_SLAVE,
                "shared" | "rshared" => wish.propagation = libc::MS_SHARED,
                other => wish.data.push(match other.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (other.to_owned(), None),
                }),
            }
        }
        wish
    }
}

/// The trees of what a container mounts for the host too (`rshared`), in the order of the bundle's mounts. They are opened on the host: what
/// the shim sees are copies, of which the host hears nothing.
pub(super) fn open_shared(spec: &Spec, bundle: &Bundle) -> Result<Vec<Option<OwnedFd>>, Failure> {
    let is_shared = |mount: &Mount| mount.kind == "bind" && Wish::of(mount).propagation == libc::MS_SHARED;
    if !spec.mounts.iter().any(is_shared) {
        return Ok(spec.mounts.iter().map(|_| None).collect());
    }
    let host = bundle.host.as_deref().ok_or("the shim has lost the host's mount namespace")?;
    let own = File::open("/proc/self/ns/mnt").trying("hold the mount namespace")?;
    enter(host, NamespaceKind::Mount)?;
    let open = |mount: &Mount| match is_shared(mount) {
        true => open_bind(mount, true, None).map(Some),
        false => Ok(None),
    };
    let opened = spec.mounts.iter().map(open).collect();
    enter(&own, NamespaceKind::Mount)?;
    opened
}

/// The trees that a bundle binds, in the order of its mounts: opened while the host's paths are there and the shim's rights too. `shared` are
/// those that are open already.
pub(super) fn open_binds(
    spec: &Spec,
    users: Option<&OwnedFd>,
    shared: Vec<Option<OwnedFd>>,
) -> Result<Vec<Option<OwnedFd>>, Failure> {
    let allows_devices = spec.linux.resources.allows_devices();
    let one = |(mount, shared): (&Mount, Option<OwnedFd>)| match shared {
        None if mount.kind == "bind" => open_bind(mount, allows_devices, users).map(Some),
        shared => Ok(shared),
    };
    spec.mounts.iter().zip(shared).map(one).collect()
}

fn open_bind(mount: &Mount, allows_devices: bool, users: Option<&OwnedFd>) -> Result<OwnedFd, Failure> {
    let what = about(mount);
    let confined = match &mount.trusted {
        Some(root) => {
            let beneath = mount.source.strip_prefix(root).trying_path(&what)?;
            ConfinedPath { root: root.clone(), beneath: beneath.to_owned() }
        }
        None => ConfinedPath::of(&mount.source),
    };
    let wish = Wish::of(mount);
    if mount.makes {
        confined.make_folder_if_missing().trying(&what)?;
    }
    let source = confined.open().trying(&what)?;
    if wish.propagation == libc::MS_SHARED && !is_shared(source.as_fd()).trying(&what)? {
        let place = mount.source.display();
        return Err(format!(
            "{what}: {place} is not on a shared mount of the host, so that it would show nobody what is mounted there; \
                 `mount --make-rshared` on the host makes it one"
        ));
    }
    let tree = open_tree(source.as_fd(), wish.is_recursive).trying(&what)?;
    // Below it, too: a device that a pod makes or finds in a volume is of no use to it.
    let below = if allows_devices { 0 } else { NODEV } | if wish.is_read_only_below { RDONLY } else { 0 };
    let propagation = wish.propagation;
    let whole = Attributes { set: below, propagation, ..Attributes::default() };
    set_tree_attributes(tree.as_fd(), true, whole).trying(&what)?;
    let (set, clear) = (wish.attributes | wish.atime.unwrap_or(0), wish.atime.map_or(0, |_| ATIME));
    set_tree_attributes(tree.as_fd(), false, Attributes { set, clear, ..Attributes::default() })
        .trying(&what)?;
    if let Some(users) = users.filter(|_| !mount.uid_mappings.is_empty()) {
        map_ids(tree.as_fd(), users.as_fd())
            .trying(format_args!("{what}: map its users (its file system must allow idmapped mounts)"))?;
    }
    Ok(tree)
}

trait TryingPath<T> {
    fn trying_path(self, what: &str) -> Result<T, Failure>;
}

impl<T> TryingPath<T> for Result<T, std::path::StripPrefixError> {
    fn trying_path(self, what: &str) -> Result<T, Failure> {
        self.map_err(|_| format!("{what}: its source is not within what is trusted of it"))
    }
}

fn about(mount: &Mount) -> String {
    let what = mount.what.clone().unwrap_or_else(|| mount.kind.clone());
    format!("mount {what} at {}", mount.destination.display())
}

/// Mounts everything in the root, which is this process' folder, and makes it the root of all.
pub(super) fn furnish(spec: &Spec, trees: Vec<Option<OwnedFd>>, is_mapped: bool) -> Result<(), Failure> {
    let mut here = trusted(Path::new(".")).trying("open the container's root")?;
    if is_mapped {
        // What came along from a namespace with more rights can't be moved (mount_namespaces(7)); a copy over it can.
        let copy = open_tree(here.as_fd(), true).trying("copy the container's root")?;
        move_mount(copy.as_fd(), here.as_fd()).trying("copy the container's root")?;
        here = copy;
    }
    let inside = Inside::new(here);
    let allows_devices = spec.linux.resources.allows_devices();
    for (mount, tree) in spec.mounts.iter().zip(trees) {
        let what = about(mount);
        let tree = match tree {
            Some(tree) => Some(tree),
            None => fresh(mount, allows_devices).trying(&what)?,
        };
        let Some(tree) = tree else { continue };
        let is_folder = is_folder(tree.as_fd()).trying(&what)?;
        let mut place = inside.make(&mount.destination, is_folder).trying(&what)?;
        if matches!(&*mount.kind, "proc" | "sysfs") {
            // What is hidden there is found by the same path later: no link may lead elsewhere then (CVE-2019-19921).
            place = inside
                .find_plain(&mount.destination)
                .trying(format_args!("{what}: the image has a link there"))?;
        }
        move_mount(tree.as_fd(), place.as_fd()).trying(&what)?;
        if mount.kind == "tmpfs" && mount.destination == Path::new("/dev") {
            devices::make(spec, &inside, is_mapped)?;
        }
    }
    inside
        .make(&spec.process.cwd, true)
        .trying(format_args!("make the folder {}", spec.process.cwd.display()))?;
    hide(spec, &inside)?;
    if spec.root.readonly {
        let read_only = Attributes { set: RDONLY, ..Attributes::default() };
        set_tree_attributes(inside.root(), false, read_only).trying("make the root read-only")?;
    }
    become_root(&inside).trying("change the root folder")
}

/// A file system that isn't there yet; none where the kernel has none of that kind and the container can do without.
fn fresh(mount: &Mount, allows_devices: bool) -> io::Result<Option<OwnedFd>> {
    let Wish { mut attributes, atime, data, .. } = Wish::of(mount);
    attributes |= atime.unwrap_or(0);
    // Devices are shown one by one there: none that the container makes is of use. Those of terminals are the kernel's own.
    if !allows_devices && mount.kind != "devpts" {
        attributes |= NODEV;
    }
    let c = |text: &str| CString::new(text).map_err(io::Error::other);
    let data: Vec<(CString, Option<CString>)> = data
        .iter()
        .map(|(name, value)| Ok((c(name)?, value.as_deref().map(c).transpose()?)))
        .collect::<io::Result<_>>()?;
    let options: Vec<(&CStr, Option<&CStr>)> =
        data.iter().map(|(name, value)| (name.as_c_str(), value.as_deref())).collect();
    let kind = c(if mount.kind == "cgroup" { "cgroup2" } else { &mount.kind })?;
    let source = c(&mount.source.to_string_lossy())?;
    match new_mount(&kind, &source, &options, attributes) {
        Err(error) if mount.kind == "cgroup" && error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        made => made.map(Some),
    }
}

/// Covers what the container may not see, and what it may not change.
fn hide(spec: &Spec, inside: &Inside) -> Result<(), Failure> {
    for path in &spec.linux.masked_paths {
        let what = format_args!("mask {}", path.display()).to_string();
        let place = match inside.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            place => place.trying(&what)?,
        };
        let cover = if is_folder(place.as_fd()).trying(&what)? {
            new_mount(c"tmpfs", c"tmpfs", &[(c"mode", Some(c"555"))], RDONLY | NODEV)
        } else {
            // As from the container's own `/dev`.
            trusted(Path::new("/dev/null")).and_then(|null| {
                let tree = open_tree(null.as_fd(), false)?;
                let attributes = Attributes { set: NOSUID, ..Attributes::default() };
                set_tree_attributes(tree.as_fd(), false, attributes).map(|()| tree)
            })
        };
        move_mount(cover.trying(&what)?.as_fd(), place.as_fd()).trying(&what)?;
    }
    for path in &spec.linux.readonly_paths {
        let what = format_args!("make {} read-only", path.display()).to_string();
        let place = match inside.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            place => place.trying(&what)?,
        };
        let tree = open_tree(place.as_fd(), true).trying(&what)?;
        let read_only = Attributes { set: RDONLY, ..Attributes::default() };
        set_tree_attributes(tree.as_fd(), false, read_only).trying(&what)?;
        move_mount(tree.as_fd(), place.as_fd()).trying(&what)?;
    }
    Ok(())
}

/// Takes the place of the host's root, which is let go of: no right leads back to it.
fn become_root(inside: &Inside) -> io::Result<()> {
    let here = c".".as_ptr();
    // SAFETY: here and below: calls on an open descriptor, and on strings that live through them.
    check(unsafe { libc::fchdir(inside.root().as_raw_fd()) })?;
    // SAFETY: see above.
    let changed = unsafe { libc::syscall(libc::SYS_pivot_root, here, here) };
    check(if changed < 0 { -1 } else { 0 })?;
    // SAFETY: see above. Both roots lie at the same place now; the old one is on top.
    check(unsafe { libc::umount2(here, libc::MNT_DETACH) })?;
    // SAFETY: see above.
    check(unsafe { libc::chdir(c"/".as_ptr()) })
}

/// Makes an empty file system the root of a process that needs nothing else.
pub(super) fn leave_host(empty: &OwnedFd) -> io::Result<()> {
    // Over what every host has: only this process sees it.
    move_mount(empty.as_fd(), trusted(Path::new("/proc"))?.as_fd())?;
    become_root(&Inside::new(trusted(Path::new("/proc"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_the_mounts_or_the_file_systems() {
        let options = ["rbind", "rslave", "rro", "nosuid", "strictatime", "mode=755", "newinstance"];
        let mount = Mount { options: options.map(str::to_owned).to_vec(), ..Mount::default() };
        let expected = Wish {
            attributes: RDONLY | NOSUID,
            atime: Some(STRICTATIME),
            is_read_only_below: true,
            is_recursive: true,
            propagation: libc::MS_SLAVE,
            data: vec![("mode".into(), Some("755".into())), ("newinstance".into(), None)],
        };
        assert_eq!(Wish::of(&mount), expected);
    }
}
