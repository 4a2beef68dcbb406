//! What others need in order to believe our tokens: OpenID Connect Discovery.

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{ISSUER, Tokens};

/// The OpenID configuration of an API that is served at an address (OpenID Connect Discovery 1.0, 3).
pub fn openid_configuration(address: Option<SocketAddr>) -> Value {
    let base = address.map_or_else(|| ISSUER.to_owned(), |address| format!("https://{address}"));
    json!({
        "issuer": ISSUER,
        "jwks_uri": format!("{base}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

impl Tokens {
    /// The public keys, as a JSON Web Key Set (RFC 7517).
    pub fn keys(&self) -> Value {
        let (x, y) = self.key.coordinates();
        let text = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id(), "crv": "P-256", "alg": "ES256",
            "x": text(x), "y": text(y),
        }]})
    }
}
