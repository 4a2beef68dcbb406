//! How many Events one object gets: a burst, and then something now and then (`EventSourceObjectSpamFilter`).

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;

use super::ledger::KNOWN;

/// How many Events an object gets at once (`defaultSpamBurst`).
const BURST: u32 = 25;
/// One more after this (`defaultSpamQPS`).
const REFILL: Duration = Duration::from_secs(300);

type Object = [Option<String>; 4];

/// When the whole allowance of an object will be there again, for each that has used some of it.
#[derive(Debug, Default)]
pub(super) struct Budget(HashMap<Object, Duration>);

impl Budget {
    /// When there is room to tell something of an object.
    pub fn room_at(&self, regarding: &ObjectReference) -> Duration {
        let full = self.0.get(&object(regarding)).copied().unwrap_or_default();
        full.saturating_sub(REFILL * (BURST - 1))
    }

    /// Takes the room for one thing to tell. False if there is none.
    pub fn spend(&mut self, regarding: &ObjectReference, now: Duration) -> bool {
        if self.room_at(regarding) > now {
            return false;
        }
        if self.0.len() >= KNOWN {
            self.0.retain(|_, full| *full > now);
        }
        let full = self.0.entry(object(regarding)).or_default();
        *full = (*full).max(now) + REFILL;
        true
    }
}

fn object(regarding: &ObjectReference) -> Object {
    let ObjectReference { namespace, name, uid, kind, .. } = regarding;
    [namespace.clone(), name.clone(), uid.clone(), kind.clone()]
}
