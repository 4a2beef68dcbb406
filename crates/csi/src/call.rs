//! One call to a program that listens at a unix socket.

use std::path::Path;
use std::time::Duration;

use grpc::{Broken, Code, Connection, Origin, Status};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, header};
use prost::Message;
use tokio::net::UnixStream;

/// grpc-go's own limit of an answer (`defaultClientMaxReceiveMessageSize`).
const LONGEST_ANSWER: usize = 4 << 20;

/// Why a call did not do what it was asked, in grpc-go's words, as people know them from Kubernetes' events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {:?} desc = {}", .0.code, .0.message)]
pub struct Failure(pub Status);

impl Failure {
    /// Whether the driver surely does nothing any more for the call (`IsFinalError` of `pkg/volume/csi`).
    pub fn is_final(&self) -> bool {
        !matches!(
            self.0.code,
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted
        )
    }
}

/// Connects, asks one thing, and hangs up: a driver that was started anew meanwhile is no special case.
pub(crate) async fn call<A: Message + Default>(
    socket: &Path,
    method: &str,
    question: &impl Message,
    patience: Duration,
) -> Result<A, Failure> {
    let answered = tokio::time::timeout(patience, ask(socket, method, question)).await;
    let late = |_| Err(Status::new(Code::DeadlineExceeded, "context deadline exceeded"));
    answered.unwrap_or_else(late).map_err(Failure)
}

async fn ask<A: Message + Default>(
    socket: &Path,
    method: &str,
    question: &impl Message,
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
    let opened = Connection::open(stream, origin, None, LONGEST_ANSWER).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_may_still_be_worked_on_is_not_final() {
        let failure = |code| Failure(Status::new(code, "no"));
        assert!(failure(Code::Internal).is_final() && failure(Code::NotFound).is_final());
        assert!(!failure(Code::DeadlineExceeded).is_final() && !failure(Code::Unavailable).is_final());
        assert_eq!(failure(Code::Internal).to_string(), "rpc error: code = Internal desc = no");
    }
}
