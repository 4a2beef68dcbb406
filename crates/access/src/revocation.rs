//! Certificates that were taken back before their end: a user's by name and time, a machine's by its key.
//!
//! They stand in an object that administrators and the door of hosts change by merging one entry into it, so that no two of them
//! lose each other's. Upstream has nothing of the kind: its API believes a certificate until its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use objects::Followed;
use pki::{KeyHash, RevokedKeys};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use store::{State, Store};
use tokio::sync::watch;

use crate::ShownCertificate;

/// Where it lies in the store.
const KEY: &str = "/registry/core/configmaps/kube-system/holdfast-certificates";
/// What the entries of users that were revoked begin with, and those of keys.
const USERS: &str = "revoked-user-";
const KEYS: &str = "revoked-key-";
/// The longest key of an entry: a ConfigMap takes no longer one.
const LONGEST: usize = 253;

/// What was taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevocationList {
    /// Users, and until when what was made for them counts no more.
    users: BTreeMap<String, Timestamp>,
    /// Machines' keys.
    keys: BTreeSet<KeyHash>,
}

/// The entry of a user.
#[derive(Debug, Serialize, Deserialize)]
struct UserEntry {
    user: String,
    before: Timestamp,
}

/// The entry of a key.
#[derive(Debug, Serialize, Deserialize)]
struct KeyEntry {
    key: String,
    /// Whose it was, for people.
    of: String,
    since: Timestamp,
}

impl RevocationList {
    /// The namespace of the object, a ConfigMap.
    pub const NAMESPACE: &str = "kube-system";
    /// Its name.
    pub const NAME: &str = "holdfast-certificates";
    /// Where the API has it.
    pub const PATH: &str = "/api/v1/namespaces/kube-system/configmaps/holdfast-certificates";

    /// The list in a state.
    pub fn of(state: &State) -> Self {
        let object = state.get(KEY.as_bytes()).map(|kv| kv.value.bytes());
        let object = object.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        RevocationList::read(&object.unwrap_or(Value::Null))
    }

    /// What the object says. Entries that say nothing are nobody's.
    pub fn read(object: &Value) -> Self {
        let mut list = RevocationList::default();
        for (key, entry) in object["data"].as_object().into_iter().flatten() {
            let entry = entry.as_str().unwrap_or_default();
            if key.starts_with(USERS)
                && let Ok(UserEntry { user, before }) = serde_json::from_str(entry)
            {
                list.users.insert(user, before);
            } else if key.starts_with(KEYS)
                && let Ok(KeyEntry { key, .. }) = serde_json::from_str(entry)
                && let Ok(key) = key.parse()
            {
                list.keys.insert(key);
            }
        }
        list
    }

    /// Whether a certificate was taken back.
    pub fn has(&self, shown: &ShownCertificate) -> bool {
        let before = self.before(&shown.who.user);
        self.has_key(shown.key) || before.is_some_and(|before| shown.from <= before.as_second())
    }

    /// Whether a machine's key was taken back.
    pub fn has_key(&self, key: KeyHash) -> bool {
        self.keys.contains(&key)
    }

    /// Until when what was made for a user counts no more.
    pub fn before(&self, user: &str) -> Option<Timestamp> {
        self.users.get(user).copied()
    }

    /// The object without an entry.
    pub fn object() -> Value {
        let metadata = json!({"name": Self::NAME, "namespace": Self::NAMESPACE});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    }

    /// The merge that takes back what is made for a user up to a time; none for a name that is too long for it.
    pub fn of_user(user: &str, before: Timestamp) -> Option<Value> {
        let key = entry_key(USERS, user)?;
        let entry = json!(UserEntry { user: user.to_owned(), before }).to_string();
        Some(json!({"data": {key: entry}}))
    }

    /// The merge that takes out what says nothing any more: users' entries of more than a year ago, since nothing that was made for them
    /// before lasts for longer, and `others`, the keys of entries that aren't this list's. None where there is nothing of that kind. It is
    /// for the object as it was read alone: one of these users may be revoked anew meanwhile.
    pub fn forgotten(
        object: &Value,
        others: impl IntoIterator<Item = String>,
        now: Timestamp,
    ) -> Option<Value> {
        const YEAR: SignedDuration = SignedDuration::from_hours(366 * 24);
        let mut data: Map<String, Value> = others.into_iter().map(|key| (key, Value::Null)).collect();
        for (user, before) in RevocationList::read(object).users {
            let key = entry_key(USERS, &user).filter(|_| now.duration_since(before) > YEAR);
            data.extend(key.map(|key| (key, Value::Null)));
        }
        let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
        (!data.is_empty()).then(|| json!({"metadata": metadata, "data": data}))
    }

    /// The merge that takes back a key of `of`.
    pub fn of_key(key: &str, of: &str, since: Timestamp) -> Value {
        let name = format!("{KEYS}{}", key.rsplit(':').next().unwrap_or_default());
        let entry = json!(KeyEntry { key: key.to_owned(), of: of.to_owned(), since }).to_string();
        let data: Map<String, Value> = [(name, entry.into())].into_iter().collect();
        json!({ "data": data })
    }
}

/// The key of an entry for a name of any form: letters and digits as they are, other bytes as two hexadecimal digits behind `_`.
pub fn entry_key(prefix: &str, name: &str) -> Option<String> {
    let mut key = prefix.to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() {
            key.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(key, "_{byte:02x}");
        }
    }
    (key.len() <= LONGEST).then_some(key)
}

/// The list as it is kept, and those who follow it.
#[derive(Debug)]
pub struct Revocations {
    list: Followed<RevocationList>,
    /// For the handshakes of hosts among themselves.
    keys: RevokedKeys,
    changes: watch::Sender<()>,
}

impl Revocations {
    /// As of a state. `keys` hears of each change, and keeps those that it has until then: a store that was just opened may not know
    /// yet what this host has known.
    pub fn new(keys: RevokedKeys, state: &State) -> Self {
        let list = Followed::new(KEY, RevocationList::of, state);
        keys.add(RevocationList::of(state).keys);
        Revocations { list, keys, changes: watch::Sender::default() }
    }

    /// Whether a certificate was taken back, as of a state.
    pub fn has(&self, state: &State, shown: &ShownCertificate) -> bool {
        self.list.get(state, |list| self.tell(list)).has(shown)
    }

    /// Follows that something was taken back.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Follows the store until it ends: what is taken back counts also where nobody asks.
    pub async fn keep(&self, store: &dyn Store) {
        let mut states = store.states();
        loop {
            // As it is at first, too: something may have been taken back since this was made.
            let state: Arc<State> = states.borrow_and_update().clone();
            self.list.get(&state, |list| self.tell(list));
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    fn tell(&self, list: &RevocationList) {
        self.keys.replace(list.keys.clone());
        self.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use pki::{Authority, Subject, Validity};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn shown(authority: &Authority, user: &str, from: i64) -> ShownCertificate {
        let subject = Subject { common_name: user.into(), organization: None };
        let validity = Validity { from: at(from).into(), until: at(from + 1000).into() };
        let identity = authority.issue(&subject, &[], &[], validity).unwrap();
        ShownCertificate::of(&CertificateDer::from_pem_slice(identity.certificate_pem().as_bytes()).unwrap())
            .unwrap()
    }

    /// Merges as the API does (RFC 7396), where each patch has one text for each of its keys.
    fn merge(object: &mut Value, patch: &Value) {
        for (key, entry) in patch["data"].as_object().unwrap() {
            object["data"][key] = entry.clone();
        }
    }

    #[test]
    fn what_was_made_before_is_taken_back_and_what_is_made_later_is_not() {
        let authority = Authority::create("a", at(0).into()).unwrap();
        let odd = "jane@example.com/ä";
        let [before, later] = [-10, 10].map(|from| shown(&authority, odd, from));
        let (other, host) = (shown(&authority, "john", -10), shown(&authority, "system:node:n1", 10));
        let mut object = RevocationList::object();
        assert_eq!(RevocationList::read(&object), RevocationList::default());
        merge(&mut object, &RevocationList::of_user(odd, at(0)).unwrap());
        merge(&mut object, &RevocationList::of_key(&host.key.to_string(), "n1", at(20)));
        // Others' entries, and what somebody wrote by hand.
        merge(
            &mut object,
            &json!({"data": {"user-x": "{}", "revoked-user-x": "soon", "revoked-key-x": "{}"}}),
        );
        let list = RevocationList::read(&object);
        assert!(list.has(&before) && !list.has(&later) && !list.has(&other) && list.has(&host));
        assert!(list.has_key(host.key) && !list.has_key(later.key));
        assert_eq!((list.before(odd), list.before("john")), (Some(at(0)), None));
        assert_eq!(RevocationList::of_user(&"ä".repeat(50), at(0)), None, "no key takes it");
        object["metadata"]["resourceVersion"] = "7".into();
        let years = |years: i64| RevocationList::forgotten(&object, [], at(years * 366 * 24 * 3600));
        assert_eq!((years(0), years(1)), (None, None));
        let forgotten = years(2).unwrap();
        assert_eq!(forgotten["data"].as_object().unwrap().len(), 1, "the user's; keys stay");
        assert_eq!(
            forgotten["metadata"],
            json!({"resourceVersion": "7"}),
            "who is revoked meanwhile stays so"
        );
        assert_eq!(entry_key(USERS, "a.B-1"), Some("revoked-user-a_2eB_2d1".into()));
        assert!(!before.is_over(at(0)) && before.is_over(at(991)), "it has a time too");
    }

    #[tokio::test]
    async fn who_follows_hears_of_it_and_so_do_handshakes() {
        let store = store::Memory::default();
        let authority = Authority::create("a", at(0).into()).unwrap();
        let (host, keys) = (shown(&authority, "system:node:n1", 0), RevokedKeys::default());
        let known_before = shown(&authority, "system:node:n0", 0).key;
        keys.replace([known_before].into());
        let revocations = Revocations::new(keys.clone(), &store.snapshot());
        assert!(keys.has(known_before), "the store may not have caught up");
        let mut changes = revocations.changes();
        assert!(!revocations.has(&store.snapshot(), &host) && !keys.has(host.key));
        let mut object = RevocationList::object();
        merge(&mut object, &RevocationList::of_key(&host.key.to_string(), "n1", at(0)));
        let told = async {
            let write = store::Txn {
                conditions: Vec::new(),
                success: vec![store::Op::put(KEY, object.to_string())],
                failure: Vec::new(),
            };
            store.txn(write).await.unwrap();
            changes.changed().await.unwrap();
        };
        tokio::select! {
            () = told => {}
            () = revocations.keep(&store) => panic!("the store has ended"),
        }
        assert!(keys.has(host.key) && revocations.has(&store.snapshot(), &host));
    }
}
