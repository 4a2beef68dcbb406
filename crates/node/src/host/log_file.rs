//! What a container prints, as files in the format of the CRI: `TIME STREAM F LINE`, with `P` for a part of
//! a line that is longer than 16 KiB. A file that passes 10 MiB is set aside; two such are kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

const LONGEST_LINE: usize = 16 << 10;
const LARGEST_FILE: u64 = 10 << 20;

/// How far a container's log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
    progress: watch::Sender<LogProgress>,
    failed: bool,
}

impl LogFile {
    /// Opens `FOLDER/ATTEMPT.log` and removes the logs before the previous attempt's.
    ///
    /// # Errors
    /// If the file can't be made.
    pub(crate) fn open(folder: &Path, attempt: u32) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        for entry in fs::read_dir(folder)?.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.split('.').next()?.parse::<u32>().ok());
            if number.is_some_and(|number| number + 1 < attempt) {
                fs::remove_file(entry.path())?;
            }
        }
        LogFile::with_limit(folder.join(format!("{attempt}.log")), LARGEST_FILE)
    }

    fn with_limit(path: PathBuf, largest: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
        let size = file.metadata()?.len();
        let progress = watch::Sender::new(LogProgress::default());
        Ok(LogFile { path, file, size, largest, progress, failed: false })
    }

    /// Follows how far it is.
    pub(crate) fn progress(&self) -> watch::Receiver<LogProgress> {
        self.progress.subscribe()
    }

    /// Appends whole lines. What can't be written (a full disk) is lost; the process must not stop for it.
    fn append(&mut self, lines: &[u8]) {
        if self.size >= self.largest {
            self.rotate();
        }
        match self.file.write_all(lines) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                let path = self.path.display();
                tracing::warn!(%path, %error, "lines of a container's log are lost");
            }
            Err(_) => {}
        }
        self.size += lines.len() as u64;
        self.progress.send_modify(|progress| progress.writes += 1);
    }

    fn rotate(&mut self) {
        let _ = fs::rename(aside(&self.path, 1), aside(&self.path, 2));
        let _ = fs::rename(&self.path, aside(&self.path, 1));
        if let Ok(file) =
            OpenOptions::new().create(true).append(true).custom_flags(libc::O_NOFOLLOW).open(&self.path)
        {
            self.file = file;
            self.size = 0;
        }
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        self.progress.send_modify(|progress| progress.ended = true);
    }
}

/// The name of a file set aside; 1 is the youngest.
pub(super) fn aside(path: &Path, place: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{place}"));
    name.into()
}

/// Writes what a process prints until it closes both streams, or until its [`Tail`] is read; `seen` gets the bytes
/// as they came.
pub(crate) async fn capture<Seen: Future<Output = ()>>(
    mut stdout: impl AsyncRead + Unpin,
    mut stderr: impl AsyncRead + Unpin,
    mut log: LogFile,
    mut tail: Tail,
    mut seen: impl FnMut(Source, &[u8]) -> Seen,
) {
    let mut out = Stream::new(Source::Stdout);
    let mut err = Stream::new(Source::Stderr);
    while !(out.ended && err.ended) {
        let (stream, before) = tokio::select! {
            (before, ended) = read(&mut stdout, &mut out.held), if !out.ended => {
                out.ended = ended;
                (&out, before)
            }
            (before, ended) = read(&mut stderr, &mut err.held), if !err.ended => {
                err.ended = ended;
                (&err, before)
            }
            () = tail.is_quiet() => {
                (out.ended, err.ended) = (true, true);
                (&out, out.held.len())
            }
        };
        let fresh = &stream.held[before..];
        let shown = (!fresh.is_empty()).then(|| seen(stream.source, fresh));
        if tail.is_over_after(fresh.len()) {
            (out.ended, err.ended) = (true, true);
        }
        let mut lines = Vec::new();
        let time = stamp(wall());
        out.take_lines(&time, &mut lines);
        err.take_lines(&time, &mut lines);
        if !lines.is_empty() {
            // Files may block on a slow disk: not on a thread that serves others.
            let written = tokio::task::spawn_blocking(move || {
                log.append(&lines);
                log
            });
            match written.await {
                Ok(returned) => log = returned,
                Err(_) => return,
            }
        }
        if let Some(shown) = shown {
            shown.await;
        }
    }
}

/// Reads more behind what is held: from where, and whether it was the end.
async fn read(from: &mut (impl AsyncRead + Unpin), held: &mut Vec<u8>) -> (usize, bool) {
    let before = held.len();
    let read = from.read_buf(held).await;
    (before, !matches!(read, Ok(n) if n > 0))
}

/// How long the output of a process that ended may be silent until it counts as over: a process that left the
/// group may hold the other end, but what it prints is not the container's.
const QUIET: Duration = Duration::from_millis(300);
/// How much is read of it at most: more than pipes hold.
const LONGEST_TAIL: usize = 2 << 20;

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
        // Who would say that it ended is gone: so is the process.
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

#[allow(clippy::disallowed_methods)] // the driver of the log: lines carry the time they came in
fn wall() -> Timestamp {
    Timestamp::now()
}

/// A time as log lines carry it: always nine digits, so that times compare as text.
pub(super) fn stamp(time: Timestamp) -> String {
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

struct Stream {
    source: Source,
    held: Vec<u8>,
    ended: bool,
}

impl Stream {
    fn new(source: Source) -> Self {
        Stream { source, held: Vec::with_capacity(4096), ended: false }
    }

    /// Moves all whole lines (at the end: all) out of what is held.
    fn take_lines(&mut self, time: &str, lines: &mut Vec<u8>) {
        let mut from = 0;
        while from < self.held.len() {
            let rest = &self.held[from..];
            let window = &rest[..rest.len().min(LONGEST_LINE)];
            let (line, tag, next) = match window.iter().position(|b| *b == b'\n') {
                Some(at) => (&rest[..at], 'F', from + at + 1),
                None if rest.len() >= LONGEST_LINE => (window, 'P', from + LONGEST_LINE),
                None if self.ended => (rest, 'F', self.held.len()),
                None => break,
            };
            lines.extend_from_slice(format!("{time} {} {tag} ", self.source.name()).as_bytes());
            lines.extend_from_slice(line);
            lines.push(b'\n');
            from = next;
        }
        self.held.drain(..from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_become_records_of_the_cri() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(LONGEST_LINE + 5);
        let printed = format!("one\n\n{long}\nlast");
        let log = LogFile::open(folder.path(), 0).unwrap();
        let (_running, over) = watch::channel(false);
        let seen = std::cell::RefCell::new(Vec::new());
        capture(printed.as_bytes(), &b"oops\n"[..], log, Tail::new(over), |source, bytes| {
            if source == Source::Stdout {
                seen.borrow_mut().extend_from_slice(bytes);
            }
            std::future::ready(())
        })
        .await;
        assert_eq!(seen.into_inner(), printed.as_bytes());
        let text = fs::read_to_string(folder.path().join("0.log")).unwrap();
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
        assert_eq!(out, [("F", 3), ("F", 0), ("P", LONGEST_LINE), ("F", 5), ("F", 4)]);
        assert!(records.contains(&("stderr", "F", "oops")));
    }

    #[test]
    fn a_large_file_is_set_aside_and_the_oldest_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::with_limit(path.clone(), 10).unwrap();
        for n in 0..5 {
            log.append(format!("line number {n}\n").as_bytes());
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&path), "line number 4\n");
        assert_eq!(read(&aside(&path, 1)), "line number 3\n");
        assert_eq!(read(&aside(&path, 2)), "line number 2\n");
        assert!(!aside(&path, 3).exists());
    }
}
