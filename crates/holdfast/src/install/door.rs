//! The cluster's side of `holdfast join`: the door at which machines ask, on every host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use config::HostConfig;
use futures::future::BoxFuture;
use install::{
    Admitted, Applicant, Grant, JoinRequest, Keys, Known, KnownNode, Opens, Refusal, Register,
    SECRETS_NAMESPACE, Shared, Token, TokenRefused, Tries, admit, check_token,
};
use jiff::Timestamp;
use machinery::Status;
use membership::Hosts;
use objects::{Write, Writer};
use pki::{Authority, CertificateRequest, HostNames, KeyHash, TokenKey, Validity};
use serde_json::{Value, json};
use server::{Door, RevocationList, Server, TurnedAway};
use store::{KeyValue, State};
use tokio::sync::watch;

use super::register::Seen;
use super::{host_names, revoke};
use crate::engine::Engine;
use crate::nodes::{self, StoredNode, name_of};

/// How often a change of the register is tried again that met another one.
const ATTEMPTS: usize = 8;
/// What there is to do about a token that doesn't open the door.
const MAKE_ONE: &str = "make a new one with `holdfast token create` on a host of the cluster";

/// Why a machine can't come with the key that it has.
const TAKEN_BACK: &str = "the key of this machine was taken back when another took its place; `holdfast reset --yes` on it removes the key, and it can join with a new one";

/// Opens the door of this host.
pub fn open_door(server: &Server, config: &HostConfig, engine: &Engine, hosts: watch::Receiver<Arc<Hosts>>) {
    let (config, engine, writer) = (config.clone(), engine.clone(), server.writer());
    let door = JoinDoor { config, engine, writer, hosts, tries: Mutex::default() };
    server.open_door(install::PATH, install::LARGEST_REQUEST, Arc::new(door));
}

struct JoinDoor {
    config: HostConfig,
    engine: Engine,
    writer: Arc<dyn Writer>,
    hosts: watch::Receiver<Arc<Hosts>>,
    tries: Mutex<Tries>,
}

/// What was asked for: certificates, and the hash of the key that the host's is for.
struct Signed {
    key: KeyHash,
    host_certificate: String,
    front_proxy_certificate: String,
}

/// When somebody asks, on both kinds of clock.
struct Moment {
    instant: Instant,
    wall: SystemTime,
    stamp: Timestamp,
}

impl Moment {
    #[allow(clippy::disallowed_methods, reason = "the program: the door is knocked at now")]
    fn now() -> Self {
        Moment { instant: Instant::now(), wall: SystemTime::now(), stamp: Timestamp::now() }
    }
}

impl Door for JoinDoor {
    fn answer(&self, request: Bytes) -> BoxFuture<'_, Result<Value, TurnedAway>> {
        Box::pin(async move {
            let request: JoinRequest = serde_json::from_slice(&request).map_err(|why| {
                let message = format!(
                    "this is no request to join as this version knows it: {why}; take the same version of holdfast on both sides"
                );
                turned_away(400, "BadRequest", message)
            })?;
            let outcome = self.join(&request, &Moment::now()).await;
            let (name, address) = (&request.name, request.address);
            match &outcome {
                Ok(_) => tracing::info!(?name, %address, "a host was let in"),
                // Anybody can knock without a good token, as often as they like: no line of the log for each.
                Err(away) if matches!(away.code, 401 | 429) => {
                    tracing::debug!(?name, %address, why = away.message, "somebody was turned away");
                }
                Err(away) => tracing::warn!(?name, %address, why = away.message, "a host was turned away"),
            }
            let grant = serde_json::to_value(outcome?);
            grant.map_err(|why| turned_away(500, "InternalError", why.to_string()))
        })
    }
}

impl JoinDoor {
    async fn join(&self, request: &JoinRequest, now: &Moment) -> Result<Grant, TurnedAway> {
        let token = request.token.parse::<Token>().map_err(|why| {
            turned_away(401, "Unauthorized", format!("that is no token: {why}; copy the whole of it"))
        })?;
        let Opens { replaces, .. } = self.check(&token, now).await?;
        let Ok(authority) = Authority::load(&self.config.pki_dir) else {
            let message = format!(
                "{} doesn't have the authority's key, by which certificates are made; ask a host that `holdfast init` or `join` installed",
                self.config.name
            );
            return Err(turned_away(403, "Forbidden", message));
        };
        // Before anything is changed: a request that can't be granted leaves no trace.
        let Signed { key, host_certificate, front_proxy_certificate } =
            self.sign(&authority, request, now)?;
        let (key, replaces) = (key.to_string(), replaces.as_deref());
        let applicant = Applicant { name: &request.name, address: request.address, key: &key, replaces };
        let Admitted { pod_cidr, peers, .. } = self.register(&token, applicant, now).await?;
        Ok(Grant {
            cluster: Shared::of(&self.config),
            peers,
            pod_cidr,
            host_certificate,
            front_proxy_certificate,
            keys: self.keys(&authority).map_err(internal)?,
        })
    }

    /// Whether the token opens the door, as of the newest state, and whose place its machine may take.
    async fn check(&self, token: &Token, now: &Moment) -> Result<Opens, TurnedAway> {
        let check = |state: &State| opens(token, state, now);
        // One that is good here may have been revoked, and one that isn't may have been made a moment ago: the newest state tells. But
        // for tokens that open nothing it isn't asked for as often as anybody likes.
        if check(&self.engine.store().snapshot()).is_err() && !self.tries().one_more(now.instant) {
            let message = "too many come with tokens that this host doesn't know; try again in some seconds";
            return Err(turned_away(429, "TooManyRequests", message.into()));
        }
        let newest = self.newest().await?;
        check(&newest).map_err(not_good)
    }

    fn tries(&self) -> std::sync::MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn newest(&self) -> Result<Arc<State>, TurnedAway> {
        let read = self.engine.store().read().await;
        read.map_err(|why| unavailable(&why))
    }

    /// The certificates that were asked for.
    fn sign(&self, authority: &Authority, request: &JoinRequest, now: &Moment) -> Result<Signed, TurnedAway> {
        let wrong = |why: pki::Error| turned_away(400, "BadRequest", format!("{why}; run `holdfast join`"));
        let host =
            HostNames { name: request.name.clone(), address: request.address, ..host_names(&self.config) };
        let read = |pem: &str| CertificateRequest::from_pem(pem.as_bytes()).map_err(wrong);
        let of_host = read(&request.host_request)?;
        let of_proxy = read(&request.front_proxy_request)?;
        let validity = Validity::lasting(now.wall, Validity::OF_HOSTS);
        Ok(Signed {
            key: of_host.key_hash().map_err(wrong)?,
            host_certificate: authority.sign_host(&of_host, &host, validity).map_err(wrong)?,
            front_proxy_certificate: authority.sign_front_proxy(&of_proxy, validity).map_err(wrong)?,
        })
    }

    /// Writes down who is let in, as what: on the condition that nobody else was meanwhile.
    async fn register(
        &self,
        token: &Token,
        applicant: Applicant<'_>,
        now: &Moment,
    ) -> Result<Admitted, TurnedAway> {
        let store = self.engine.store();
        for _ in 0..ATTEMPTS {
            let state = self.newest().await?;
            // It would be let in, and then be believed by nobody.
            if applicant.key.parse::<KeyHash>().is_ok_and(|key| RevocationList::of(&state).has_key(key)) {
                return Err(turned_away(403, "Forbidden", TAKEN_BACK.to_owned()));
            }
            let seen = Seen::in_state(&state);
            let admitted = self.decide(applicant, &state, &seen.register, now)?;
            if applicant.replaces.is_some() {
                opens(token, &state, now).and_then(|opens| opens.to(applicant.key)).map_err(not_good)?;
                self.take_place(token, applicant, &state, now).await.map_err(|why| busy(&why))?;
            }
            if seen.replace(&*store, &admitted.register).await.map_err(|why| unavailable(&why))? {
                return Ok(admitted);
            }
        }
        Err(turned_away(503, "ServiceUnavailable", "others are being let in just now; try again".into()))
    }

    /// Takes the place of a machine: its certificates are taken back, and the token is good for the new one alone.
    async fn take_place(
        &self,
        token: &Token,
        applicant: Applicant<'_>,
        state: &State,
        now: &Moment,
    ) -> Result<(), Status> {
        // Of two that come at once with one token, the second finds another version.
        let mut used = Token::used_by(applicant.key);
        let version = secret_of(token, state).map(|kv| kv.mod_revision.0.to_string());
        used["metadata"] = json!({ "resourceVersion": version });
        let subject = revoke::object_of("Secret", SECRETS_NAMESPACE, &token.secret_name());
        self.writer.write(revoke::USER, Write::Merge { subject, subresource: "", patch: used }).await?;
        let register = Seen::in_state(state).register;
        let former = register.0.get(applicant.name).map(|former| former.key.as_str());
        if let Some(former) = former.filter(|former| !former.is_empty() && *former != applicant.key) {
            let entry = RevocationList::of_key(former, applicant.name, now.stamp);
            revoke::merge(&*self.writer, entry).await?;
            tracing::info!(name = applicant.name, key = former, "a machine's certificates were taken back");
        }
        Ok(())
    }

    fn decide(
        &self,
        applicant: Applicant<'_>,
        state: &State,
        register: &Register,
        now: &Moment,
    ) -> Result<Admitted, TurnedAway> {
        let nodes: BTreeMap<String, KnownNode> = state
            .range(&nodes::all())
            .filter_map(|kv| {
                let StoredNode { address, pods, is_ready, .. } = StoredNode::read(&kv.value.bytes());
                Some((name_of(&kv.key)?, KnownNode { address, pods, is_ready }))
            })
            .collect();
        let hosts = self.hosts.borrow().clone();
        let listened_for: BTreeSet<String> = hosts.0.keys().cloned().collect();
        let heard = hosts.0.iter().filter(|(_, host)| !host.silent).map(|(name, _)| name.clone()).collect();
        let known = Known {
            config: &self.config,
            members: &self.engine.members(&self.config),
            nodes: &nodes,
            heard: &heard,
            listened_for: &listened_for,
            register,
        };
        admit(applicant, &known, now.stamp).map_err(|refusal| {
            let (code, reason) = match refusal {
                Refusal::NameTaken(_) | Refusal::NameKept(_) | Refusal::AddressTaken { .. } => {
                    (409, "Conflict")
                }
                _ => (403, "Forbidden"),
            };
            turned_away(code, reason, refusal.to_string())
        })
    }

    fn keys(&self, authority: &Authority) -> Result<Keys, pki::Error> {
        let requests = Authority::load_for_requests(&self.config.pki_dir)?;
        Ok(Keys {
            authority: authority.certificate_pem().to_owned(),
            authority_key: authority.key_pem().expose().to_owned(),
            token_key: TokenKey::load(&self.config.pki_dir)?.pem().expose().to_owned(),
            requests: requests.certificate_pem().to_owned(),
            requests_key: requests.key_pem().expose().to_owned(),
        })
    }
}

/// The Secret of a token.
fn secret_of<'a>(token: &Token, state: &'a State) -> Option<&'a Arc<KeyValue>> {
    state.get(objects::key("", "secrets", SECRETS_NAMESPACE, &token.secret_name()).as_bytes())
}

/// What a token opens, as of a state.
fn opens(token: &Token, state: &State, now: &Moment) -> Result<Opens, TokenRefused> {
    let secret = secret_of(token, state).map(|kv| kv.value.bytes());
    check_token(token, secret.as_deref(), now.stamp)
}

fn not_good(why: TokenRefused) -> TurnedAway {
    turned_away(401, "Unauthorized", format!("{why}; {MAKE_ONE}"))
}

fn busy(why: &Status) -> TurnedAway {
    turned_away(503, "ServiceUnavailable", format!("{}; try again", why.message))
}

fn turned_away(code: u16, reason: &'static str, message: String) -> TurnedAway {
    TurnedAway { code, reason, message }
}

fn unavailable(why: &store::Error) -> TurnedAway {
    turned_away(503, "ServiceUnavailable", format!("{why}; try again when the cluster has a leader"))
}

fn internal(why: pki::Error) -> TurnedAway {
    turned_away(500, "InternalError", format!("{why}; see this host's files"))
}
