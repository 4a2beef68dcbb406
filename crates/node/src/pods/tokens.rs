//! Tokens of service accounts for the volumes of pods: asked for before the volume is made, and renewed in time.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use objects::TokenRequest;

use super::PodHost;
use crate::container::Missing;
use crate::pod::uid;

/// The API's default of `expirationSeconds`.
const DEFAULT_SECONDS: i64 = 3600;
/// The longest time after which a token is renewed.
/// The kubelet's `maxTTL`.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// For whom a token is, and for how many seconds.
pub(crate) type TokenKind = (String, i64);
/// The tokens of one pod.
pub(crate) type PodTokens = BTreeMap<TokenKind, String>;

/// The tokens that pods of this host have.
#[derive(Debug, Default)]
pub(crate) struct TokenBook(Mutex<HashMap<String, BTreeMap<TokenKind, Held>>>);

struct Held {
    token: String,
    /// When the next one is due, in the agent's time.
    renew_at: Duration,
}

/// Without the token.
impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

/// The kind of token that a volume asks for.
pub(crate) fn kind(source: &ServiceAccountTokenProjection) -> TokenKind {
    (source.audience.clone().unwrap_or_default(), source.expiration_seconds.unwrap_or(DEFAULT_SECONDS))
}

/// The kinds that the volumes of a pod ask for.
fn kinds(pod: &Pod) -> Vec<TokenKind> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    let mut kinds: Vec<TokenKind> =
        sources.filter_map(|source| source.service_account_token.as_ref().map(kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

impl TokenBook {
    fn due(&self, pod: &Pod, now: Duration) -> Vec<TokenKind> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = book.get(uid(pod));
        let is_due =
            |kind: &TokenKind| held.and_then(|held| held.get(kind)).is_none_or(|held| held.renew_at <= now);
        kinds(pod).into_iter().filter(is_due).collect()
    }

    fn put(&self, pod: &Pod, kind: TokenKind, token: String, now: Duration) {
        // In the last fifth of its time, as the kubelet does.
        let lives = Duration::from_secs(u64::try_from(kind.1).unwrap_or(0));
        let renew_at = now + (lives * 4 / 5).min(LONGEST);
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.entry(uid(pod).to_owned()).or_default().insert(kind, Held { token, renew_at });
    }

    /// The tokens that a pod has.
    pub(crate) fn of(&self, pod: &Pod) -> PodTokens {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = book.get(uid(pod)).into_iter().flatten();
        held.map(|(kind, held)| (kind.clone(), held.token.clone())).collect()
    }

    /// Forgets a pod that ended.
    pub(crate) fn forget(&self, pod: &Pod) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid(pod));
    }
}

impl PodHost {
    /// Gets the tokens that a pod lacks, and new ones for those whose time is nearly over.
    ///
    /// # Errors
    /// [`Missing`] if one can't be had; what the pod has stays.
    pub(crate) async fn renew_tokens(&self, pod: &Pod) -> Result<(), Missing> {
        for kind in self.tokens.due(pod, self.clock.now().elapsed) {
            let request = TokenRequest {
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                account: pod
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.service_account_name.clone())
                    .unwrap_or_else(|| "default".into()),
                audience: kind.0.clone(),
                seconds: kind.1,
                pod: pod.metadata.name.clone().unwrap_or_default(),
                pod_uid: uid(pod).to_owned(),
            };
            let asked = self.clock.now().elapsed;
            let token = self.writer.token(&self.user(), request).await;
            let token = token.map_err(|error| Missing(format!("failed to fetch token: {error}")))?;
            self.tokens.put(pod, kind, token, asked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_in_the_last_fifth_of_its_time() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [], "volumes": [{"name": "v", "projected": {
                "sources": [{"serviceAccountToken": {"path": "a", "expirationSeconds": 1000}},
                    {"serviceAccountToken": {"path": "b", "audience": "vault"}}]}}]},
        }))
        .unwrap();
        let book = TokenBook::default();
        let (api, vault) = ((String::new(), 1000), ("vault".to_owned(), DEFAULT_SECONDS));
        assert_eq!(book.due(&pod, Duration::ZERO), [api.clone(), vault.clone()]);
        book.put(&pod, api.clone(), "a-secret".into(), Duration::ZERO);
        assert_eq!(book.due(&pod, Duration::from_secs(799)), std::slice::from_ref(&vault));
        assert_eq!(book.due(&pod, Duration::from_secs(800)), [api.clone(), vault]);
        assert!(!format!("{book:?}").contains("a-secret"), "{book:?}");
        assert_eq!(book.of(&pod), BTreeMap::from([(api, "a-secret".to_owned())]));
        book.forget(&pod);
        assert!(book.of(&pod).is_empty());
    }
}
