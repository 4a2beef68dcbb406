//! What a container prints, as files in the format of the CRI: `TIME STREAM F LINE`, with `P` for a part of
//! a line that is longer than 16 KiB. A file that passes 10 MiB is set aside; two such are kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// containerd's `max_container_log_line_size`.
const LONGEST_LINE: usize = 16 << 10;
/// The kubelet's `containerLogMaxSize`.
pub(crate) const LARGEST_FILE: u64 = 10 << 20;

/// How far a container's log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogProgress {
    /// How often something was written.
    pub writes: u64,
    /// Whether nothing more comes.
    pub ended: bool,
}

/// The log of one life of a container.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    largest: u64,
    writes: u64,
    /// Whether the last lines could not be written.
    is_failing: bool,
}

impl LogFile {
    /// Opens `FOLDER/ATTEMPT.log` and removes the logs before the previous attempt's.
    ///
    /// # Errors
    /// If the file can't be made.
    pub(crate) fn open(folder: &Path, attempt: u32) -> io::Result<Self> {
        make_room(folder, attempt)?;
        LogFile::with_limit(folder.join(format!("{attempt}.log")), LARGEST_FILE)
    }

    fn with_limit(path: PathBuf, largest: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
        let size = file.metadata()?.len();
        Ok(LogFile { path, file, size, largest, writes: 0, is_failing: false })
    }

    /// How often something was written.
    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }

    /// Appends whole lines. What can't be written (a full disk) is lost; the process must not stop for it. Answers why, once
    /// until something is written again.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Option<io::Error> {
        if self.size >= self.largest {
            self.rotate();
        }
        self.writes += 1;
        let written = self.file.write_all(lines);
        let was_failing = std::mem::replace(&mut self.is_failing, written.is_err());
        match written {
            Ok(()) => {
                self.size += lines.len() as u64;
                None
            }
            Err(error) => {
                // No part of a line stays, to which the next one would be added.
                let _ = self.file.set_len(self.size);
                (!was_failing).then_some(error)
            }
        }
    }

    fn rotate(&mut self) {
        set_aside(&self.path);
        if let Ok(file) =
            OpenOptions::new().create(true).append(true).custom_flags(libc::O_NOFOLLOW).open(&self.path)
        {
            // Not empty where it could not be set aside; `append` cuts the file off at this size.
            self.size = file.metadata().map_or(0, |about| about.len());
            self.file = file;
        }
    }
}

/// Makes a container's folder of logs, and removes the logs before those of the attempt before this one.
///
/// # Errors
/// If the folder can't be made, or a log can't be removed.
pub(crate) fn make_room(folder: &Path, attempt: u32) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.split('.').next()?.parse::<u32>().ok());
        if number.is_some_and(|number| number.saturating_add(1) < attempt) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Sets a file aside, and the one that was set aside before. What can't be moved stays.
pub(crate) fn set_aside(path: &Path) {
    let _ = fs::rename(aside(path, 1), aside(path, 2));
    let _ = fs::rename(path, aside(path, 1));
}

/// The name of a file set aside; 1 is the youngest.
pub(super) fn aside(path: &Path, place: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{place}"));
    name.into()
}

/// How long the output of a process that ended may be silent until it counts as over: a process that left the
/// group may hold the other end, but what it prints is not the container's.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
/// How much is read of it at most: more than pipes hold.
pub(crate) const LONGEST_TAIL: usize = 2 << 20;

/// What remains to be read of the output of a process that ended.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    over: watch::Receiver<bool>,
    left: usize,
}

impl Tail {
    /// The tail of a process' output; `over` says whether it ended.
    pub(crate) fn new(over: watch::Receiver<bool>) -> Self {
        Tail { over, left: LONGEST_TAIL }
    }

    /// Waits until the process ended and prints nothing for a while.
    pub(crate) async fn is_quiet(&mut self) {
        // If the sender is gone, so is the process.
        let _ = self.over.wait_for(|over| *over).await;
        tokio::time::sleep(QUIET).await;
    }

    /// Counts what was read, and says whether that was all that counts.
    pub(crate) fn is_over_after(&mut self, read: usize) -> bool {
        if *self.over.borrow() {
            self.left = self.left.saturating_sub(read);
        }
        self.left == 0
    }
}

/// A time as log lines carry it: always nine digits, so that times compare as text.
pub(crate) fn stamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// Which output it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
        }
    }
}

/// What one output has printed and is no whole line yet.
#[derive(Debug)]
pub(crate) struct Lines {
    source: Source,
    held: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(source: Source) -> Self {
        Lines { source, held: Vec::new() }
    }

    /// Takes in what was printed; answers the records of all whole lines, or, at the end of the output, of all that is
    /// left.
    pub(crate) fn take(&mut self, printed: &[u8], ended: bool, time: Timestamp) -> Vec<u8> {
        let (time, mut lines) = (stamp(time), Vec::new());
        self.held.extend_from_slice(printed);
        let mut from = 0;
        while from < self.held.len() {
            let rest = &self.held[from..];
            let window = &rest[..rest.len().min(LONGEST_LINE)];
            let (line, tag, next) = match window.iter().position(|b| *b == b'\n') {
                Some(at) => (&rest[..at], 'F', from + at + 1),
                None if rest.len() >= LONGEST_LINE => (window, 'P', from + LONGEST_LINE),
                // No line: as containerd has it, so that nobody reads a line break that was never printed.
                None if ended => (rest, 'P', self.held.len()),
                None => break,
            };
            lines.extend_from_slice(format!("{time} {} {tag} ", self.source.name()).as_bytes());
            lines.extend_from_slice(line);
            lines.push(b'\n');
            from = next;
        }
        self.held.drain(..from);
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_records_of_the_cri() {
        let long = "x".repeat(LONGEST_LINE + 5);
        let printed = format!("one\n\n{long}\nlast");
        let (mut out, mut err) = (Lines::new(Source::Stdout), Lines::new(Source::Stderr));
        let mut bytes = Vec::new();
        for piece in printed.as_bytes().chunks(1000) {
            bytes.extend(out.take(piece, false, Timestamp::UNIX_EPOCH));
        }
        bytes.extend(err.take(b"oops\n", false, Timestamp::UNIX_EPOCH));
        bytes.extend(out.take(b"", true, Timestamp::UNIX_EPOCH));
        let text = String::from_utf8(bytes).unwrap();
        let records: Vec<(&str, &str, &str)> = text
            .lines()
            .map(|line| {
                let (time, rest) = line.split_once(' ').unwrap();
                time.parse::<Timestamp>().unwrap();
                assert_eq!(time.len(), 30, "{time}");
                let mut parts = rest.splitn(3, ' ');
                (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap())
            })
            .collect();
        let out: Vec<_> = records.iter().filter(|r| r.0 == "stdout").map(|r| (r.1, r.2.len())).collect();
        assert_eq!(out, [("F", 3), ("F", 0), ("P", LONGEST_LINE), ("F", 5), ("P", 4)]);
        assert!(records.contains(&("stderr", "F", "oops")));
    }

    #[test]
    fn a_log_that_cannot_be_written_says_so_once() {
        let full = || LogFile::with_limit("/dev/full".into(), 10).unwrap();
        let mut log = full();
        let why = log.append(b"one\n").unwrap();
        assert_eq!(why.kind(), io::ErrorKind::StorageFull);
        assert!(log.append(b"two\n").is_none() && log.append(b"three\n").is_none());
        let folder = tempfile::tempdir().unwrap();
        let mut good = LogFile::with_limit(folder.path().join("0.log"), 100).unwrap();
        assert!(good.append(b"four\n").is_none());
        // Room again, and full again.
        let bad = std::mem::replace(&mut log.file, good.file);
        assert!(log.append(b"five\n").is_none());
        log.file = bad;
        assert!(log.append(b"six\n").is_some());
        assert_eq!(fs::read_to_string(folder.path().join("0.log")).unwrap(), "four\nfive\n");
    }

    #[test]
    fn a_large_file_that_cannot_be_set_aside_keeps_its_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        for place in [1, 2] {
            fs::create_dir_all(aside(&path, place).join("in the way")).unwrap();
        }
        let mut log = LogFile::with_limit(path.clone(), 10).unwrap();
        for line in ["line number 0\n", "line number 1\n"] {
            assert!(log.append(line.as_bytes()).is_none());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "line number 0\nline number 1\n");
        // To this size the file is cut where a line can't be written as a whole.
        assert_eq!(log.size, fs::metadata(&path).unwrap().len());
    }

    #[test]
    fn a_large_file_is_set_aside_and_the_oldest_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::with_limit(path.clone(), 10).unwrap();
        for n in 0..5 {
            assert!(log.append(format!("line number {n}\n").as_bytes()).is_none());
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "line number 4\n");
        assert_eq!(read(&aside(&path, 1)), "line number 3\n");
        assert_eq!(read(&aside(&path, 2)), "line number 2\n");
        assert!(!aside(&path, 3).exists());
    }
}
