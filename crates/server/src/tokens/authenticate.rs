//! Whose a token is: signed here, in its time, for whom it is shown to, and bound to what is still there.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Object, Status};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::State;

use super::secret::{self, LEGACY_ISSUER};
use super::{ISSUER, Tokens};
use crate::http::Identity;
use crate::registry::look;

/// So long an account or a pod that is being deleted is still believed, in seconds.
const LEEWAY: i64 = 60;

/// Who showed a token, and for whom of those asked about it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Authenticated {
    pub(crate) who: Identity,
    pub(crate) audiences: Vec<String>,
}

/// The bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whose a token is, shown to one of `audiences` (the API itself, if there is none) at `now`.
///
/// # Errors
/// True if a newer state may know better: the token itself is in order.
pub(crate) fn authenticate(
    tokens: &Tokens,
    state: &State,
    token: &str,
    audiences: &[String],
    now: Timestamp,
) -> Result<Authenticated, bool> {
    let claims = tokens.claims(token).ok_or(false)?;
    let api = [ISSUER.to_owned()];
    let asked = if audiences.is_empty() { &api[..] } else { audiences };
    if claims["iss"] == LEGACY_ISSUER {
        // Such a token is for the API alone.
        let meant = asked.contains(&api[0]);
        let found = meant.then(|| secret::authenticate(state, token, &claims)).ok_or(false)?;
        return found.map(|who| Authenticated { who, audiences: api.to_vec() }).ok_or(true);
    }
    let time = |claim: &str| claims[claim].as_i64();
    let now = now.as_second();
    let in_time =
        time("exp").is_some_and(|end| now < end) && time("nbf").is_none_or(|start| now >= start - LEEWAY);
    let listed: Vec<&str> = match &claims["aud"] {
        Value::String(one) => vec![one],
        list => list.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
    };
    let meant: Vec<String> = asked.iter().filter(|asked| listed.contains(&asked.as_str())).cloned().collect();
    if claims["iss"] != ISSUER || !in_time || meant.is_empty() {
        return Err(false);
    }
    let who = bound_identity(state, &claims, now).ok_or(true)?;
    Ok(Authenticated { who, audiences: meant })
}

/// The account of the claims, if all that the token is bound to is still there.
fn bound_identity(state: &State, claims: &Value, now: i64) -> Option<Identity> {
    let own = &claims["kubernetes.io"];
    let namespace = own["namespace"].as_str()?;
    let there = |plural: &str, namespace: &str, reference: &Value| -> Option<Arc<Object>> {
        let key = objects::key("", plural, namespace, reference["name"].as_str()?);
        let object = look(state.get(key.as_bytes())?).ok()?;
        let since = object.deletion_timestamp().and_then(|text| text.parse::<Timestamp>().ok());
        let gone = since.is_some_and(|since| since.as_second() + LEEWAY < now);
        (object.uid() == reference["uid"].as_str()? && !gone).then_some(object)
    };
    let account = there("serviceaccounts", namespace, &own["serviceaccount"])?;
    for (field, plural, of) in [("pod", "pods", namespace), ("secret", "secrets", namespace)] {
        if own[field].is_object() {
            there(plural, of, &own[field])?;
        }
    }
    // Of a pod's token the node is only told; bound to it is one that is bound to nothing else.
    if own["node"].is_object() && !own["pod"].is_object() {
        there("nodes", "", &own["node"])?;
    }
    let mut extra = BTreeMap::new();
    let mut tell = |key: &str, value: Option<&str>| {
        if let Some(value) = value {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    tell("pod-name", own["pod"]["name"].as_str());
    tell("pod-uid", own["pod"]["uid"].as_str());
    tell("node-name", own["node"]["name"].as_str());
    tell("node-uid", own["node"]["uid"].as_str());
    let id = claims["jti"].as_str().map(|id| format!("JTI={id}"));
    tell("credential-id", id.as_deref());
    Some(Identity { extra, ..identity(namespace, &account) })
}

/// An account as a user.
pub(super) fn identity(namespace: &str, account: &Object) -> Identity {
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    let user = format!("system:serviceaccount:{namespace}:{}", account.name());
    Identity { uid: account.uid().to_owned(), ..Identity::new(user, groups) }
}

/// Answers a `TokenReview`.
pub(crate) fn review(
    tokens: &Tokens,
    state: &State,
    mut review: Object,
    now: Timestamp,
) -> Result<Object, Status> {
    let spec = review.0.get("spec").unwrap_or(&Value::Null);
    if spec["token"].as_str().unwrap_or_default().is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let list = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let audiences: Vec<String> = list.map(str::to_owned).collect();
    let token = spec["token"].as_str().unwrap_or_default();
    let status = match authenticate(tokens, state, token, &audiences, now) {
        Ok(found) => json!({
            "authenticated": true,
            "user": found.who.authenticated().user_info(),
            "audiences": found.audiences,
        }),
        Err(_) => json!({"user": {}, "error": "invalid bearer token"}),
    };
    review.0.insert("status".into(), status);
    Ok(review)
}
