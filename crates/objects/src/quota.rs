//! How much of a quota is used, counted from the objects that there are.

use api::{Amounts, Quotable, quota_resources};
use jiff::Timestamp;
use machinery::{Object, Quantity};
use store::{KeyRange, State};

use crate::namespace_prefix;

/// What the objects of a quota's namespace use of the resources in `hard`, each of which is in the answer.
pub fn quota_usage(quota: &Object, hard: &Amounts, state: &State, now: Timestamp) -> Amounts {
    let mut used = Amounts::default();
    hard.iter().for_each(|(name, _)| used.set(name, Quantity::default()));
    for (group, plural) in quota_resources(hard) {
        let prefix = namespace_prefix(&group, &plural, quota.namespace());
        for kv in state.range(&KeyRange::prefix(prefix)) {
            // What an object uses that is damaged nobody can say.
            let Ok(object) = serde_json::from_slice::<Object>(&kv.value.bytes()) else { continue };
            let quotable = Quotable { group: &group, plural: &plural, object: &object };
            if quotable.is_in_scope(quota) {
                let usage = quotable.usage(now);
                let limited = usage.iter().filter(|(name, _)| hard.get(name).is_some());
                limited.for_each(|(name, amount)| used.add(name, *amount));
            }
        }
    }
    used
}
