//! Whose a token is: signed here, in its time, for whom it is shown to, and bound to what is still there.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use machinery::Object;
use objects::look;
use serde_json::Value;
use store::State;

use super::secret::{self, LEGACY_ISSUER};
use super::{ISSUER, Tokens};
use crate::UserInfo;

/// How long an account or a pod that is being deleted is still believed, in seconds.
///
/// Upstream has the same, for clocks that differ (`jwt.DefaultLeeway` in `pkg/serviceaccount/claims.go`).
const LEEWAY: i64 = 60;

/// The account that a token shows, and the audiences that it is for.
#[derive(Debug, Clone, PartialEq)]
pub struct Authenticated {
    /// The account.
    pub who: UserInfo,
    /// Those of the audiences that were asked about that the token is for.
    pub audiences: Vec<String>,
}

/// Why a token says nothing of who shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It isn't ours, its time is over or hasn't come, or it is for somebody else.
    #[error("the token is not valid")]
    Invalid,
    /// It is in order, but what it is bound to isn't there: a newer state may have it.
    #[error("what the token is bound to is not there")]
    Unbound,
}

impl Tokens {
    /// Whose a token is, shown to one of `audiences` (the API itself, if there is none) at `now`.
    ///
    /// # Errors
    /// If it is nobody's, as far as the state goes.
    pub fn authenticate(
        &self,
        state: &State,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Authenticated, TokenError> {
        let claims = self.claims(token).ok_or(TokenError::Invalid)?;
        let api = [ISSUER.to_owned()];
        let asked = if audiences.is_empty() { &api[..] } else { audiences };
        if claims["iss"] == LEGACY_ISSUER {
            // Such a token is for the API alone.
            let meant = asked.contains(&api[0]);
            let found =
                meant.then(|| secret::authenticate(state, token, &claims)).ok_or(TokenError::Invalid)?;
            return found
                .map(|who| Authenticated { who, audiences: api.to_vec() })
                .ok_or(TokenError::Unbound);
        }
        let time = |claim: &str| claims[claim].as_i64();
        let now = now.as_second();
        let in_time =
            time("exp").is_some_and(|end| now < end) && time("nbf").is_none_or(|start| now >= start - LEEWAY);
        let listed: Vec<&str> = match &claims["aud"] {
            Value::String(one) => vec![one],
            list => list.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        };
        let meant: Vec<String> =
            asked.iter().filter(|asked| listed.contains(&asked.as_str())).cloned().collect();
        if claims["iss"] != ISSUER || !in_time || meant.is_empty() {
            return Err(TokenError::Invalid);
        }
        let who = bound_identity(state, &claims, now).ok_or(TokenError::Unbound)?;
        Ok(Authenticated { who, audiences: meant })
    }

    /// Whether the cluster made a token, good or not.
    pub fn has_made(&self, token: &str) -> bool {
        self.claims(token).is_some()
    }
}

/// The account of the claims, if all that the token is bound to is still there.
fn bound_identity(state: &State, claims: &Value, now: i64) -> Option<UserInfo> {
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
    Some(UserInfo { extra, ..identity(namespace, &account) })
}

/// An account as a user.
pub(super) fn identity(namespace: &str, account: &Object) -> UserInfo {
    let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
    let user = format!("system:serviceaccount:{namespace}:{}", account.name());
    UserInfo { uid: account.uid().to_owned(), ..UserInfo::new(user, groups) }
}
