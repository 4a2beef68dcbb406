//! Acting as another user: `Impersonate-User` and its like, for users that may.
//!
//! Follows `k8s.io/apiserver/pkg/endpoints/filters/impersonation`.

use std::collections::BTreeMap;

use access::{AUTHENTICATED, Attributes, UNAUTHENTICATED, UserInfo, Wanted};
use http::HeaderMap;
use machinery::Status;
use percent_encoding::percent_decode_str;

use crate::registry::Registry;

const ACCOUNT: &str = "system:serviceaccount:";
pub(super) const ANONYMOUS: &str = "system:anonymous";
const EXTRA: &str = "impersonate-extra-";

/// The identity that a request's headers ask for: `who` sent them, and must be allowed to act as it.
pub(crate) fn impersonated(
    registry: &Registry,
    who: &UserInfo,
    headers: &HeaderMap,
) -> Result<Option<UserInfo>, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| Some(value.to_str().ok()?.to_owned())).collect()
    };
    let (user, groups, uid) = (text("impersonate-user"), all("impersonate-group"), text("impersonate-uid"));
    let extras = || headers.keys().filter_map(|name| name.as_str().strip_prefix(EXTRA));
    if user.is_empty() {
        if groups.is_empty() && uid.is_empty() && extras().next().is_none() {
            return Ok(None);
        }
        return Err(Status::bad_request(
            "groups, a uid or extras are asked for without a user to impersonate",
        ));
    }
    let check = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let wanted =
            Attributes { verb: "impersonate", group, resource, subresource, namespace, name, fields: "" };
        registry.check_allowed(who, &Wanted::Object(wanted))
    };
    let account = user.strip_prefix(ACCOUNT).and_then(|account| account.split_once(':'));
    match account {
        Some((namespace, name)) => check("", "serviceaccounts", "", namespace, name)?,
        None => check("", "users", "", "", user)?,
    }
    for group in &groups {
        check("", "groups", "", "", group)?;
    }
    if !uid.is_empty() {
        check("authentication.k8s.io", "uids", "", "", uid)?;
    }
    let mut extra = BTreeMap::new();
    for header in extras() {
        let key = percent_decode_str(header).decode_utf8_lossy().to_lowercase();
        let values = all(&format!("{EXTRA}{header}"));
        for value in &values {
            check("authentication.k8s.io", "userextras", &key, "", value)?;
        }
        extra.insert(key, values);
    }
    let mut groups = groups;
    if let Some((namespace, _)) = account.filter(|_| groups.is_empty()) {
        groups.push("system:serviceaccounts".to_owned());
        groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let everybody = if user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(everybody.to_owned());
    }
    Ok(Some(UserInfo { user: user.to_owned(), groups, uid: uid.to_owned(), extra }))
}
