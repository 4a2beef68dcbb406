//! What one container prints: to its log, and to those who watch, at their pace but not for long.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::container::{LONGEST_TAIL, Lines, LogFile, LogProgress, QUIET, Source};

/// How long a container waits for a watcher to take its output; after that it goes on without it. A watcher that stalls for
/// longer than a few packets take to be sent again is gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much is read at a time: a line of a log at most, and a quarter of what a pipe holds.
const PIECE: usize = 16 << 10;
/// How many pieces are read before others have their turn: four pipes full, so that a container that prints without end
/// starves none.
const TURN: usize = 16;

/// The two outputs of a container in one of its lives.
#[derive(Debug)]
pub(super) struct Output {
    streams: [Option<File>; 2],
    lines: [Lines; 2],
    /// None once it is complete.
    log: Option<LogFile>,
    writes: u64,
    /// Why the log can't be written, until somebody hears of it.
    trouble: Option<String>,
    watchers: Vec<Watcher>,
    tail: Option<Tail>,
}

/// What remains to be read once the process ended.
#[derive(Debug)]
struct Tail {
    heard: Instant,
    left: usize,
}

/// One who sees what is printed.
#[derive(Debug)]
struct Watcher {
    pipes: [Option<File>; 2],
    /// What they haven't taken yet, of which output, and since when.
    late: Option<(usize, Vec<u8>, Instant)>,
}

impl Output {
    /// The streams must not block.
    pub(super) fn new(streams: [Option<OwnedFd>; 2], log: LogFile) -> Self {
        Output {
            streams: streams.map(|stream| stream.map(File::from)),
            lines: [Lines::new(Source::Stdout), Lines::new(Source::Stderr)],
            log: Some(log),
            writes: 0,
            trouble: None,
            watchers: Vec::new(),
            tail: None,
        }
    }

    /// Somebody sees what is printed from now on.
    pub(super) fn watch(&mut self, pipes: [Option<OwnedFd>; 2]) {
        if self.log.is_some() {
            self.watchers.push(Watcher { pipes: pipes.map(|pipe| pipe.map(File::from)), late: None });
        }
    }

    pub(super) fn progress(&self) -> LogProgress {
        LogProgress { writes: self.writes, ended: self.is_over() }
    }

    /// Why the log can't be written; each time once.
    pub(super) fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Whether nothing more comes.
    pub(super) fn is_over(&self) -> bool {
        self.log.is_none()
    }

    /// The process ended: what a process that left its group prints from now on is not the container's.
    pub(super) fn ended(&mut self, now: Instant) {
        self.tail = Some(Tail { heard: now, left: LONGEST_TAIL });
    }

    /// What to wait for, as poll(2) has it.
    pub(super) fn interests(&self, wait: &mut impl FnMut(RawFd, libc::c_short)) {
        let is_held_up = self.watchers.iter().any(|watcher| watcher.late.is_some());
        for stream in self.streams.iter().flatten().filter(|_| !is_held_up) {
            wait(stream.as_raw_fd(), libc::POLLIN);
        }
        for watcher in &self.watchers {
            for (number, pipe) in watcher.pipes.iter().enumerate() {
                let Some(pipe) = pipe else { continue };
                let is_late = watcher.late.as_ref().is_some_and(|(late, ..)| *late == number);
                // Without an event to wait for, its end is reported all the same.
                wait(pipe.as_raw_fd(), if is_late { libc::POLLOUT } else { 0 });
            }
        }
    }

    /// When it must be looked at again at the latest.
    pub(super) fn wake(&self) -> Option<Instant> {
        let late = self.watchers.iter().filter_map(|watcher| Some(watcher.late.as_ref()?.2 + PATIENCE));
        let tail = self.tail.as_ref().filter(|_| !self.is_over()).map(|tail| tail.heard + QUIET);
        late.chain(tail).min()
    }

    /// Moves on what can be moved.
    pub(super) fn pump(&mut self, now: Instant, wall: Timestamp) {
        self.watchers.retain_mut(|watcher| watcher.goes_on(now));
        for number in 0..self.streams.len() {
            for _ in 0..TURN {
                if self.watchers.iter().any(|watcher| watcher.late.is_some()) || !self.read(number, now, wall)
                {
                    break;
                }
            }
        }
        let is_quiet = self.tail.as_ref().is_some_and(|tail| tail.left == 0 || now >= tail.heard + QUIET);
        // Held up, nothing is read: then its silence says nothing.
        let is_held_up = self.watchers.iter().any(|watcher| watcher.late.is_some());
        if self.log.is_some() && ((is_quiet && !is_held_up) || self.streams.iter().all(Option::is_none)) {
            self.streams = [None, None];
            for number in 0..self.lines.len() {
                self.record(number, &[], true, wall);
            }
            self.log = None;
        }
        if self.is_over() {
            self.watchers.retain(|watcher| watcher.late.is_some());
        }
    }

    /// Reads a piece; false if there is none.
    fn read(&mut self, number: usize, now: Instant, wall: Timestamp) -> bool {
        let Some(stream) = &mut self.streams[number] else { return false };
        let mut piece = [0; PIECE];
        let read = match stream.read(&mut piece) {
            Ok(read @ 1..) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // EIO is a terminal's way of saying that nobody has the other side open any more.
            Ok(_) | Err(_) => {
                self.streams[number] = None;
                self.record(number, &[], true, wall);
                return false;
            }
        };
        let printed = &piece[..read];
        self.record(number, printed, false, wall);
        for watcher in &mut self.watchers {
            watcher.pass(number, printed, now);
        }
        if let Some(tail) = &mut self.tail {
            tail.heard = now;
            tail.left = tail.left.saturating_sub(read);
            return tail.left > 0;
        }
        true
    }

    fn record(&mut self, number: usize, printed: &[u8], ended: bool, wall: Timestamp) {
        let records = self.lines[number].take(printed, ended, wall);
        if let (Some(log), false) = (&mut self.log, records.is_empty()) {
            if let Some(why) = log.append(&records) {
                self.trouble = Some(why.to_string());
            }
            self.writes = log.writes();
        }
    }
}

impl Watcher {
    fn pass(&mut self, number: usize, printed: &[u8], now: Instant) {
        let Some(pipe) = &mut self.pipes[number] else { return };
        match write_some(pipe, printed) {
            Ok(written) if written == printed.len() => {}
            Ok(written) => self.late = Some((number, printed[written..].to_vec(), now)),
            Err(_) => self.pipes[number] = None,
        }
    }

    /// Whether they are still there, and not too late.
    fn goes_on(&mut self, now: Instant) -> bool {
        if let Some((number, bytes, since)) = self.late.take()
            && let Some(pipe) = &mut self.pipes[number]
        {
            match write_some(pipe, &bytes) {
                Ok(written) if written == bytes.len() => {}
                Ok(_) if now >= since + PATIENCE => return false,
                Ok(0) => self.late = Some((number, bytes, since)),
                Ok(written) => self.late = Some((number, bytes[written..].to_vec(), now)),
                Err(_) => self.pipes[number] = None,
            }
        }
        for pipe in &mut self.pipes {
            if pipe.as_ref().is_some_and(is_closed) {
                *pipe = None;
            }
        }
        self.pipes.iter().any(Option::is_some)
    }
}

/// Writes without waiting.
fn write_some(pipe: &mut File, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match pipe.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Whether nobody reads a pipe any more.
fn is_closed(pipe: &File) -> bool {
    let mut one = libc::pollfd { fd: pipe.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one entry, which lives through the call; it does not wait.
    unsafe { libc::poll(&raw mut one, 1, 0) == 1 && one.revents & libc::POLLERR != 0 }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap()
    }

    #[allow(clippy::disallowed_methods, reason = "any moment will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn a_container_does_not_wait_for_long_for_those_who_watch() {
        let folder = tempfile::tempdir().unwrap();
        let ((stdout, print), (seen, watch)) = (pipe(), pipe());
        let mut output = Output::new([Some(stdout), None], LogFile::open(folder.path(), 0).unwrap());
        output.watch([Some(watch), None]);
        let (mut print, start) = (File::from(print), now());
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let mut printed = 0;
        // Nobody takes anything: both pipes fill up.
        while write_some(&mut print, &line).unwrap() == line.len() {
            printed += line.len();
            output.pump(start, Timestamp::UNIX_EPOCH);
        }
        assert_eq!(output.wake(), Some(start + PATIENCE));
        let lines = |output: &Output| (output.progress().writes, output.watchers.len());
        let held = lines(&output);
        output.pump(start + PATIENCE - Duration::from_millis(1), Timestamp::UNIX_EPOCH);
        assert_eq!(lines(&output), held, "it still waits");
        output.pump(start + PATIENCE, Timestamp::UNIX_EPOCH);
        assert!(lines(&output).0 > held.0 && output.watchers.is_empty(), "it goes on without them");
        drop(print);
        output.pump(start + PATIENCE, Timestamp::UNIX_EPOCH);
        assert!(output.is_over());
        let log = std::fs::read_to_string(folder.path().join("0.log")).unwrap();
        let logged: usize = log.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap().len() + 1).sum();
        assert!(logged >= printed, "{logged} of {printed}");
        let mut all = Vec::new();
        File::from(seen).read_to_end(&mut all).unwrap();
        assert!(!all.is_empty() && all.len() < printed);
    }

    #[test]
    fn what_a_stray_prints_after_the_end_is_not_the_containers() {
        let folder = tempfile::tempdir().unwrap();
        let (stdout, print) = pipe();
        let mut output = Output::new([Some(stdout), None], LogFile::open(folder.path(), 0).unwrap());
        let (mut print, start) = (File::from(print), now());
        print.write_all(b"last").unwrap();
        output.ended(start);
        output.pump(start, Timestamp::UNIX_EPOCH);
        assert!(!output.is_over() && output.wake() == Some(start + QUIET));
        output.pump(start + QUIET, Timestamp::UNIX_EPOCH);
        assert!(output.is_over() && output.progress() == LogProgress { writes: 1, ended: true });
        assert!(print.write_all(b"stray").is_err(), "nobody reads it");
        let log = std::fs::read_to_string(folder.path().join("0.log")).unwrap();
        assert!(log.ends_with(" stdout P last\n") && log.lines().count() == 1, "{log}");
    }
}
