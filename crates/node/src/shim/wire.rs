//! What agent and shim say to each other: JSON behind four bytes of length, over a unix socket of the pod's folder. Open
//! files go along with the first byte. A shim may be older than the agent that finds it, so what is here only grows,
//! and a question that a shim doesn't know fails alone; where that can't be, [`VERSION`] says so.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use membership::lease::Epoch;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};

use crate::container::LogProgress;
use crate::host::{Command, Isolation};
use crate::oci::{Namespace, Wanted};
use crate::runtime::{Begun, Exit, RunError, Streams};

/// Of the messages. An agent ends the pods of a shim that speaks another one.
pub(crate) const VERSION: u32 = 1;
/// The longest message: more than the arguments and variables that the kernel lets a process have.
const LONGEST: usize = 16 << 20;
/// The socket's name in the pod's folder.
pub(crate) const SOCKET: &str = "shim.sock";
/// The open files that go with one message at most: a container's cgroups, of version 1 one a controller beside the one that can be killed.
const FILES: usize = 8;
/// The length in front of a message.
const HEAD: usize = 4;

/// One life of one container of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    pub container: String,
    pub attempt: u32,
}

/// What the agent asks. Every question has a number, and one answer with the same.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Who are you and what do you hold?
    Hello,
    /// With the container's cgroups as files, where there are any; the first is the one that can be killed.
    Start {
        life: Life,
        command: Box<Command>,
        isolation: Isolation,
        /// The folder of its logs.
        log: PathBuf,
    },
    /// Makes what all of the pod's containers share; fine if it is there.
    Sandbox(Box<Wanted>),
    /// The pod's own network namespace, as a file; it fails if there is none.
    Network,
    /// As [`Ask::Start`], what the bundle in that folder says.
    StartBundle {
        life: Life,
        folder: PathBuf,
        /// The folders of the image's layers, the lowest first.
        layers: Vec<PathBuf>,
        streams: Streams,
        /// The folder of its logs.
        log: PathBuf,
        /// The container among whose processes it is to be. A shim that doesn't know of it joins the namespace that the bundle names.
        #[serde(default)]
        target: Option<Life>,
    },
    /// Answered once the container is over.
    Exit(Life),
    Signal {
        life: Life,
        signal: i32,
    },
    /// With its three streams as files.
    Exec {
        life: Life,
        argv: Vec<String>,
        streams: Streams,
    },
    /// Answered once the command that the question of this number began is over.
    ExecExit(u64),
    ExecKill(u64),
    /// With a pipe for each output that is wanted.
    Attach {
        life: Life,
        stdout: bool,
        stderr: bool,
    },
    CloseInput(Life),
    /// Answered once more was written to the log than `seen`.
    Log {
        life: Life,
        seen: u64,
    },
    /// Answered once a container's log can't be written.
    Trouble,
    /// End everything. There is no answer but the connection's end.
    End,
}

/// What the shim answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// With the page of the host's lease as a file, if the pod stops with it.
    Hello {
        version: u32,
        lives: Vec<Told>,
        /// The epoch with which it stops.
        #[serde(default)]
        lease: Option<Epoch>,
    },
    Begun(Begun),
    /// The namespaces that all of the pod's containers are in.
    Sandbox(Vec<Namespace>),
    /// With the namespace as a file.
    Network,
    Failed(RunError),
    Exit(Exit),
    /// With the container's input or terminal as a file, if it has one.
    Attached,
    Log(LogProgress),
    Trouble {
        life: Life,
        why: String,
    },
    Done,
}

/// What the shim tells of a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Told {
    pub life: Life,
    pub begun: Begun,
    pub exit: Option<Exit>,
}

/// A message with its number, as it goes over the wire.
///
/// # Errors
/// If it is too long.
pub(crate) fn encode<T: Serialize>(number: u64, message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, &(number, message))?;
    let length = bytes.len() - HEAD;
    let head = u32::try_from(length).ok().filter(|_| length <= LONGEST);
    let head = head.ok_or_else(|| io::Error::other(format!("a message of {length} bytes is too long")))?;
    bytes[..HEAD].copy_from_slice(&head.to_le_bytes());
    Ok(bytes)
}

/// The length that a head tells.
///
/// # Errors
/// If it is more than [`LONGEST`].
fn length(head: [u8; HEAD]) -> io::Result<usize> {
    let length = u32::from_le_bytes(head) as usize;
    if length > LONGEST {
        return Err(io::Error::other(format!("a message of {length} bytes is too long")));
    }
    Ok(length)
}

/// What comes in, message by message.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    filled: usize,
    has_head: bool,
    files: Vec<OwnedFd>,
}

impl Inbox {
    /// Reads on without waiting; a message once it is whole, with the files that came along.
    ///
    /// # Errors
    /// `WouldBlock` if there is no whole message yet; anything else is the connection's end.
    pub(crate) fn next(&mut self, socket: RawFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        loop {
            if !self.has_head && self.bytes.is_empty() {
                self.bytes = vec![0; HEAD];
            }
            while self.filled < self.bytes.len() {
                let (read, files) = receive(socket, &mut self.bytes[self.filled..])?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.filled += read;
                self.files.extend(files);
            }
            let bytes = std::mem::take(&mut self.bytes);
            self.filled = 0;
            self.has_head = !self.has_head;
            if !self.has_head {
                return Ok((bytes, std::mem::take(&mut self.files)));
            }
            let mut head = [0; HEAD];
            head.copy_from_slice(&bytes);
            self.bytes = vec![0; length(head)?];
        }
    }
}

/// What goes out, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    sent: usize,
}

impl Outbox {
    /// Adds a message as [`encode`] made it.
    pub(crate) fn push(&mut self, bytes: Vec<u8>, files: Vec<OwnedFd>) {
        self.waiting.push_back((bytes, files));
    }

    /// Whether all was sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends on without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if something is left; anything else is the connection's end.
    pub(crate) fn flush(&mut self, socket: RawFd) -> io::Result<()> {
        while let Some((bytes, files)) = self.waiting.front_mut() {
            self.sent += send(socket, &bytes[self.sent..], files)?;
            // They go with the first byte.
            files.clear();
            if self.sent == bytes.len() {
                self.sent = 0;
                self.waiting.pop_front();
            }
        }
        Ok(())
    }
}

/// Sends what of `bytes` is taken at once, with files that go along with its first byte; says how much it was.
fn send(socket: RawFd, bytes: &[u8], files: &[OwnedFd]) -> io::Result<usize> {
    let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let with: &[ControlMessage<'_>] = if numbers.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    Ok(sendmsg::<()>(socket, &[IoSlice::new(bytes)], with, flags, None)?)
}

/// Reads what is there, and the files that came along; zero bytes at the end.
fn receive(socket: RawFd, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; FILES]);
    let mut parts = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), flags)?;
    let mut files = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel just made them for this process, and nobody else has them.
            files.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok((message.bytes, files))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn messages_arrive_whole_and_with_their_files() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut out, mut inbox) = (Outbox::default(), Inbox::default());
        let life = Life { container: "main".into(), attempt: 3 };
        let files = (0..FILES).map(|_| here.try_clone().unwrap().into()).collect();
        out.push(encode(6, &"x".repeat(1 << 20)).unwrap(), files);
        out.push(encode(7, &Ask::Exit(life.clone())).unwrap(), Vec::new());
        let mut come = Vec::new();
        while come.len() < 2 {
            let _ = out.flush(here.as_raw_fd());
            match inbox.next(there.as_raw_fd()) {
                Ok(message) => come.push(message),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        assert!(out.is_empty());
        assert_eq!((come[0].0.len(), come[0].1.len()), ((1 << 20) + 6, FILES));
        let (number, ask): (u64, Ask) = serde_json::from_slice(&come[1].0).unwrap();
        assert!(number == 7 && come[1].1.is_empty() && matches!(ask, Ask::Exit(told) if told == life));
        // The files that came along are the other end, too.
        drop((here, come));
        let end = inbox.next(there.as_raw_fd()).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_message_is_bounded() {
        assert!(length(u32::MAX.to_le_bytes()).is_err());
        assert!(encode(1, &"x".repeat(LONGEST)).is_err());
        assert!(encode(1, &"x".repeat(LONGEST / 2)).is_ok());
    }
}
