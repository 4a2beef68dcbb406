//! Old updates are put together, so that an object doesn't grow with every writer that it ever had.

use std::collections::BTreeMap;

use super::entry::{Entry, Operation};

/// How many entries of updates an object may have, as upstream (`DefaultMaxUpdateManagers`).
const MOST_UPDATES: usize = 10;
/// The manager that owns what writers changed long ago.
const ANCIENT: &str = "ancient-changes";

/// Puts the oldest updates of a version into one entry until there are few enough.
pub(super) fn cap_updates(entries: &mut Vec<Entry<'_>>) {
    let mut updates: Vec<usize> =
        (0..entries.len()).filter(|at| entries[*at].operation == Operation::Update).collect();
    let mut count = updates.len();
    if count <= MOST_UPDATES {
        return;
    }
    updates.sort_by(|a, b| {
        let (a, b) = (&entries[*a], &entries[*b]);
        (&a.time, &a.manager, &a.api_version).cmp(&(&b.time, &b.manager, &b.api_version))
    });
    let (mut buckets, mut gone): (BTreeMap<String, usize>, Vec<usize>) = (BTreeMap::new(), Vec::new());
    for at in updates {
        if count <= MOST_UPDATES {
            break;
        }
        let version = entries[at].api_version.clone().into_owned();
        let Some(bucket) = buckets.get(&version).copied() else {
            buckets.insert(version, at);
            continue;
        };
        let (fields, time) = (entries[at].fields.take(), entries[at].time.take());
        let into = &mut entries[bucket];
        (into.manager, into.subresource, into.time) = (ANCIENT.into(), "".into(), time);
        *into.fields.set() = into.fields.take().union(fields);
        gone.push(at);
        count -= 1;
    }
    let mut at = 0;
    entries.retain(|_| {
        at += 1;
        !gone.contains(&(at - 1))
    });
}
