//! Commands beside the containers of a runtime of others.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cri::Client;
use cri::messages::{AttachRequest, ExecRequest};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::info_span;

use super::runtime::system;
use crate::runtime::{Attached, Exit, OutputReader, RunError, Session, SessionEnd, Streams};
use crate::streams::{Ends, Outcome, Remote, WantedStreams, connect_streams};

#[expect(clippy::disallowed_methods, reason = "a command ends when its runtime says so")]
fn exit_now(code: i32) -> Exit {
    Exit { code, signal: 0, at: Timestamp::now() }
}

/// How much of an output is passed on at once.
const PIECE: usize = 16 << 10;

/// Runs a command and leads its streams here.
pub(super) async fn exec(
    client: &Client,
    container: &str,
    cmd: Vec<String>,
    streams: Streams,
) -> Result<Session, RunError> {
    let tty = streams == Streams::Terminal;
    let stdin = streams != Streams::Outputs;
    let question =
        ExecRequest { container_id: container.to_owned(), cmd, tty, stdin, stdout: true, stderr: !tty };
    let url = client.exec(&question).await.map_err(system)?;
    let wanted = WantedStreams { input: stdin, stdout: true, stderr: !tty, terminal: tty };
    let Remote { outputs, input, terminal, end } = connect_streams(&url, wanted).await.map_err(system)?;
    Ok(Session { outputs, input, terminal, end: Box::new(Elsewhere(end)) })
}

/// Leads a container's own streams here; none if it has ended.
pub(super) async fn attach(
    client: &Client,
    container: &str,
    laid: Streams,
    (stdout, stderr): (bool, bool),
) -> Option<Attached> {
    let tty = laid == Streams::Terminal;
    let (stdin, stderr) = (laid != Streams::Outputs, stderr && !tty);
    let question = AttachRequest { container_id: container.to_owned(), stdin, tty, stdout, stderr };
    let wanted = WantedStreams { input: stdin, stdout, stderr, terminal: tty };
    let asked = async {
        let url = client.attach(&question).await.map_err(system)?;
        connect_streams(&url, wanted).await.map_err(system)
    };
    match asked.await {
        Ok(Remote { outputs: (out, err), input, terminal, end }) => {
            let end = Arc::new(end);
            let tied = |reader| -> OutputReader { Box::pin(Tied { reader, _end: end.clone() }) };
            Some(Attached { outputs: (tied(out), tied(err)), input, terminal })
        }
        Err(error) => {
            tracing::debug!(container, %error, "the streams of a container can't be had");
            None
        }
    }
}

/// An output with which its connection ends.
struct Tied {
    reader: OutputReader,
    _end: Arc<Ends>,
}

impl AsyncRead for Tied {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reader.as_mut().poll_read(context, into)
    }
}

/// A command whose streams lead here.
struct Elsewhere(Ends);

impl SessionEnd for Elsewhere {
    fn exit(&self) -> BoxFuture<'_, Option<Exit>> {
        async move {
            match self.0.wait().await {
                Outcome::Exited(code) => Some(exit_now(code)),
                Outcome::Failed(_) => None,
            }
        }
        .boxed()
    }

    /// Hangs up. The CRI has nothing to kill a command by: it ends with its input, or with its container.
    fn kill(&self) {
        self.0.hang_up();
    }

    fn failure(&self) -> Option<String> {
        self.0.failure()
    }
}

/// Runs a command that reads nothing and may take so long; what it prints comes all at once, in the end.
pub(super) fn exec_within(client: &Client, container: &str, cmd: Vec<String>, limit: Duration) -> Session {
    let (tell, told) = watch::channel(None);
    let ((out, mut to_out), (err, mut to_err)) = (tokio::io::duplex(PIECE), tokio::io::duplex(PIECE));
    let (client, id) = (client.clone(), container.to_owned());
    // The runtime kills it when this is aborted, which ends the connection.
    let task = tasks::spawn(info_span!("command", container), async move {
        let answer = client.exec_sync(&id, cmd, limit).await;
        tell.send_replace(Some(answer.as_ref().map(|answer| answer.exit_code).map_err(ToString::to_string)));
        if let Ok(answer) = answer {
            // Nobody may read it any more.
            let _ = tokio::join!(to_out.write_all(&answer.stdout), to_err.write_all(&answer.stderr));
        }
    });
    let end = Box::new(Waited { told, task: task.abort_handle() });
    Session { outputs: (Box::pin(out), Box::pin(err)), input: None, terminal: None, end }
}

/// A command that is waited for as a whole: its exit code, or why it has none.
struct Waited {
    told: watch::Receiver<Option<Result<i32, String>>>,
    task: AbortHandle,
}

impl SessionEnd for Waited {
    fn exit(&self) -> BoxFuture<'_, Option<Exit>> {
        async move {
            let mut told = self.told.clone();
            let answer = told.wait_for(Option::is_some).await.ok()?.clone()?;
            answer.ok().map(exit_now)
        }
        .boxed()
    }

    fn kill(&self) {
        self.task.abort();
    }

    fn failure(&self) -> Option<String> {
        self.told.borrow().as_ref()?.as_ref().err().cloned()
    }
}

impl Drop for Waited {
    fn drop(&mut self) {
        self.kill();
    }
}
