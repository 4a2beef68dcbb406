//! Secrets of type `kubernetes.io/service-account-token`: the maker of one for an account finds a token in it that
//! is good for as long as the secret is there.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use machinery::Object;
use objects::load;
use serde_json::{Map, Value, json};
use store::State;

use super::Tokens;
use super::authenticate::identity;
use crate::UserInfo;

/// The issuer of such tokens, as they name it themselves.
pub(super) const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

impl Tokens {
    /// Fills such a secret in, if its account is there; every other object stays as it is.
    pub fn fill(&self, state: &State, secret: &mut Object) {
        if secret.kind() != "Secret" || secret.0.get("type").is_none_or(|kind| kind != TYPE) {
            return;
        }
        let annotation = |name: &str| {
            let annotations = secret.meta("annotations")?;
            annotations[name].as_str().map(str::to_owned)
        };
        let (namespace, name) = (secret.namespace().to_owned(), secret.name().to_owned());
        let key = objects::key("", "serviceaccounts", &namespace, &annotation(NAME).unwrap_or_default());
        let Some(account) = state.get(key.as_bytes()).and_then(|kv| load(kv).ok()) else { return };
        if annotation(UID).is_some_and(|uid| uid != account.uid()) {
            return;
        }
        let claims = json!({
            "iss": LEGACY_ISSUER,
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": name,
            "kubernetes.io/serviceaccount/service-account.name": account.name(),
            "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
            "sub": format!("system:serviceaccount:{namespace}:{}", account.name()),
        });
        let Ok(token) = self.sign(&claims) else { return };
        if let Value::Object(annotations) =
            secret.metadata_mut().entry("annotations").or_insert_with(|| json!({}))
        {
            annotations.insert(UID.into(), account.uid().into());
        }
        let data = secret.0.entry("data").or_insert_with(|| Value::Object(Map::new()));
        if data.is_null() {
            *data = json!({});
        }
        let Value::Object(data) = data else { return };
        for (key, text) in
            [("ca.crt", self.root_certificate.as_str()), ("namespace", &namespace), ("token", &token)]
        {
            if data.get(key).and_then(Value::as_str).is_none_or(str::is_empty) {
                data.insert(key.into(), BASE64_STANDARD.encode(text).into());
            }
        }
    }
}

/// Whose such a token is: the secret must be there, with this very token, and be its account's.
pub(super) fn authenticate(state: &State, token: &str, claims: &Value) -> Option<UserInfo> {
    let claim = |name: &str| claims[format!("kubernetes.io/serviceaccount/{name}")].as_str();
    let (namespace, name) = (claim("namespace")?, claim("secret.name")?);
    let key = objects::key("", "secrets", namespace, name);
    let secret = load(state.get(key.as_bytes())?).ok()?;
    let kept = secret.pointer("/data/token").and_then(Value::as_str)?;
    // Signed here it is, as was found before; it must also be the one that the Secret holds now, and not an earlier
    // one.
    if BASE64_STANDARD.decode(kept).ok()? != token.as_bytes() || secret.deletion_timestamp().is_some() {
        return None;
    }
    let key = objects::key("", "serviceaccounts", namespace, claim("service-account.name")?);
    let account = load(state.get(key.as_bytes())?).ok()?;
    (account.uid() == claim("service-account.uid")?).then(|| identity(namespace, &account))
}
