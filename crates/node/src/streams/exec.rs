//! A command beside a container: with its user, folder, environment and namespaces. It ends with its container,
//! and with its caller.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::outcome::Outcome;
use super::session::{PIECE, ProcessEnd};
use crate::container::{Resize, Size, Source, Tail};
use crate::runtime::{Exec, InputWriter, Runtime, Streams, Which};

/// Runs a command until it ends, its container does or its caller is gone. Once this has returned, it is dead, and so
/// is everything of its session.
pub(super) async fn exec(
    runtime: Arc<dyn Runtime>,
    which: Which,
    argv: Vec<String>,
    terminal: bool,
    end: ProcessEnd,
) -> Outcome {
    let streams = if terminal { Streams::Terminal } else { Streams::Pipes };
    let failed = |why: String| Outcome::Failed(format!("error executing command in container: {why}"));
    let session = match runtime.exec(&which, Exec { argv, streams, limit: None }).await {
        Ok(session) => session,
        Err(error) => return failed(error.to_string()),
    };
    let ProcessEnd { input, size, output } = end;
    let (stdout, stderr) = session.outputs;
    let (over, tail) = watch::channel(false);
    let tail = Tail::new(tail);
    let life = async {
        let exit = session.end.exit().await;
        over.send_replace(true);
        exit
    };
    let printed = async {
        tokio::join!(
            print(stdout, Source::Stdout, &output, tail.clone()),
            print(stderr, Source::Stderr, &output, tail.clone()),
        )
    };
    let told = async {
        tokio::join!(feed(input, session.input), follow_size(size, session.terminal));
        std::future::pending::<()>().await;
    };
    let ended = tokio::select! {
        (exit, _) = async { tokio::join!(life, printed) } => exit,
        () = told => None,
        () = output.closed() => {
            session.end.kill();
            session.end.exit().await
        }
    };
    match ended {
        Some(exit) => Outcome::Exited(exit.code),
        None => failed(session.end.failure().unwrap_or_else(|| "its end is not known".into())),
    }
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
async fn feed(input: Option<mpsc::Receiver<Bytes>>, writer: Option<InputWriter>) {
    let (Some(mut input), Some(mut writer)) = (input, writer) else { return };
    while let Some(piece) = input.recv().await {
        if writer.write_all(&piece).await.is_err() || writer.flush().await.is_err() {
            return;
        }
    }
}

/// Brings the terminal to the caller's size.
pub(super) async fn follow_size(mut size: watch::Receiver<Option<Size>>, terminal: Option<Box<dyn Resize>>) {
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
