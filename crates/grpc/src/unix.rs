//! One call to a program that listens at a unix socket.

use std::path::Path;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, header};
use prost::Message;
use tokio::net::UnixStream;

use super::{Broken, Code, Connection, Origin, Status};

/// Connects, asks one thing, and hangs up: a program that was started anew meanwhile is no special case, and one that is still
/// at work when `patience` is over hears that nobody waits. No answer may be longer than `limit` bytes.
///
/// # Errors
/// What the program refused, or why it could not be asked.
pub async fn call_unix<A: Message + Default>(
    socket: &Path,
    method: &str,
    question: &impl Message,
    patience: Duration,
    limit: usize,
) -> Result<A, Status> {
    let answered = tokio::time::timeout(patience, ask(socket, method, question, limit)).await;
    let late = |_| Err(Status::new(Code::DeadlineExceeded, "context deadline exceeded"));
    answered.unwrap_or_else(late)
}

async fn ask<A: Message + Default>(
    socket: &Path,
    method: &str,
    question: &impl Message,
    limit: usize,
) -> Result<A, Status> {
    let unreachable = |why: &dyn std::fmt::Display| {
        Status::unavailable(format_args!(
            "connection error: desc = \"transport: Error while dialing: dial unix {}: {why}\"",
            socket.display()
        ))
    };
    let stream = UnixStream::connect(socket).await.map_err(|why| unreachable(&why))?;
    let headers = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_static("holdfast"))]);
    let origin = Origin { scheme: Scheme::HTTP, authority: Authority::from_static("localhost"), headers };
    let opened = Connection::open(stream, origin, None, limit).await;
    let (connection, driver) = opened.map_err(|why| unreachable(&why))?;
    let mut answer = std::pin::pin!(connection.unary::<A>(method, question));
    let answer = tokio::select! {
        biased;
        answered = &mut answer => answered,
        // The connection may end in the same moment as the answer arrives: then the answer counts.
        _ = driver => answer.await,
    };
    answer.map_err(|broken| match broken {
        Broken::Refused(status) => status,
        other => Status::unavailable(other),
    })
}
