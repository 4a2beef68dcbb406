//! A folder of backups, of which the newest are kept: who is the next, and who goes.
//!
//! What is there is known by its name alone, so that any host may go on where another one stopped, and a file that somebody put there under
//! another name is never touched. Which is newer says the revision, which grows with the state; clocks may be set back. A revision that is
//! smaller than one that is there is another state's: of a cluster that began anew, or with a backup.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use client::Client;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{fetch, keep_as, tell};
use crate::tell::say;

/// What the names of files begin with that aren't whole yet.
pub(super) const UNFINISHED: &str = ".holdfast-backup-";
const PREFIX: &str = "holdfast-";
const SUFFIX: &str = ".backup";
const TIME: &str = "%Y%m%dT%H%M%SZ";
/// Held by who makes one.
const LOCK: &str = ".holdfast-lock";
/// The shortest and the longest time from one to the next.
const PERIODS: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(1), SignedDuration::from_hours(366 * 24));
/// After how long a backup that failed is tried again, unless the period is shorter.
const AGAIN: SignedDuration = SignedDuration::from_secs(60);

/// A folder of backups.
pub(super) struct Series {
    pub folder: PathBuf,
    /// How many of them stay.
    pub keep: usize,
}

/// What a backup's name says of it; in the order in which they were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Made {
    revision: u64,
    at: Timestamp,
}

impl Made {
    fn name(self) -> String {
        format!("{PREFIX}{}-{}{SUFFIX}", self.at.strftime(TIME), self.revision)
    }

    fn of(name: &str) -> Option<Self> {
        let (at, revision) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-')?;
        let at = DateTime::strptime(TIME, at).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
        Some(Made { revision: revision.parse().ok()?, at }).filter(|made| made.name() == name)
    }
}

/// How long it is until the next one is due. What is from the future, by this machine's clock, says nothing.
fn due_in(made: &[Made], every: SignedDuration, now: Timestamp) -> SignedDuration {
    let newest = made.iter().map(|made| made.at).filter(|at| *at <= now).max();
    let since = newest.map_or(every, |newest| now.duration_since(newest));
    (every - since).max(SignedDuration::ZERO)
}

/// Those that go, so that the newest stay and `new` among them, which was just made. Those of a later revision than its own are another
/// state's, which it doesn't replace.
fn surplus(mut made: Vec<Made>, new: Made, keep: usize) -> Vec<Made> {
    made.retain(|one| one.revision <= new.revision && *one != new);
    made.sort_unstable();
    made.truncate(made.len().saturating_sub(keep.saturating_sub(1)));
    made
}

impl Series {
    /// Makes one backup, or goes on for as long as it is let.
    ///
    /// # Errors
    /// The folder can't be used; without `every`, also that the backup failed. With it that is said, and tried again.
    pub(super) async fn run(
        &self,
        client: &impl Fn() -> anyhow::Result<Client>,
        every: Option<SignedDuration>,
    ) -> anyhow::Result<()> {
        let folder = &self.folder;
        let failed = || format!("can't keep backups in {}", folder.display());
        // Every Secret is in a backup.
        DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(failed)?;
        let Some(every) = every else { return self.make(client, None).await };
        loop {
            let wait = match self.make(client, Some(every)).await {
                Ok(()) => due_in(&self.made().with_context(failed)?, every, now()),
                Err(error) => {
                    let wait = every.min(AGAIN);
                    say!("no backup this time: {error:#}; it is tried again in {wait:#}");
                    wait
                }
            };
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
        }
    }

    /// Makes one, unless another program has made one within `every`, and removes those that are too many then. One program at a time does so.
    async fn make(
        &self,
        client: &impl Fn() -> anyhow::Result<Client>,
        every: Option<SignedDuration>,
    ) -> anyhow::Result<()> {
        let folder = self.folder.display();
        let lock = self.open_lock().with_context(|| format!("can't write into {folder}"))?;
        lock.lock().with_context(|| format!("can't lock {folder}"))?;
        self.remove_unfinished()?;
        let is_due = match every {
            Some(every) => due_in(&self.made()?, every, now()).is_zero(),
            None => true,
        };
        if !is_due {
            return Ok(());
        }
        let (backup, file) = fetch(&client()?, &self.folder).await?;
        let new = Made { revision: backup.revision().0, at: now() };
        let path = self.folder.join(new.name());
        keep_as(file, &path)?;
        tell(&path, &backup);
        let made = self.made()?;
        if let Some(later) = made.iter().filter(|one| one.revision > new.revision).max() {
            say!(
                "{folder} has backups of a later state, such as {}, which stay: were they another cluster's, or of before a restore? Move them away once nobody needs them",
                later.name()
            );
        }
        // Its name has whole seconds.
        let new = Made::of(&new.name()).unwrap_or(new);
        for one in surplus(made, new, self.keep) {
            let path = self.folder.join(one.name());
            fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Whatever has the lock's name in the folder is neither emptied nor, as a link, followed.
    fn open_lock(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        options.open(self.folder.join(LOCK))
    }

    fn made(&self) -> io::Result<Vec<Made>> {
        let names = names(&self.folder)?;
        Ok(names.iter().filter_map(|name| Made::of(name)).collect())
    }

    /// What a program left that was killed meanwhile: it held the lock, which is ours now.
    fn remove_unfinished(&self) -> anyhow::Result<()> {
        for name in names(&self.folder)?.iter().filter(|name| name.starts_with(UNFINISHED)) {
            let path = self.folder.join(name);
            fs::remove_file(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
        Ok(())
    }
}

/// The names in a folder that are text: others are nobody's here.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

#[allow(clippy::disallowed_methods, reason = "the program: a backup is made now")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// A time from one backup to the next, as people write it.
pub(super) fn period(text: &str) -> Result<SignedDuration, String> {
    let period: SignedDuration =
        text.parse().map_err(|_| "it is no time such as 30m, 6h or 1h 30m".to_owned())?;
    match (PERIODS.0..=PERIODS.1).contains(&period) {
        true => Ok(period),
        false => Err("take between a second and 8784 hours".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(at: &str, revision: u64) -> Made {
        Made { revision, at: at.parse().unwrap() }
    }

    #[test]
    fn a_name_says_when_and_at_which_revision() {
        let one = made("2026-11-30T23:05:09Z", 1234);
        assert_eq!(one.name(), "holdfast-20261130T230509Z-1234.backup");
        assert_eq!(Made::of(&one.name()), Some(one));
        for other in [
            "state.backup",
            "holdfast-20261130T230509Z-1234.backup.old",
            "holdfast-20261130T230509Z-01234.backup",
            "holdfast-20261130T230509Z-x.backup",
            "holdfast-20261399T230509Z-1.backup",
            ".holdfast-backup-x",
            "holdfast-",
        ] {
            assert_eq!(Made::of(other), None, "{other}");
        }
    }

    #[test]
    fn one_is_due_once_the_newest_is_old_enough() {
        let every = SignedDuration::from_hours(6);
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        let due = |all: &[Made]| due_in(all, every, now);
        assert_eq!(due(&[]), SignedDuration::ZERO);
        let old = made("2026-11-30T01:00:00Z", 1);
        assert_eq!(due(&[old]), SignedDuration::ZERO);
        assert_eq!(due(&[made("2026-11-30T10:00:00Z", 2), old]), SignedDuration::from_hours(4));
        // A clock that was set back doesn't end the backups.
        assert_eq!(due(&[made("2027-01-01T00:00:00Z", 3), old]), SignedDuration::ZERO);
    }

    #[test]
    fn the_newest_by_revision_stay() {
        let all = [
            made("2026-11-30T01:00:00Z", 5),
            made("2027-11-30T01:00:00Z", 3),
            made("2026-11-29T01:00:00Z", 9),
        ];
        let new = all[2];
        assert_eq!(surplus(all.to_vec(), new, 2), [all[1]]);
        assert!(surplus(all.to_vec(), new, 3).is_empty());
        assert_eq!(surplus(all.to_vec(), new, 1), [all[1], all[0]]);
    }

    #[test]
    fn one_of_a_state_that_began_anew_stays_and_so_do_those_of_the_former_state() {
        let former = [made("2026-11-30T01:00:00Z", 1000), made("2026-11-30T02:00:00Z", 1001)];
        let anew = [made("2026-12-01T01:00:00Z", 7), made("2026-12-01T02:00:00Z", 8)];
        let all = [former, anew].concat();
        assert!(surplus(all.clone(), anew[1], 2).is_empty());
        assert_eq!(surplus(all, anew[1], 1), [anew[0]]);
        // Of two of one revision, made in whatever order by the clock, that one stays which was made last.
        let same = [made("2026-12-01T03:00:00Z", 8), anew[1]];
        assert_eq!(surplus(same.to_vec(), anew[1], 1), [same[0]]);
    }

    #[test]
    fn a_period_is_no_shorter_than_a_second() {
        assert_eq!(period("6h"), Ok(SignedDuration::from_hours(6)));
        for wrong in ["", "0s", "-1h", "10ms", "9000h", "6"] {
            assert!(period(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_was_left_unfinished_goes_and_what_is_somebody_else_s_stays() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in [".holdfast-backup-abc", "notes.txt", "holdfast-20261130T230509Z-12.backup"] {
            fs::write(at(name), "").unwrap();
        }
        let series = Series { folder: dir.path().into(), keep: 1 };
        let nobody = || -> anyhow::Result<Client> { anyhow::bail!("nobody answers") };
        let failed = series.run(&nobody, None).await.unwrap_err().to_string();
        assert!(failed.contains("nobody answers"), "{failed}");
        assert!(!at(".holdfast-backup-abc").exists());
        assert!(at("notes.txt").exists() && at("holdfast-20261130T230509Z-12.backup").exists());
    }
}
