//! The data folder's file system, and what a sync takes on it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::text;
use crate::facts::{Disk, Syncs};
use crate::plan::Plan;

/// How many syncs are measured, and how long at most: enough for a p99, soon enough for somebody who waits.
const SYNCS: usize = 200;
const LONGEST: Duration = Duration::from_secs(4);
const BLOCK: usize = 4096;
/// How the file begins that is written and removed, and from when on one counts as left by a check that was killed: none takes so long.
const PREFIX: &str = ".holdfast-check-";
const ABANDONED: Duration = Duration::from_secs(60);

pub(super) async fn disk(plan: &Plan) -> Result<Disk, String> {
    let data = plan.data_dir();
    let at = nearest(&data).ok_or_else(|| format!("{} can't be looked at", data.display()))?;
    let about = statvfs(&at).map_err(|why| format!("{} can't be looked at: {}", at.display(), why.desc()))?;
    let size = |blocks: libc::fsblkcnt_t| blocks.saturating_mul(about.fragment_size());
    let mounts = text("/proc/self/mountinfo").unwrap_or_default();
    let read_only = about.flags().contains(FsFlags::ST_RDONLY);
    let syncs = match plan.has_store() && !read_only {
        true => Some(syncs(&beside(&at, &data)).await.map_err(|why| why.to_string())),
        false => None,
    };
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

/// Appends and syncs, as the store's log does. The file goes with the future, also when that is dropped in the middle.
#[allow(clippy::disallowed_methods)] // It measures.
async fn syncs(folder: &Path) -> io::Result<Syncs> {
    remove_abandoned(folder, SystemTime::now());
    // With a name until the end: what was unlinked is not worth a sync to btrfs, which would do nothing.
    let mut file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(folder)?;
    // Zeros might become a hole.
    let block: Vec<u8> = (0..BLOCK).map(|place| (place * 31 % 251) as u8).collect();
    let (began, mut times) = (Instant::now(), Vec::with_capacity(SYNCS));
    while times.len() < SYNCS && began.elapsed() < LONGEST {
        let start = Instant::now();
        file.write_all(&block)?;
        file.as_file().sync_data()?;
        times.push(start.elapsed());
        // A signal is heard here, and the next sync then not begun.
        tokio::task::yield_now().await;
    }
    times.sort_unstable();
    summary(&times).ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))
}

/// Removes what checks have left that were killed, or lost their power.
fn remove_abandoned(folder: &Path, now: SystemTime) {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())) {
        let written =
            entry.metadata().ok().filter(fs::Metadata::is_file).and_then(|about| about.modified().ok());
        let age = written.and_then(|written| now.duration_since(written).ok());
        if age.is_some_and(|age| age > ABANDONED) {
            // Another check may have been first; and what can't be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Of times in order, by the nearest rank.
fn summary(times: &[Duration]) -> Option<Syncs> {
    let rank = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    Some(Syncs { count: times.len(), p50: rank(50)?, p99: rank(99)?, longest: *times.last()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::poll_fn;
    use std::task::Poll;

    use tokio::signal::unix::{SignalKind, signal};

    #[tokio::test]
    async fn syncs_are_measured_and_leave_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let measured = syncs(folder.path()).await.unwrap();
        assert!(measured.count > 0 && measured.p50 <= measured.p99 && measured.p99 <= measured.longest);
        assert!(measured.p50 > Duration::ZERO);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_signal_in_the_middle_ends_it_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut asked = signal(SignalKind::user_defined2()).unwrap();
        let mut measured = Box::pin(syncs(folder.path()));
        let begun = poll_fn(|context| Poll::Ready(measured.as_mut().poll(context).is_pending())).await;
        assert!(begun, "nobody else is heard before the end");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        nix::sys::signal::raise(nix::sys::signal::SIGUSR2).unwrap();
        tokio::select! {
            biased;
            _ = &mut measured => panic!("the signal wasn't heard"),
            _ = asked.recv() => {}
        }
        drop(measured);
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // Files have the times of the clock.
    fn what_was_left_is_removed_once_it_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(format!("{PREFIX}aB3xY9"));
        let kept = [folder.path().join("data"), folder.path().join(format!("{PREFIX}folder"))];
        fs::write(&left, "").unwrap();
        fs::write(&kept[0], "").unwrap();
        fs::create_dir(&kept[1]).unwrap();
        remove_abandoned(folder.path(), SystemTime::now());
        assert!(left.exists(), "another check may be at work");
        remove_abandoned(folder.path(), SystemTime::now() + ABANDONED * 2);
        assert!(!left.exists());
        assert!(kept.iter().all(|kept| kept.exists()), "what isn't a check's file stays");
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
