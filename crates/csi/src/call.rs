//! One call to a program that listens at a unix socket.

use std::path::Path;
use std::time::Duration;

use grpc::{Code, Status};
use prost::Message;

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

/// Asks a driver one thing.
pub(crate) async fn call<A: Message + Default>(
    socket: &Path,
    method: &str,
    question: &impl Message,
    patience: Duration,
) -> Result<A, Failure> {
    grpc::call_unix(socket, method, question, patience, LONGEST_ANSWER).await.map_err(Failure)
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
