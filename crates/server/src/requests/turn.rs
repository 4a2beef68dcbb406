//! The turn of a request: its class, the seats that it takes, and what its client hears about both.

use std::sync::Arc;
use std::time::Duration;

use access::{UserInfo, Wanted};
use fairness::{Admitted, Class, Fairness};
use http::{HeaderValue, Response};
use machinery::Status;
use store::{KeyRange, State};

use crate::http::query::Query;
use crate::http::response::too_many;
use crate::http::{Body, Target};

/// The class of what somebody wants.
pub(super) fn class(fairness: &Fairness, state: &State, who: &UserInfo, wanted: &Wanted<'_>) -> Class {
    let (verb, target) = match *wanted {
        Wanted::Object(asked) => {
            let (group, resource, subresource) = (asked.group, asked.resource, asked.subresource);
            let (namespace, name) = (asked.namespace, asked.name);
            (asked.verb, fairness::Target::Objects { group, resource, subresource, namespace, name })
        }
        Wanted::Path { verb, path } => (verb, fairness::Target::Path(path)),
    };
    fairness.class(state, &fairness::Request { user: &who.user, groups: &who.groups, verb, target })
}

/// Waits for the turn of a request that needs this many seats and may last for `time`.
///
/// # Errors
/// 429 where too many wait already, or its turn didn't come in time.
pub(super) async fn admit(
    fairness: &Arc<Fairness>,
    class: &Class,
    seats: u32,
    time: Duration,
) -> Result<Admitted, Status> {
    fairness
        .admit(class, seats, time)
        .await
        .map_err(|refused| too_many(format!("Too many requests, please try again later: {refused}")))
}

/// Tells the client its class (upstream's headers).
pub(super) fn mark(class: &Class, response: &mut Response<Body>) {
    let uids = [
        ("x-kubernetes-pf-flowschema-uid", class.schema_uid()),
        ("x-kubernetes-pf-prioritylevel-uid", class.level_uid()),
    ];
    for (name, uid) in uids {
        let uid = HeaderValue::from_str(uid).unwrap_or_else(|_| HeaderValue::from_static(""));
        response.headers_mut().insert(name, uid);
    }
}

/// The seats that a request takes: a list, and a watch that begins with what is there, by how many objects it reads.
pub(super) fn seats(state: &State, verb: &str, target: &Target, query: &Query) -> u32 {
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
    fairness::seats(state, &range, most)
}
