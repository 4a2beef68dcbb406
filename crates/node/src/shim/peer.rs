//! One connection of the shim. The other end must be of the shim's own user, or it is hung up on.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use serde::de::IgnoredAny;

use super::wire::{Answer, Ask, Inbox, Outbox, encode};
use crate::runtime::RunError;

/// An agent, or one that is about to be gone.
#[derive(Debug)]
pub(super) struct Peer {
    /// What tells it from others.
    pub(super) number: u64,
    stream: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
}

/// A question with the files that came along.
pub(super) struct Question {
    pub(super) number: u64,
    pub(super) ask: Ask,
    pub(super) files: Vec<OwnedFd>,
}

impl Peer {
    /// # Errors
    /// If it is of another user.
    pub(super) fn new(number: u64, stream: UnixStream) -> io::Result<Self> {
        let who = getsockopt(&stream, sockopt::PeerCredentials)?;
        if who.uid() != geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.set_nonblocking(true)?;
        Ok(Peer { number, stream, inbox: Inbox::default(), outbox: Outbox::default() })
    }

    /// What to wait for, as poll(2) has it. While it doesn't take answers it is asked nothing more.
    pub(super) fn interest(&self) -> (i32, libc::c_short) {
        (self.stream.as_raw_fd(), if self.outbox.is_empty() { libc::POLLIN } else { libc::POLLOUT })
    }

    /// The next question, if one is there.
    ///
    /// # Errors
    /// At the connection's end, or if it says what makes no sense.
    pub(super) fn next(&mut self) -> io::Result<Option<Question>> {
        while self.outbox.is_empty() {
            let (bytes, files) = match self.inbox.next(self.stream.as_raw_fd()) {
                Ok(message) => message,
                Err(error) if is_later(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            if let Ok((number, ask)) = serde_json::from_slice(&bytes) {
                return Ok(Some(Question { number, ask, files }));
            }
            // A newer agent's.
            let (number, _): (u64, IgnoredAny) = serde_json::from_slice(&bytes)?;
            let why = "the pod's shim is older than this question".to_owned();
            self.answer(number, &Answer::Failed(RunError::System(why)), Vec::new());
            self.flush()?;
        }
        Ok(None)
    }

    /// Answers, now or as soon as it is taken.
    pub(super) fn answer(&mut self, number: u64, answer: &Answer, files: Vec<OwnedFd>) {
        if let Ok(bytes) = encode(number, answer) {
            self.outbox.push(bytes, files);
        }
    }

    /// Sends on.
    ///
    /// # Errors
    /// At the connection's end.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self.outbox.flush(self.stream.as_raw_fd()) {
            Err(error) if !is_later(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_question_that_is_not_known_yet_fails_alone() {
        let (mut agent, shim) = UnixStream::pair().unwrap();
        let mut peer = Peer::new(1, shim).unwrap();
        agent.write_all(&encode(7, &serde_json::json!({"Dance": {"how": "well"}})).unwrap()).unwrap();
        agent.write_all(&encode(8, &Ask::Hello).unwrap()).unwrap();
        let question = peer.next().unwrap().unwrap();
        assert!(question.number == 8 && matches!(question.ask, Ask::Hello));
        let (bytes, _) = Inbox::default().next(agent.as_raw_fd()).unwrap();
        let (number, answer): (u64, Answer) = serde_json::from_slice(&bytes).unwrap();
        assert!(number == 7 && matches!(answer, Answer::Failed(_)), "{answer:?}");
        agent.write_all(&encode(9, &Ask::Hello).unwrap()[..5]).unwrap();
        assert!(peer.next().unwrap().is_none());
        agent.write_all(b"no JSON").unwrap();
        drop(agent);
        assert!(peer.next().is_err());
    }
}
