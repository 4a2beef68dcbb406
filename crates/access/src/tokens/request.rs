//! `TokenRequest`: a token for an account, for some audiences and some time, maybe bound to an object.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use machinery::{Cause, Object, Status};
use objects::{load, rfc3339};
use serde_json::{Value, json};
use store::State;

use super::{ISSUER, Tokens};
use crate::UserInfo;

/// Upstream's (`ValidateTokenRequest` and `SetDefaults_TokenRequestSpec`).
const LEAST_SECONDS: i64 = 600;
const MOST_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;
/// What pods ask for by default. Clients that never read their token again get one that lives on for a year, while
/// all are asked to renew it within the hour.
///
/// Upstream's names for the two are `WarnOnlyBoundTokenExpirationPeriod` and `ExpirationExtensionSeconds`
/// (`pkg/serviceaccount/claims.go`); the odd seven seconds tell what pods get from what anybody else may ask for.
const RENEWED_SECONDS: i64 = 3607;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// An object that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Version and kind, such as `v1/Pod`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Empty where any of that name will do.
    pub uid: String,
}

/// A request for a token.
#[derive(Debug, Clone)]
pub struct TokenRequest<'a> {
    /// The account's namespace.
    pub namespace: &'a str,
    /// The account's name.
    pub account: &'a str,
    /// Empty for the API's own.
    pub audiences: Vec<String>,
    /// How long it shall be good.
    pub seconds: i64,
    /// What it is bound to beside the account.
    pub bound: Option<Bound>,
}

/// What makes a new token differ from all others: when it is made, and a uid of its own.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// The time.
    pub now: Timestamp,
    /// A uid that nothing else has.
    pub uid: String,
}

/// A token that was made.
#[derive(Clone)]
pub struct Issued {
    /// The token itself.
    pub token: String,
    /// For whom it is.
    pub audiences: Vec<String>,
    /// When it is to be renewed at the latest.
    pub expires: Timestamp,
}

/// Without the token.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Issued { token: _, audiences, expires } = self;
        f.debug_struct("Issued")
            .field("audiences", audiences)
            .field("expires", expires)
            .finish_non_exhaustive()
    }
}

impl<'a> TokenRequest<'a> {
    /// The request in the spec of a `TokenRequest` of authentication.k8s.io/v1.
    ///
    /// # Errors
    /// 422 for a time that is too short or too long.
    pub fn parse(namespace: &'a str, account: &'a str, spec: &Value) -> Result<Self, Status> {
        let given = &spec["expirationSeconds"];
        let seconds = given.as_i64().unwrap_or(DEFAULT_SECONDS);
        let why = match seconds {
            seconds if seconds < LEAST_SECONDS => Some("may not specify a duration less than 10 minutes"),
            seconds if seconds > MOST_SECONDS => Some("may not specify a duration larger than 2^32 seconds"),
            _ => None,
        };
        if let Some(why) = why {
            let cause = Cause::invalid("spec.expirationSeconds", given, why);
            return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", vec![cause]));
        }
        let texts = |value: &Value| -> Vec<String> {
            let list = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            list.filter(|text| !text.is_empty()).map(str::to_owned).collect()
        };
        let reference = &spec["boundObjectRef"];
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        let bound = reference.is_object().then(|| Bound {
            kind: format!("{}/{}", text("apiVersion"), text("kind")),
            name: text("name"),
            uid: text("uid"),
        });
        let audiences = texts(&spec["audiences"]);
        Ok(TokenRequest { namespace, account, audiences, seconds, bound })
    }
}

impl Tokens {
    /// Makes the token that `who`, who may make tokens for the account, asks for.
    ///
    /// # Errors
    /// If the account or what it shall be bound to isn't there, or a host asks for what isn't its pods'.
    pub fn issue(
        &self,
        state: &State,
        who: &UserInfo,
        request: &TokenRequest<'_>,
        stamp: &Stamp,
    ) -> Result<Issued, Status> {
        let TokenRequest { namespace, account, .. } = *request;
        let account = find(state, "serviceaccounts", namespace, account)?;
        let mut own = json!({
            "namespace": namespace,
            "serviceaccount": {"name": account.name(), "uid": account.uid()},
        });
        let bound = request.bound.as_ref().map(|bound| bind(state, request, bound)).transpose()?;
        if let Some((field, object)) = &bound {
            own[*field] = json!({"name": object.name(), "uid": object.uid()});
            let node = object.pointer("/spec/nodeName").and_then(Value::as_str);
            if let Some(node) = node.filter(|node| *field == "pod" && !node.is_empty()) {
                own["node"] = match find(state, "nodes", "", node) {
                    Ok(found) => json!({"name": node, "uid": found.uid()}),
                    // The pod was placed before its node went.
                    Err(_) => json!({"name": node}),
                };
            }
        }
        check_node(state, who, request, bound.as_ref())?;
        let audiences =
            if request.audiences.is_empty() { vec![ISSUER.to_owned()] } else { request.audiences.clone() };
        let now = stamp.now;
        let after = |seconds: i64| now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
        let renewed = request.seconds == RENEWED_SECONDS && own["pod"].is_object() && audiences == [ISSUER];
        let expires = after(request.seconds);
        let end = if renewed { after(EXTENDED_SECONDS) } else { expires };
        if renewed {
            own["warnafter"] = json!(expires.as_second());
        }
        let claims = json!({
            "aud": audiences, "exp": end.as_second(), "iat": now.as_second(), "iss": ISSUER, "jti": stamp.uid,
            "kubernetes.io": own, "nbf": now.as_second(),
            "sub": format!("system:serviceaccount:{namespace}:{}", account.name()),
        });
        Ok(Issued { token: self.sign(&claims)?, audiences, expires })
    }
}

impl TokenRequest<'_> {
    /// The answer to the `TokenRequest` that this was read from: with the token, and stamped as an object.
    pub fn answer(&self, issued: &Issued, mut question: Object, stamp: &Stamp) -> Object {
        question.set_meta("name", self.account);
        question.set_meta("namespace", self.namespace);
        question.set_meta("uid", stamp.uid.as_str());
        question.set_meta("creationTimestamp", rfc3339(stamp.now));
        let bound = question.pointer("/spec/boundObjectRef").cloned().unwrap_or_default();
        let spec = json!({
            "audiences": issued.audiences, "expirationSeconds": self.seconds, "boundObjectRef": bound,
        });
        question.0.insert("spec".into(), spec);
        let status = json!({"token": issued.token, "expirationTimestamp": rfc3339(issued.expires)});
        question.0.insert("status".into(), status);
        question
    }
}

fn find(state: &State, plural: &str, namespace: &str, name: &str) -> Result<Object, Status> {
    let key = objects::key("", plural, namespace, name);
    load(state.get(key.as_bytes()).ok_or_else(|| Status::not_found("", plural, name))?)
}

/// The object that a token is to be bound to, and what tokens call it.
fn bind(state: &State, request: &TokenRequest<'_>, bound: &Bound) -> Result<(&'static str, Object), Status> {
    let (field, plural, namespace) = match bound.kind.as_str() {
        "v1/Pod" => ("pod", "pods", request.namespace),
        "v1/Secret" => ("secret", "secrets", request.namespace),
        "v1/Node" => ("node", "nodes", ""),
        other => {
            let why = format!("cannot bind token for object of type {other}");
            return Err(Status::bad_request(why));
        }
    };
    let object = find(state, plural, namespace, &bound.name)?;
    if !bound.uid.is_empty() && bound.uid != object.uid() {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            bound.uid
        );
        return Err(Status::conflict("", plural, &bound.name, &why));
    }
    let account = object.pointer("/spec/serviceAccountName").and_then(Value::as_str);
    if field == "pod" && account != Some(request.account) {
        let why = format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            request.account
        );
        return Err(Status::bad_request(why));
    }
    Ok((field, object))
}

/// A host gets tokens for its own pods and no others, for those whom the pods' volumes and their drivers name (upstream's
/// NodeRestriction).
fn check_node(
    state: &State,
    who: &UserInfo,
    request: &TokenRequest<'_>,
    bound: Option<&(&'static str, Object)>,
) -> Result<(), Status> {
    let Some(node) = who.node() else { return Ok(()) };
    let refused = |why: &str| Err(Status::forbidden("", "serviceaccounts/token", "", why));
    let Some(("pod", pod)) = bound else { return refused("node requested token not bound to a pod") };
    if request.bound.as_ref().is_none_or(|bound| bound.uid.is_empty()) {
        return refused("node requested token with a pod binding without a uid");
    }
    if node.is_empty() || pod.pointer("/spec/nodeName").is_none_or(|placed| placed != node) {
        return refused("node requested token bound to a pod scheduled on a different node");
    }
    let volumes =
        pod.pointer("/spec/volumes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let sources = volumes.iter().filter_map(|volume| volume["projected"]["sources"].as_array()).flatten();
    let named: Vec<&str> =
        sources.filter_map(|source| source["serviceAccountToken"]["audience"].as_str()).collect();
    let is_known = |audience: &str| {
        audience == ISSUER
            || named.contains(&audience)
            || volumes.iter().any(|volume| is_for_driver(state, request.namespace, pod, volume, audience))
    };
    match request.audiences.iter().find(|audience| !is_known(audience)) {
        Some(other) => refused(&format!("audience {other:?} not found in pod spec volume")),
        None => Ok(()),
    }
}

/// Whether the storage driver of a pod's volume gets tokens for an audience (`tokenRequests` of its CSIDriver).
fn is_for_driver(state: &State, namespace: &str, pod: &Object, volume: &Value, audience: &str) -> bool {
    let Some(name) = driver_of(state, namespace, pod, volume) else { return false };
    let key = objects::key("storage.k8s.io", "csidrivers", "", &name);
    let Some(driver) = state.get(key.as_bytes()).and_then(|kv| load(kv).ok()) else { return false };
    let requests = driver.pointer("/spec/tokenRequests").and_then(Value::as_array);
    requests.into_iter().flatten().any(|request| request["audience"] == audience)
}

/// The storage driver of a pod's volume: as the pod says, or as the volume does that its claim is bound to.
fn driver_of(state: &State, namespace: &str, pod: &Object, volume: &Value) -> Option<String> {
    if let Some(driver) = volume["csi"]["driver"].as_str() {
        return Some(driver.to_owned());
    }
    let claim = match volume["persistentVolumeClaim"]["claimName"].as_str() {
        Some(claim) => claim.to_owned(),
        None if volume["ephemeral"].is_object() => format!("{}-{}", pod.name(), volume["name"].as_str()?),
        None => return None,
    };
    let claim = find(state, "persistentvolumeclaims", namespace, &claim).ok()?;
    let bound = claim.pointer("/spec/volumeName")?.as_str()?;
    let bound = find(state, "persistentvolumes", "", bound).ok()?;
    Some(bound.pointer("/spec/csi/driver")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown() {
        let issued =
            Issued { token: "hidden".into(), audiences: vec!["a".into()], expires: Timestamp::UNIX_EPOCH };
        assert!(!format!("{issued:?}").contains("hidden"), "{issued:?}");
    }
}
