//! What containers bear in a runtime of others, so that the next agent knows them.

use cri::messages::Texts;

use super::{CONTAINER_NAME, POD_UID, STREAMS};
use crate::runtime::{Streams, Which};

/// How a container's streams are laid, in a word.
pub(super) fn word(streams: Streams) -> &'static str {
    match streams {
        Streams::Outputs => "outputs",
        Streams::Pipes => "pipes",
        Streams::Terminal => "terminal",
    }
}

/// Likewise by its annotations.
pub(super) fn laid(annotations: &Texts) -> Streams {
    match annotations.get(STREAMS).map(String::as_str) {
        Some("pipes") => Streams::Pipes,
        Some("terminal") => Streams::Terminal,
        _ => Streams::Outputs,
    }
}

/// Which container it is, by its labels and its number.
pub(super) fn which(labels: &Texts, attempt: Option<u32>) -> Option<Which> {
    let of = |name: &str| labels.get(name).cloned();
    Some(Which { uid: of(POD_UID)?, container: of(CONTAINER_NAME)?, attempt: attempt? })
}
