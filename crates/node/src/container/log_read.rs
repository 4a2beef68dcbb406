//! Reading a container's log back, as `kubectl logs` asks for it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::log_file::{aside, stamp};

/// Which lines are wanted: `PodLogOptions` of core/v1.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogOptions {
    /// Only this many lines from the end.
    pub tail: Option<usize>,
    /// Each line with its time.
    pub timestamps: bool,
    /// Only lines of this time or later, as [`since_cut`] makes it.
    pub since: Option<String>,
    /// No more bytes than this.
    pub limit: Option<u64>,
}

/// A time that log lines can be compared with.
pub(crate) fn since_cut(time: Timestamp) -> String {
    stamp(time)
}

/// A place in the log of one life of a container.
#[derive(Debug)]
pub(crate) struct LogCursor {
    path: PathBuf,
    older: VecDeque<File>,
    current: File,
    inode: u64,
    options: LogOptions,
    held: Vec<u8>,
    sent: u64,
    at_line_start: bool,
}

/// A pod that reaches this folder (by a hostPath) may have put a link in the log's place: not followed.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// A record's time as our own are. Runtimes of others write theirs with fewer digits, and in the host's time zone.
fn normal(time: &[u8]) -> Option<Cow<'_, [u8]>> {
    if time.len() == LENGTH && time.last() == Some(&b'Z') {
        return Some(Cow::Borrowed(time));
    }
    let time = str::from_utf8(time).ok()?.parse::<Timestamp>().ok()?;
    Some(Cow::Owned(stamp(time).into_bytes()))
}

/// The length of a time of our own.
const LENGTH: usize = "2026-01-01T00:00:00.000000000Z".len();
/// How much is read at a time.
const CHUNK: usize = 64 << 10;

impl LogCursor {
    /// Opens the log of one attempt at its beginning.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn open(folder: &Path, attempt: u32, options: LogOptions) -> io::Result<Self> {
        let path = folder.join(format!("{attempt}.log"));
        let older = [2, 1].iter().filter_map(|place| open(&aside(&path, *place)).ok()).collect();
        let current = open(&path)?;
        let inode = current.metadata()?.ino();
        Ok(LogCursor { path, older, current, inode, options, held: Vec::new(), sent: 0, at_line_start: true })
    }

    /// Whether as many bytes were read as are wanted.
    pub(crate) fn is_full(&self) -> bool {
        self.options.limit.is_some_and(|limit| self.sent >= limit)
    }

    /// The next lines as they are sent to the caller; nothing when all that is there was read.
    ///
    /// # Errors
    /// If a file can't be read.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(tail) = self.options.tail.take() else {
            let Some(lines) = self.read_lines()? else { return Ok(None) };
            return Ok(Some(self.limited(lines.concat())));
        };
        let mut last: VecDeque<Vec<u8>> = VecDeque::new();
        let mut open_line = false;
        while let Some(lines) = self.read_lines()? {
            for line in lines {
                let ends = line.last() == Some(&b'\n');
                match last.back_mut().filter(|_| open_line) {
                    Some(part) => part.extend_from_slice(&line),
                    None => last.push_back(line),
                }
                open_line = !ends;
                if last.len() > tail {
                    last.pop_front();
                }
            }
        }
        let text = last.into_iter().collect::<Vec<_>>().concat();
        Ok(Some(self.limited(text)))
    }

    fn limited(&mut self, mut text: Vec<u8>) -> Vec<u8> {
        if let Some(limit) = self.options.limit {
            let left = usize::try_from(limit - self.sent.min(limit)).unwrap_or(usize::MAX);
            text.truncate(left);
        }
        self.sent += text.len() as u64;
        text
    }

    /// The lines in the next bytes; none may be wanted of them. Nothing at the end.
    fn read_lines(&mut self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut chunk = vec![0; CHUNK];
        let read = loop {
            if let Some(file) = self.older.front_mut() {
                let read = file.read(&mut chunk)?;
                if read > 0 {
                    break read;
                }
                self.older.pop_front();
                continue;
            }
            let read = self.current.read(&mut chunk)?;
            if read > 0 {
                break read;
            }
            if !self.turn_to_newer()? {
                return Ok(None);
            }
        };
        self.held.extend_from_slice(&chunk[..read]);
        let whole = self.held.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let taken: Vec<u8> = self.held.drain(..whole).collect();
        let lines = taken.split_inclusive(|b| *b == b'\n').filter_map(|line| self.shown(line)).collect();
        Ok(Some(lines))
    }

    /// Turns to the file that has taken the current one's place; false if none has.
    fn turn_to_newer(&mut self) -> io::Result<bool> {
        let Ok(file) = open(&self.path) else { return Ok(false) };
        let inode = file.metadata()?.ino();
        if inode == self.inode {
            return Ok(false);
        }
        self.inode = inode;
        // Read once more first: lines may have come after its end was read and before it was set aside.
        self.older.push_back(std::mem::replace(&mut self.current, file));
        Ok(true)
    }

    /// One record as it is shown, if it is wanted.
    fn shown(&mut self, record: &[u8]) -> Option<Vec<u8>> {
        let mut parts = record.splitn(4, |b| *b == b' ');
        let (time, _stream, tag, line) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let time = normal(time)?;
        if self.options.since.as_ref().is_some_and(|since| *time < *since.as_bytes()) {
            return None;
        }
        let mut shown = Vec::with_capacity(record.len());
        if self.options.timestamps && self.at_line_start {
            shown.extend_from_slice(&time);
            shown.push(b' ');
        }
        self.at_line_start = tag != b"P";
        let line = if self.at_line_start { line } else { line.strip_suffix(b"\n").unwrap_or(line) };
        shown.extend_from_slice(line);
        Some(shown)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(options: LogOptions) -> String {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("0.log.1"), "2026-01-01T00:00:00.000000000Z stdout F one\n").unwrap();
        let current = "2026-01-01T00:00:01.000000000Z stdout P tw\n\
                       2026-01-01T00:00:01.500000000Z stdout F o\n\
                       2026-01-01T00:00:02.000000000Z stderr F three\n";
        fs::write(folder.path().join("0.log"), current).unwrap();
        let mut cursor = LogCursor::open(folder.path(), 0, options).unwrap();
        let mut all = Vec::new();
        while let Some(text) = cursor.next().unwrap() {
            all.extend(text);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn the_options_choose_the_lines() {
        let since = since_cut("2026-01-01T00:00:02Z".parse().unwrap());
        for (options, text) in [
            (LogOptions::default(), "one\ntwo\nthree\n"),
            (LogOptions { tail: Some(2), ..LogOptions::default() }, "two\nthree\n"),
            (LogOptions { tail: Some(0), ..LogOptions::default() }, ""),
            (LogOptions { limit: Some(5), ..LogOptions::default() }, "one\nt"),
            (LogOptions { since: Some(since), ..LogOptions::default() }, "three\n"),
            (
                LogOptions { timestamps: true, tail: Some(1), ..LogOptions::default() },
                "2026-01-01T00:00:02.000000000Z three\n",
            ),
        ] {
            assert_eq!(read(options.clone()), text, "{options:?}");
        }
    }

    #[test]
    fn times_of_other_writers_are_compared_as_times() {
        let folder = tempfile::tempdir().unwrap();
        let lines = "2026-01-01T01:00:00.5+01:00 stdout F half past\nnot a time stdout F odd\n\
                     2026-01-01T00:00:02Z stderr F two\n";
        fs::write(folder.path().join("0.log"), lines).unwrap();
        let since = Some(since_cut("2026-01-01T00:00:00.4Z".parse().unwrap()));
        let options = LogOptions { since, timestamps: true, ..LogOptions::default() };
        let mut cursor = LogCursor::open(folder.path(), 0, options).unwrap();
        let text = String::from_utf8(cursor.next().unwrap().unwrap()).unwrap();
        let shown = "2026-01-01T00:00:00.500000000Z half past\n2026-01-01T00:00:02.000000000Z two\n";
        assert_eq!(text, shown);
    }

    #[test]
    fn lines_that_come_just_before_a_file_is_set_aside_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let line = |text: &str| format!("2026-01-01T00:00:00.000000000Z stdout F {text}\n");
        fs::write(&path, line("one")).unwrap();
        let mut cursor = LogCursor::open(folder.path(), 0, LogOptions::default()).unwrap();
        assert_eq!(cursor.next().unwrap().unwrap(), b"one\n");
        // As if the reader had seen the end of the file just before this line.
        fs::write(&path, line("one") + &line("two")).unwrap();
        fs::rename(&path, aside(&path, 1)).unwrap();
        fs::write(&path, line("three")).unwrap();
        assert!(cursor.turn_to_newer().unwrap());
        let mut all = Vec::new();
        while let Some(text) = cursor.next().unwrap() {
            all.extend(text);
        }
        assert_eq!(String::from_utf8(all).unwrap(), "two\nthree\n");
    }
}
