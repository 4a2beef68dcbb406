//! A command beside a container: the agent's ends of its streams, and its own end.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::net::unix::pipe;

use super::link::{Link, Reply};
use crate::container::Terminal;
use crate::runtime::{Begun, Exit, InputWriter, OutputReader, RunError, SessionEnd, Streams};
use crate::shim::wire::{Answer, Ask};

/// The agent's ends of a command's streams.
pub(super) struct Ours {
    pub outputs: (OutputReader, OutputReader),
    pub input: Option<InputWriter>,
    pub terminal: Option<Terminal>,
}

impl Ours {
    /// Both ends: ours, and the command's input, output and errors.
    pub(super) fn make(streams: Streams) -> io::Result<(Self, Vec<OwnedFd>)> {
        if streams == Streams::Terminal {
            let (terminal, inside) = Terminal::open()?;
            let theirs = vec![inside.try_clone()?, inside.try_clone()?, inside];
            let outputs: (OutputReader, OutputReader) =
                (Box::pin(terminal.clone()), Box::pin(tokio::io::empty()));
            let input: Option<InputWriter> = Some(Box::pin(terminal.clone()));
            return Ok((Ours { outputs, input, terminal: Some(terminal) }, theirs));
        }
        let (stdout, out) = output_pipe()?;
        let (stderr, err) = output_pipe()?;
        let (input, stdin): (Option<InputWriter>, OwnedFd) = if streams == Streams::Pipes {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            (Some(Box::pin(pipe::Sender::from_owned_fd(write)?)), read)
        } else {
            (None, fs::File::open("/dev/null")?.into())
        };
        Ok((Ours { outputs: (stdout, stderr), input, terminal: None }, vec![stdin, out, err]))
    }
}

pub(super) fn output_pipe() -> io::Result<(OutputReader, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((Box::pin(pipe::Receiver::from_owned_fd(read)?), write))
}

pub(super) fn system(why: impl ToString) -> RunError {
    RunError::System(why.to_string())
}

/// The answer to a question about a start.
pub(super) fn begun(reply: Option<Reply>) -> Result<Begun, RunError> {
    match reply {
        Some((Answer::Begun(begun), _)) => Ok(begun),
        Some((Answer::Failed(error), _)) => Err(error),
        Some(_) => Err(system("the pod's shim answered something else")),
        None => Err(system("the pod's shim is gone")),
    }
}

/// How a container or command ended, as a shim answers.
pub(super) fn exit(reply: Option<Reply>) -> Option<Exit> {
    match reply {
        Some((Answer::Exit(exit), _)) => Some(exit),
        _ => None,
    }
}

/// The end of a command that a question to a shim began.
pub(super) struct CommandEnd {
    pub link: Arc<Link>,
    pub number: u64,
}

impl SessionEnd for CommandEnd {
    fn exit(&self) -> BoxFuture<'_, Option<Exit>> {
        async move { exit(self.link.ask(&Ask::ExecExit(self.number), Vec::new()).await) }.boxed()
    }

    fn kill(&self) {
        drop(self.link.send(&Ask::ExecKill(self.number), Vec::new()));
    }
}

impl Drop for CommandEnd {
    fn drop(&mut self) {
        self.kill();
    }
}
