//! The data folder's file system, and what a sync takes on it.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::text;
use crate::facts::{Disk, Syncs};
use crate::plan::Plan;

/// How many syncs are measured, and how long at most: enough for a p99, soon enough for somebody who waits.
const SYNCS: usize = 200;
const LONGEST: Duration = Duration::from_secs(4);
const BLOCK: usize = 4096;

pub(super) fn disk(plan: &Plan) -> Result<Disk, String> {
    let data = plan.data_dir();
    let at = nearest(&data).ok_or_else(|| format!("{} can't be looked at", data.display()))?;
    let about = statvfs(&at).map_err(|why| format!("{} can't be looked at: {}", at.display(), why.desc()))?;
    let size = |blocks: libc::fsblkcnt_t| blocks.saturating_mul(about.fragment_size());
    let mounts = text("/proc/self/mountinfo").unwrap_or_default();
    let read_only = about.flags().contains(FsFlags::ST_RDONLY);
    let syncs = (plan.has_store() && !read_only).then(|| {
        let folder = beside(&at, &data);
        syncs(&folder).map_err(|why| why.to_string())
    });
    Ok(Disk {
        kind: kind(&mounts, &at).unwrap_or_else(|| "a file system of unknown kind".to_owned()),
        read_only,
        size: size(about.blocks()),
        free: size(about.blocks_available()),
        inodes: about.files(),
        inodes_free: about.files_available(),
        syncs,
        at,
    })
}

/// The folder, or the nearest above it that is there.
fn nearest(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find_map(|folder| folder.canonicalize().ok())
}

/// A folder of the same file system to write in. In the data folder the host alone writes: the one above will do, if it is of the same.
fn beside(at: &Path, data: &Path) -> PathBuf {
    let device = |folder: &Path| folder.metadata().ok().map(|about| about.dev());
    let above =
        at.parent().filter(|above| data.exists() && device(above).is_some() && device(above) == device(at));
    above.unwrap_or(at).to_owned()
}

/// The kind of the file system that was mounted last at the longest part of a path.
fn kind(mounts: &str, at: &Path) -> Option<String> {
    let mounts = mounts.lines().filter_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        let place = Path::new(place.split(' ').nth(4)?);
        at.starts_with(place)
            .then(|| (place.components().count(), what.split(' ').next().unwrap_or_default()))
    });
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind.to_owned())
}

/// Appends and syncs, as the store's log does.
#[allow(clippy::disallowed_methods)] // It measures.
fn syncs(folder: &Path) -> io::Result<Syncs> {
    // With a name until the end: what was unlinked is not worth a sync to btrfs, which would do nothing.
    let mut file = tempfile::Builder::new().prefix(".holdfast-check-").tempfile_in(folder)?;
    // Zeros might become a hole.
    let block: Vec<u8> = (0..BLOCK).map(|place| (place * 31 % 251) as u8).collect();
    let (began, mut times) = (Instant::now(), Vec::with_capacity(SYNCS));
    while times.len() < SYNCS && began.elapsed() < LONGEST {
        let start = Instant::now();
        file.write_all(&block)?;
        file.as_file().sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    summary(&times).ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))
}

/// Of times in order, by the nearest rank.
fn summary(times: &[Duration]) -> Option<Syncs> {
    let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Some(Syncs { count: times.len(), p50: rank(50)?, p99: rank(99)?, longest: *times.last()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_measured_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let measured = syncs(folder.path()).unwrap();
        assert!(measured.count > 0 && measured.p50 <= measured.p99 && measured.p99 <= measured.longest);
        assert!(measured.p50 > Duration::ZERO);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn ranks_are_the_nearest() {
        let ms = Duration::from_millis;
        let times: Vec<Duration> = (1..=200).map(ms).collect();
        let syncs = Syncs { count: 200, p50: ms(100), p99: ms(198), longest: ms(200) };
        assert_eq!(summary(&times), Some(syncs));
        assert_eq!(summary(&times[..1]).map(|one| (one.p50, one.p99)), Some((ms(1), ms(1))));
        assert_eq!(summary(&[]), None);
    }

    #[test]
    fn the_file_system_is_that_of_the_longest_mount() {
        const MOUNTS: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:30 / /var/lib rw - xfs /dev/sdb rw
3 1 0:31 / /var/lib/holdfast-other rw - tmpfs tmpfs rw";
        assert_eq!(kind(MOUNTS, Path::new("/var/lib/holdfast")).as_deref(), Some("xfs"));
        assert_eq!(kind(MOUNTS, Path::new("/etc")).as_deref(), Some("ext4"));
    }

    #[test]
    fn a_folder_that_isnt_there_yet_is_that_above() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        assert_eq!(nearest(&path.join("a/b/c")).as_deref(), Some(path.as_path()));
        assert_eq!(beside(&path, &path.join("a")), path, "written where the folder will be");
        std::fs::create_dir(path.join("a")).unwrap();
        assert_eq!(beside(&path.join("a"), &path.join("a")), path, "written beside the host's own");
    }
}
