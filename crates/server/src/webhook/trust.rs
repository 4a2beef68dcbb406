//! Whose certificate a webhook must have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::Trust;
use rustls::ClientConfig;

use super::CallError;

/// Where systems keep the authorities that everybody trusts.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// The most configurations that are kept: with them the sessions that make the next handshake cheap.
const MOST: usize = 64;

/// How to speak TLS with webhooks whose certificates a bundle of authorities signs.
#[derive(Default)]
pub(super) struct Trusts {
    kept: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

impl Trusts {
    /// `bundle` is PEM in base64; an empty one means the authorities of this machine.
    pub(super) fn config(&self, bundle: &str) -> Result<Arc<ClientConfig>, CallError> {
        if let Some(found) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(bundle) {
            return Ok(found.clone());
        }
        let wrong = |error: &dyn std::fmt::Display| CallError::Bundle(error.to_string());
        let trust = if bundle.is_empty() {
            let found = SYSTEM.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
            Trust::from_old_pem(String::from_utf8_lossy(&found))
        } else {
            let pem = STANDARD.decode(bundle).map_err(|error| wrong(&error))?;
            Trust::from_pem(String::from_utf8_lossy(&pem))
        };
        let config = trust.and_then(|trust| trust.client_config(&[])).map_err(|error| wrong(&error))?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(bundle.to_owned(), config.clone());
        Ok(config)
    }
}
