//! What three members stand on: links that can be cut and disks that can be filled and sealed, where this machine
//! allows them.

use std::fs::{self, File, OpenOptions, Permissions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use local::{Addresses, Bridge, HostNamespace, Island, NetKind, Permission};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// How many members.
pub const MEMBERS: usize = 3;
const PORT: u16 = 2380;
/// The size of a disk of its own.
const DISK: u64 = 96 << 20;

const NOTHING: Option<&str> = None;

/// The proof that this process has namespaces of its own, if it could get them.
#[derive(Debug)]
pub struct Namespaces(Result<Island, String>);

/// Gets namespaces for links and mounts. Must come before the process has a second thread.
pub fn enter() -> anyhow::Result<Namespaces> {
    let entered = match Island::permission()? {
        Permission::Refused(why) => Err(why),
        Permission::Granted => Ok(Island::enter()?),
    };
    if entered.is_ok() {
        unshare(CloneFlags::CLONE_NEWNS).context("can't get mounts of its own")?;
        // What is mounted from here on is nobody else's.
        mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING)
            .context("can't make mounts private")?;
    }
    Ok(Namespaces(entered))
}

/// The links between the members.
pub enum Links {
    /// Each member has one to a bridge.
    Bridge(Bridge, Vec<HostNamespace>),
    /// All are on this machine's loopback, for this reason.
    Loopback(String),
}

impl Links {
    /// Makes them.
    pub async fn build(Namespaces(island): Namespaces) -> anyhow::Result<Self> {
        let island = match island {
            Err(why) => return Ok(Links::Loopback(why)),
            Ok(island) => island,
        };
        let bridge = Bridge::build(&island).await?;
        let mut hosts = Vec::new();
        for n in 1..=MEMBERS {
            hosts.push(bridge.plug(n as u8).await?);
        }
        Ok(Links::Bridge(bridge, hosts))
    }

    /// Where a member listens.
    pub fn address(&self, n: usize) -> SocketAddr {
        let ip = match self {
            Links::Bridge(..) => Addresses::new(NetKind::Netns).host(n as u8 + 1),
            Links::Loopback(_) => {
                // Addresses of its own, so that members don't meet those of another run.
                let [_, _, high, low] = std::process::id().to_be_bytes();
                Ipv4Addr::new(127, high | 0x80, low, n as u8 + 1)
            }
        };
        SocketAddr::new(IpAddr::V4(ip), PORT)
    }

    /// The network that a member's process lives in.
    pub fn namespace(&self, n: usize) -> anyhow::Result<Option<std::os::fd::OwnedFd>> {
        match self {
            Links::Bridge(_, hosts) => Ok(Some(hosts[n].handle()?)),
            Links::Loopback(_) => Ok(None),
        }
    }

    /// Cuts a member's link, or mends it.
    pub async fn set(&self, n: usize, works: bool) -> anyhow::Result<()> {
        match self {
            Links::Loopback(_) => {}
            Links::Bridge(bridge, _) if works => bridge.mend(n as u8 + 1).await?,
            Links::Bridge(bridge, _) => bridge.cut(n as u8 + 1).await?,
        }
        Ok(())
    }
}

/// What a member's folder lies on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A small ext4 of its own, in a file.
    Ext4,
    /// A small disk in memory.
    Memory,
    /// The machine's own disk: it can't be filled.
    Shared,
}

/// A member's disk.
#[derive(Debug)]
pub struct Disk {
    /// What it is.
    pub kind: Kind,
    /// Where it is mounted.
    root: PathBuf,
}

impl Disk {
    /// Makes a disk at `root`: an ext4 where that is possible.
    pub fn make(root: PathBuf, links: &Links) -> anyhow::Result<Self> {
        fs::create_dir_all(&root)?;
        let mut disk = Disk { kind: Kind::Shared, root };
        if matches!(links, Links::Bridge(..)) {
            disk.kind = if disk.mount_ext4()? {
                Kind::Ext4
            } else {
                let size = format!("size={DISK},mode=700");
                mount(Some("none"), &disk.root, Some("tmpfs"), MsFlags::empty(), Some(&*size))
                    .context("can't mount a disk in memory")?;
                Kind::Memory
            };
        }
        fs::create_dir_all(disk.folder())?;
        Ok(disk)
    }

    fn mount_ext4(&self) -> anyhow::Result<bool> {
        let image = self.root.with_extension("ext4");
        File::create(&image)?.set_len(DISK)?;
        let works = |command: &mut Command| {
            let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            quiet.status().is_ok_and(|status| status.success())
        };
        Ok(works(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))
            && works(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&self.root)))
    }

    /// The folder for the member's data.
    pub fn folder(&self) -> PathBuf {
        self.root.join("data")
    }

    fn filler(&self) -> PathBuf {
        self.root.join("filler")
    }

    /// Fills the disk, but for `spare` bytes.
    pub fn fill(&self, spare: u64) -> anyhow::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.filler())?;
        let mut piece = self.free()?;
        while piece >= 4096 {
            let take = piece.min(self.free()?.saturating_sub(spare)) as i64;
            let end = file.metadata()?.len() as i64;
            // What a file system needs for itself takes some of what it calls free.
            if take == 0 || fallocate(&file, FallocateFlags::empty(), end, take).is_err() {
                piece /= 2;
            }
        }
        Ok(())
    }

    /// How many bytes are free.
    fn free(&self) -> anyhow::Result<u64> {
        let stats = nix::sys::statvfs::statvfs(&self.root)?;
        Ok(stats.blocks_available() * stats.fragment_size())
    }

    /// Makes room again.
    pub fn empty(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.filler()) {
            Err(problem) if problem.kind() != std::io::ErrorKind::NotFound => Err(problem.into()),
            _ => Ok(()),
        }
    }

    /// Lets nobody make, rename or remove a file in the member's folder; those that are open stay so.
    pub fn seal(&self) -> anyhow::Result<()> {
        let folder = self.folder();
        if self.kind == Kind::Shared {
            return Ok(fs::set_permissions(folder, Permissions::from_mode(0o500))?);
        }
        mount(Some(&*folder), &*folder, NOTHING, MsFlags::MS_BIND, NOTHING)?;
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NOTHING, &folder, NOTHING, read_only, NOTHING).context("can't make a folder read-only")
    }

    /// Undoes that.
    pub fn unseal(&self) -> anyhow::Result<()> {
        let folder = self.folder();
        if self.kind == Kind::Shared {
            return Ok(fs::set_permissions(folder, Permissions::from_mode(0o700))?);
        }
        umount2(&folder, MntFlags::MNT_DETACH).context("can't make a folder writable again")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.kind != Kind::Shared {
            // The folder can't be removed while something is mounted on it. What is not mounted needs no end.
            let _ = umount2(&self.folder(), MntFlags::MNT_DETACH);
            let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        }
    }
}

/// Whether permissions keep this process from anything.
pub fn permissions_matter(dir: &Path) -> bool {
    let probe = dir.join("probe");
    let tried = fs::create_dir(&probe)
        .and_then(|()| fs::set_permissions(&probe, Permissions::from_mode(0o500)))
        .and_then(|()| File::create(probe.join("file")));
    // What is left goes with the run's folder.
    let _ = fs::set_permissions(&probe, Permissions::from_mode(0o700));
    tried.is_err()
}
