//! Events as lines of a file that makes way for the next one when it is large; the former ones go by number and age.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use config::AuditLog;
use jiff::Timestamp;

use super::queue::Outlet;

/// How many events are written at once, at most.
const BATCH: usize = 256;

/// How long after it couldn't make way a file grows, until that is tried again.
const RETRY: Duration = Duration::from_secs(60);

/// The log, and what it leaves behind.
pub struct LogFile {
    path: PathBuf,
    most_bytes: u64,
    most_backups: usize,
    max_age: Option<Duration>,
    now: fn() -> Timestamp,
    /// The file and its length; none after an error, until the next try.
    open: Option<(File, u64)>,
    /// When it was last tried in vain to make way for the next file.
    stuck: Option<Timestamp>,
    is_stuck: Arc<AtomicBool>,
}

/// Writes what comes out of a queue, until its end.
pub fn write(mut file: LogFile, mut outlet: Outlet) {
    let mut events = Vec::with_capacity(BATCH);
    while outlet.next_blocking(&mut events, BATCH) > 0 {
        match file.append(&events) {
            Ok(()) => outlet.written(&events),
            Err(error) => outlet.lost(&events, &format!("{}: {error}", file.path.display())),
        }
        events.clear();
    }
}

impl LogFile {
    /// Opens the log, and removes what is superfluous of the former ones.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn open(config: &AuditLog, now: fn() -> Timestamp) -> io::Result<Self> {
        let mut file = LogFile {
            path: config.file.clone(),
            most_bytes: u64::from(config.max_size) << 20,
            most_backups: config.max_backups as usize,
            max_age: config.max_age,
            now,
            open: None,
            stuck: None,
            is_stuck: Arc::default(),
        };
        if let Some(folder) = file.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        file.opened()?;
        file.prune();
        Ok(file)
    }

    /// Whether it grows past its size since it can't make way for the next file, at any time.
    pub fn is_stuck(&self) -> Arc<AtomicBool> {
        self.is_stuck.clone()
    }

    fn opened(&mut self) -> io::Result<&mut (File, u64)> {
        let open = match self.open.take() {
            Some(open) => open,
            None => {
                let mut file =
                    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
                let mut length = file.metadata()?.len();
                if length > 0 {
                    // A write that broke off left half a line, which would spoil the next one.
                    let mut last = [0];
                    file.seek(SeekFrom::End(-1))?;
                    file.read_exact(&mut last)?;
                    if last != *b"\n" {
                        file.write_all(b"\n")?;
                        length += 1;
                    }
                }
                (file, length)
            }
        };
        Ok(self.open.insert(open))
    }

    /// Appends events, each as a line.
    fn append(&mut self, events: &[Bytes]) -> io::Result<()> {
        let mut lines: Vec<u8> = Vec::new();
        for event in events {
            let (most, (_, length)) = (self.most_bytes, self.opened()?);
            let after = *length + (lines.len() + event.len() + 1) as u64;
            if after > most && *length + lines.len() as u64 > 0 && self.may_rotate() {
                self.put(&lines)?;
                lines.clear();
                self.make_way();
            }
            lines.extend_from_slice(event);
            lines.push(b'\n');
        }
        self.put(&lines)
    }

    fn put(&mut self, lines: &[u8]) -> io::Result<()> {
        let (file, length) = self.opened()?;
        let put = file.write_all(lines);
        *length += lines.len() as u64;
        if put.is_err() {
            // How much of it is written nobody knows.
            self.open = None;
        }
        put
    }

    /// Whether it isn't known that the file can't make way; after a while, and where a clock was put back, nobody knows any more.
    fn may_rotate(&self) -> bool {
        let since = |at| Duration::try_from((self.now)().duration_since(at)).ok();
        self.stuck.is_none_or(|at| since(at).is_none_or(|since| since >= RETRY))
    }

    /// Makes way for the next file. Where it can't, it grows on: a file that is too large is better than events that are lost.
    fn make_way(&mut self) {
        match self.rotate() {
            Ok(()) => self.stuck = None,
            Err(error) => {
                // Once, and not each minute.
                if self.stuck.replace((self.now)()).is_none() {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "the audit log can't make way for a new file, and grows past its maxSize");
                }
            }
        }
        self.is_stuck.store(self.stuck.is_some(), Ordering::Relaxed);
    }

    /// Puts the file among the former ones.
    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let newest = self.backups()?.into_iter().map(|(at, _)| at).max();
        // Also where two come within a microsecond, or a clock was put back: the last one is never taken for an old one.
        let behind = newest.map(|newest| newest.checked_add(Duration::from_micros(1)).unwrap_or(newest));
        let at = behind.map_or((self.now)(), |behind| behind.max((self.now)()));
        fs::rename(&self.path, self.backup_at(at))?;
        self.prune();
        Ok(())
    }

    /// What stands before and behind the time in the names of former files: `audit-` and `.log` for `audit.log`.
    fn name_parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let end = self.path.extension().map_or_else(String::new, |end| format!(".{}", end.to_string_lossy()));
        (text(self.path.file_stem()) + "-", end)
    }

    fn backup_at(&self, at: Timestamp) -> PathBuf {
        let (start, end) = self.name_parts();
        let time = format!("{at:.6}").replace(':', "-");
        self.path.with_file_name(format!("{start}{}{end}", time.trim_end_matches('Z')))
    }

    /// The former files with their times.
    fn backups(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let (start, end) = self.name_parts();
        let time_of = |name: &str| -> Option<Timestamp> {
            let (date, time) = name.strip_prefix(&start)?.strip_suffix(&end)?.split_once('T')?;
            format!("{date}T{}Z", time.replace('-', ":")).parse().ok()
        };
        let mut backups = Vec::new();
        for entry in fs::read_dir(self.path.parent().unwrap_or(Path::new("/")))? {
            let entry = entry?;
            if let Some(time) = entry.file_name().to_str().and_then(time_of) {
                backups.push((time, entry.path()));
            }
        }
        Ok(backups)
    }

    /// Removes former files that are too many or too old.
    fn prune(&self) {
        let removed = self.backups().and_then(|backups| {
            superfluous(backups, self.most_backups, self.max_age, (self.now)())
                .iter()
                .try_for_each(fs::remove_file)
        });
        if let Err(error) = removed {
            tracing::warn!(file = %self.path.display(), %error, "a former audit log can't be removed");
        }
    }
}

/// Those of the former files that go.
fn superfluous(
    mut backups: Vec<(Timestamp, PathBuf)>,
    most: usize,
    max_age: Option<Duration>,
    now: Timestamp,
) -> Vec<PathBuf> {
    backups.sort_by(|(a, _), (b, _)| b.cmp(a));
    let is_old = |at: Timestamp| {
        // One of the future is as young as can be.
        let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
        max_age.is_some_and(|most| age > most)
    };
    let numbered = backups.into_iter().enumerate();
    numbered.filter(|(place, (at, _))| *place >= most || is_old(*at)).map(|(_, (_, path))| path).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn open(path: &Path) -> LogFile {
        let (file, max_age) = (path.to_owned(), None);
        let mut log = LogFile::open(&AuditLog { file, max_size: 1, max_backups: 2, max_age }, noon).unwrap();
        log.most_bytes = 20;
        log
    }

    fn line(text: &str) -> Bytes {
        Bytes::from(text.to_owned())
    }

    #[test]
    fn a_full_file_makes_way_and_the_newest_former_ones_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/audit.log");
        let mut log = open(&path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let beside = folder.path().join("logs/audit-important.log");
        fs::write(&beside, "").unwrap();
        // Nine bytes each: two fit into one file.
        let lines: Vec<Bytes> = (0..7).map(|n| line(&format!("line {n}.."))).collect();
        log.append(&lines[..1]).unwrap();
        log.append(&lines[1..]).unwrap();
        log.append(&[line(&"x".repeat(100))]).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "x".repeat(100) + "\n", "one that is too large alone has a file to itself");
        let mut former = log.backups().unwrap();
        former.sort();
        let names: Vec<&str> =
            former.iter().map(|(_, path)| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["audit-2026-01-02T12-00-00.000002.log", "audit-2026-01-02T12-00-00.000003.log"]);
        assert_eq!(
            (read(&former[0].1), read(&former[1].1)),
            ("line 4..\nline 5..\n".into(), "line 6..\n".into())
        );
        assert!(beside.exists(), "what has no time in its name isn't the log's");
    }

    #[test]
    fn a_file_that_can_t_make_way_grows_and_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut log = open(&path);
        let read = || fs::read_to_string(&path).unwrap();
        log.append(&[line("line 0.."), line("line 1..")]).unwrap();
        // Somebody took it away: there is nothing that could get another name.
        fs::remove_file(&path).unwrap();
        for n in 2..5 {
            log.append(&[line(&format!("line {n}.."))]).unwrap();
        }
        assert_eq!(read(), "line 2..\nline 3..\nline 4..\n", "it isn't tried at each event");
        assert_eq!((log.stuck, log.backups().unwrap().len()), (Some(noon()), 0));
        assert!(log.is_stuck().load(Ordering::Relaxed));
        log.now = || noon() + RETRY;
        log.append(&[line("line 5..")]).unwrap();
        assert_eq!((read(), log.stuck, log.backups().unwrap().len()), ("line 5..\n".into(), None, 1));
        assert!(!log.is_stuck().load(Ordering::Relaxed));
    }

    #[test]
    fn half_a_line_of_before_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        fs::write(&path, "{\"a\":").unwrap();
        let mut log = open(&path);
        log.append(&[line("{}")]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":\n{}\n");
    }

    #[test]
    fn former_files_go_by_number_and_by_age() {
        let day = Duration::from_secs(24 * 3600);
        let days_ago = |days: u32| (noon() - day * days, PathBuf::from(days.to_string()));
        let tomorrow = (noon() + day, PathBuf::from("tomorrow"));
        let all = || vec![days_ago(3), days_ago(1), tomorrow.clone(), days_ago(2)];
        let names = |gone: Vec<PathBuf>| -> Vec<String> {
            gone.into_iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(names(superfluous(all(), 10, None, noon())), Vec::<String>::new());
        assert_eq!(names(superfluous(all(), 2, None, noon())), ["2", "3"]);
        assert_eq!(names(superfluous(all(), 10, Some(day * 5 / 2), noon())), ["3"]);
    }

    #[test]
    fn a_file_that_can_t_be_written_loses_what_came_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut log = open(&path);
        log.open = None;
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(log.append(&[line("{}")]).is_err());
        fs::remove_dir(&path).unwrap();
        log.append(&[line("{}")]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
    }
}
