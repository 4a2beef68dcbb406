//! Why a change was not made.

use api::Status;

use super::read::Freshness;

/// Why an attempt at a change failed, and whether another attempt at a newer state may fare better.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: Status,
    /// Somebody who isn't asked twice has decided: a webhook or a policy.
    pub(crate) is_final: bool,
}

impl Refused {
    /// A refusal that stands, whatever the newest state is.
    pub(crate) fn finally(status: Status) -> Self {
        Refused { status, is_final: true }
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Refused { status, is_final: false }
    }
}

/// How new a state an attempt is decided on. The first one trusts what is known here: if that is old, the transaction fails.
pub(super) fn freshness_of(attempt: usize) -> Freshness {
    if attempt == 0 { Freshness::Any } else { Freshness::Newest }
}

/// What an attempt came to, unless another one is to follow: because something changed in between, or because it was refused
/// for what may be old. A refusal counts only once it follows from the newest state.
pub(super) fn settled<T>(
    outcome: Result<Option<T>, Refused>,
    freshness: Freshness,
) -> Option<Result<T, Status>> {
    let stands =
        |refused: &Refused| freshness != Freshness::Any || refused.is_final || refused.status.code >= 500;
    match outcome {
        Ok(done) => done.map(Ok),
        Err(refused) => stands(&refused).then_some(Err(refused.status)),
    }
}
