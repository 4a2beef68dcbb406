//! A command beside a container: with its user, folder, environment and namespaces. It ends with its container,
//! and with its caller.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::outcome::Outcome;
use super::session::{PIECE, ProcessEnd};
use crate::host::{Command, Size, Source, Spawner, Streams, Tail, Terminal, end_session, outputs};
use crate::pods::Guest;

/// Runs a command until it ends, its container does or its caller is gone. Once this has returned, it is dead, and so
/// is everything of its session.
pub(super) async fn exec(
    guest: Guest,
    spawner: Spawner,
    argv: Vec<String>,
    terminal: bool,
    end: ProcessEnd,
) -> Outcome {
    let mut command = Command { argv, ..guest.live().command.clone() };
    command.streams = if terminal { Streams::Terminal } else { Streams::Pipes };
    if terminal && !command.env.iter().any(|(name, _)| name == "TERM") {
        command.env.push(("TERM".into(), "xterm".into()));
    }
    let mut process = match spawner.spawn(command).await {
        Ok(process) => process,
        Err(error) => return Outcome::Failed(format!("error executing command in container: {error}")),
    };
    let ProcessEnd { input, size, output } = end;
    let (pid, terminal) = (process.pid, process.terminal.clone());
    let (stdout, stderr) = outputs(&mut process);
    let writer: Option<Box<dyn AsyncWrite + Send + Unpin>> = match (process.child.stdin.take(), &terminal) {
        (Some(pipe), _) => Some(Box::new(pipe)),
        (None, Some(terminal)) => Some(Box::new(terminal.clone())),
        (None, None) => None,
    };
    let (over, tail) = watch::channel(false);
    let tail = Tail::new(tail);
    let life = async {
        let status = process.child.wait().await;
        end_session(pid).await;
        over.send_replace(true);
        status
    };
    let printed = async {
        tokio::join!(
            print(stdout, Source::Stdout, &output, tail.clone()),
            print(stderr, Source::Stderr, &output, tail.clone()),
        )
    };
    let told = async {
        tokio::join!(feed(input, writer), follow_size(size, terminal));
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        (status, _) = async { tokio::join!(life, printed) } => Some(status),
        () = told => None,
        () = guest.ended() => None,
        () = output.closed() => None,
    };
    let status = match ended {
        Some(status) => status,
        None => {
            end_session(pid).await;
            process.child.wait().await
        }
    };
    match status {
        Ok(status) => Outcome::Exited(exit_code(status)),
        Err(error) => Outcome::Failed(format!("error executing command in container: {error}")),
    }
}

/// The exit code as shells have it: 128 and the signal for one that was killed.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Sends on what a process prints, as fast as it is taken.
async fn print(
    mut from: impl AsyncRead + Unpin,
    source: Source,
    to: &mpsc::Sender<(Source, Bytes)>,
    mut tail: Tail,
) {
    let mut held = BytesMut::new();
    loop {
        held.reserve(PIECE);
        let read = tokio::select! {
            read = from.read_buf(&mut held) => read,
            () = tail.is_quiet() => return,
        };
        let Ok(read @ 1..) = read else { return };
        if to.send((source, held.split().freeze())).await.is_err() || tail.is_over_after(read) {
            return;
        }
    }
}

/// Hands on what the caller sends, and its end. Without a caller's input, the process has an empty one.
async fn feed(input: Option<mpsc::Receiver<Bytes>>, writer: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let (Some(mut input), Some(mut writer)) = (input, writer) else { return };
    while let Some(piece) = input.recv().await {
        if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

/// Brings the terminal to the caller's size.
pub(super) async fn follow_size(mut size: watch::Receiver<Option<Size>>, terminal: Option<Terminal>) {
    let Some(terminal) = terminal else { return };
    loop {
        let wanted = *size.borrow_and_update();
        if let Some(wanted) = wanted
            && let Err(error) = terminal.resize(wanted)
        {
            tracing::debug!(%error, "a terminal keeps its size");
        }
        if size.changed().await.is_err() {
            return;
        }
    }
}
