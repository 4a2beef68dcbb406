//! Attempts at a change: what each is decided on, and when one is the last.

use machinery::Status;

use super::read::Freshness;
use crate::admission::Refused;

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
