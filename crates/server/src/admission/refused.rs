//! Why a change was not made.

use machinery::Status;

/// Why an attempt at a change failed, and whether another attempt at a newer state may fare better.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: Status,
    /// A webhook or a policy has decided, which isn't asked twice.
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
