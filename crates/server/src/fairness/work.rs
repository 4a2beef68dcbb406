//! How many seats a request takes: one, and more for what reads many objects.

use store::{KeyRange, State};

use crate::http::query::Query;
use crate::http::route::Target;

/// The most seats that one request takes (upstream's `defaultMaximumListSeats`).
const MOST: usize = 10;
/// How many objects are one seat's work (upstream's `defaultObjectsPerSeat`).
const OBJECTS_A_SEAT: usize = 100;

/// The seats that a request takes: a list, and a watch that begins with what is there, by how many objects it reads.
pub(crate) fn seats(state: &State, verb: &str, target: &Target, query: &Query) -> u32 {
    let reads_all = match verb {
        "list" | "deletecollection" => true,
        "watch" => match query.choice("sendInitialEvents") {
            Some(initial) => initial,
            None => matches!(query.get("resourceVersion"), None | Some("0")),
        },
        _ => false,
    };
    let one = query.get("fieldSelector").is_some_and(|fields| fields.starts_with("metadata.name="));
    if !reads_all || one || !target.name.is_empty() {
        return 1;
    }
    let selects = query.get("labelSelector").is_some() || query.get("fieldSelector").is_some();
    let limit = query.number("limit").ok().flatten().filter(|limit| *limit > 0);
    // With a selector more is read than comes out.
    let most = match limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)) {
        Some(limit) if !selects && query.get("resourceVersion") != Some("0") => limit,
        _ => usize::MAX,
    };
    let (group, plural) = target.resource.stored_under();
    let range = KeyRange::prefix(objects::namespace_prefix(group, plural, &target.namespace));
    let count = state.range(&range).take(most.min(MOST * OBJECTS_A_SEAT)).count();
    u32::try_from(count.div_ceil(OBJECTS_A_SEAT).clamp(1, MOST)).unwrap_or(1)
}
