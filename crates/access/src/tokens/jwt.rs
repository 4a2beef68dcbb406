//! JSON Web Tokens (RFC 7519) signed with ES256, and nothing else: no other algorithm is ever believed.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use machinery::Status;
use serde_json::{Value, json};

use super::Tokens;

/// No token of ours is longer.
const LONGEST: usize = 16 * 1024;

impl Tokens {
    /// The key's name in tokens.
    pub(super) fn key_id(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.key.fingerprint())
    }

    /// A token that says these claims.
    pub(super) fn sign(&self, claims: &Value) -> Result<String, Status> {
        let header = json!({"alg": "ES256", "kid": self.key_id()});
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(message.as_bytes()).map_err(Status::internal)?;
        Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says, if this key has signed it.
    pub(super) fn claims(&self, token: &str) -> Option<Value> {
        if token.len() > LONGEST {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let bytes = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&bytes(header)?).ok()?;
        // The header is what the sender says: an algorithm of its choice, `none` above all, must never be tried.
        if header["alg"] != "ES256" || !self.key.has_signed(message.as_bytes(), &bytes(signature)?) {
            return None;
        }
        serde_json::from_slice(&bytes(claims)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_is_believed() {
        let tokens = Tokens::new(pki::TokenKey::create().unwrap(), "");
        let claims = json!({"sub": "somebody"});
        let token = tokens.sign(&claims).unwrap();
        assert_eq!(tokens.claims(&token), Some(claims));
        let other = Tokens::new(pki::TokenKey::create().unwrap(), "");
        assert_eq!(other.claims(&token), None);
        let parts: Vec<&str> = token.split('.').collect();
        let forged = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"admin"}"#);
        let unsigned = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for bad in [
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{unsigned}.{}.", parts[1]),
            format!("{unsigned}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.AAAA", parts[0], parts[1]),
            "nonsense".into(),
            "..".into(),
            "a".repeat(LONGEST + 1),
        ] {
            assert_eq!(tokens.claims(&bad), None, "{bad}");
        }
    }
}
