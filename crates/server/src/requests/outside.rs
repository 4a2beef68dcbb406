//! Whose a token is: the cluster's own, or one about which somebody outside is asked, whose answers are kept for a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use access::{Authenticated, TokenError, outside_answer, outside_question};
use futures::future::BoxFuture;
use ring::digest::{Context, SHA256};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Objects;
use super::door::counted;
use crate::registry::Freshness;

/// The most answers that are kept of each kind: that a token is known, and that it isn't. Strangers with tokens of their own push
/// out no answer about a good one.
const MOST: usize = 1024;
/// The most questions at a time.
const PLACES: usize = 16;
/// The most of them about tokens that come from one address: whose tokens the other side takes its time for leaves room for others.
const PLACES_OF_PEER: usize = PLACES / 2;
/// How long an answer may take, the wait for a place included.
const PATIENCE: Duration = Duration::from_secs(10);
/// No token is asked about that is longer, in bytes.
const LONGEST: usize = 16 << 10;
/// How often the log says that no answer comes.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Somebody outside who knows whose tokens are that the cluster didn't make.
pub trait TokenReviewer: Send + Sync + 'static {
    /// The answer to a `TokenReview` of authentication.k8s.io/v1, or why there is none.
    fn review<'a>(&'a self, question: &'a Value) -> BoxFuture<'a, Result<Value, String>>;
}

/// The one who is asked, and what was answered.
pub(crate) struct Outside {
    reviewer: Arc<dyn TokenReviewer>,
    answers: Mutex<Answers>,
    places: Semaphore,
    /// Of each address from which tokens come that somebody is asked about.
    peers: Mutex<HashMap<Option<IpAddr>, Arc<Semaphore>>>,
    complained: Mutex<Option<Instant>>,
}

/// One of the addresses, while somebody waits who came from there.
struct Peer<'a> {
    outside: &'a Outside,
    address: Option<IpAddr>,
    places: Arc<Semaphore>,
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        let mut peers = self.outside.peers.lock().unwrap_or_else(PoisonError::into_inner);
        // Its own, and the one in the map.
        if Arc::strong_count(&self.places) <= 2 {
            peers.remove(&self.address);
        }
    }
}

/// A token and its audiences, by their hash: what is kept lets nobody in.
type Key = [u8; 32];

/// What was answered, until it is asked again.
#[derive(Default)]
struct Answers {
    kept_for: Duration,
    known: HashMap<Key, (Instant, Authenticated)>,
    unknown: HashMap<Key, (Instant, ())>,
}

impl Answers {
    /// What was answered, if that still counts.
    fn look(&self, key: &Key, now: Instant) -> Option<Option<Authenticated>> {
        if let Some((until, who)) = self.known.get(key)
            && now < *until
        {
            return Some(Some(who.clone()));
        }
        self.unknown.get(key).filter(|(until, ())| now < *until).map(|_| None)
    }

    fn keep(&mut self, key: Key, answer: Option<Authenticated>, now: Instant) {
        let until = now + self.kept_for;
        match answer {
            Some(who) => put(&mut self.known, key, (until, who), now),
            None => put(&mut self.unknown, key, (until, ()), now),
        }
    }
}

fn put<V>(kept: &mut HashMap<Key, (Instant, V)>, key: Key, answer: (Instant, V), now: Instant) {
    if kept.len() >= MOST {
        kept.retain(|_, (until, _)| now < *until);
    }
    if kept.len() >= MOST {
        kept.clear();
    }
    kept.insert(key, answer);
}

impl Outside {
    /// Answers count for `kept_for`.
    pub(crate) fn new(reviewer: Arc<dyn TokenReviewer>, kept_for: Duration) -> Self {
        let answers = Answers { kept_for, ..Answers::default() };
        Outside {
            reviewer,
            answers: Mutex::new(answers),
            places: Semaphore::new(PLACES),
            peers: Mutex::default(),
            complained: Mutex::default(),
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, address: Option<IpAddr>) -> Peer<'_> {
        let address = address.map(counted);
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let places = peers.entry(address).or_insert_with(|| Arc::new(Semaphore::new(PLACES_OF_PEER))).clone();
        Peer { outside: self, address, places }
    }

    async fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        peer: Option<IpAddr>,
        now: Instant,
    ) -> Option<Authenticated> {
        if token.len() > LONGEST {
            return None;
        }
        let key = key_of(token, audiences);
        if let Some(answered) = self.answers().look(&key, now) {
            return answered;
        }
        let asked = timeout(PATIENCE, async {
            let peer = self.peer(peer);
            let _own = peer.places.acquire().await.map_err(|error| error.to_string())?;
            let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
            self.reviewer.review(&outside_question(token, audiences)).await
        });
        match asked.await.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs()))) {
            Ok(answer) => {
                let found = outside_answer(&answer, audiences);
                self.answers().keep(key, found.clone(), now);
                found
            }
            Err(why) => {
                // A server may repeat in its error what it was sent.
                self.complain(&why.replace(token, "TOKEN"), now);
                None
            }
        }
    }

    /// Says that no answer comes, but not for each token that anybody sends.
    fn complain(&self, why: &str, now: Instant) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|before| now.saturating_duration_since(before) > COMPLAIN_EVERY) {
            tracing::warn!(why, "the webhook for tokens doesn't answer; who shows a token of its is refused");
            *complained = Some(now);
        }
    }
}

fn key_of(token: &str, audiences: &[String]) -> Key {
    let mut hash = Context::new(&SHA256);
    for text in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
        // With its length: no two lists of texts are the same bytes.
        hash.update(&(text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    let mut key = Key::default();
    key.copy_from_slice(hash.finish().as_ref());
    key
}

impl Objects {
    /// Whose a token is that is shown to one of `audiences` (the API itself, if there is none), by who comes from an address.
    pub(super) async fn whose(
        &self,
        token: &str,
        audiences: &[String],
        peer: Option<IpAddr>,
    ) -> Option<Authenticated> {
        let (tokens, edge) = (self.registry.tokens(), self.registry.edge());
        let known = self.registry.store().snapshot();
        let found = match tokens.authenticate(&known, token, audiences, edge.second()) {
            // It may have been made a moment ago, at another host.
            Err(TokenError::Unbound) => {
                let newest = self.registry.state(Freshness::Newest).await.ok()?;
                tokens.authenticate(&newest, token, audiences, edge.second())
            }
            found => found,
        };
        match found {
            Ok(found) => Some(found),
            // What the cluster made is shown to nobody else.
            Err(_) if tokens.has_made(token) => None,
            Err(_) => self.outside.get()?.authenticate(token, audiences, peer, edge.instant()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use access::UserInfo;
    use futures::FutureExt;
    use serde_json::json;

    use super::*;

    /// Never answers about tokens that are slow.
    struct Slow;

    impl TokenReviewer for Slow {
        fn review<'a>(&'a self, question: &'a Value) -> BoxFuture<'a, Result<Value, String>> {
            let is_slow = question["spec"]["token"].as_str().unwrap().starts_with("slow");
            let answer = json!({"status": {"authenticated": true, "user": {"username": "jane"}}});
            Box::pin(async move { if is_slow { std::future::pending().await } else { Ok(answer) } })
        }
    }

    #[tokio::test(start_paused = true)]
    #[allow(clippy::disallowed_methods, reason = "a moment to begin with")]
    async fn tokens_of_one_address_that_take_long_leave_room_for_those_of_others() {
        let (outside, now) = (Outside::new(Arc::new(Slow), Duration::ZERO), Instant::now());
        let [theirs, hers] = [1, 2].map(|n| Some(IpAddr::from([10, 0, 0, n])));
        let slow: Vec<String> = (0..3 * PLACES).map(|n| format!("slow-{n}")).collect();
        let mut strangers: Vec<_> =
            slow.iter().map(|token| Box::pin(outside.authenticate(token, &[], theirs, now))).collect();
        assert!(strangers.iter_mut().all(|stranger| stranger.as_mut().now_or_never().is_none()));
        let jane = outside.authenticate("janes", &[], hers, now).await.expect("she is known");
        assert_eq!(jane.who.user, "jane");
        // Who comes from where they do waits with them.
        assert!(Box::pin(outside.authenticate("janes", &[], theirs, now)).now_or_never().is_none());
        drop(strangers);
        assert!(outside.authenticate("janes", &[], theirs, now).await.is_some());
        assert!(outside.peers.lock().unwrap().is_empty(), "nothing is left of them");
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a moment to begin with")]
    fn answers_count_for_their_time_and_strangers_push_out_none_about_good_tokens() {
        let kept_for = Duration::from_secs(120);
        let mut answers = Answers { kept_for, ..Answers::default() };
        let (start, key) = (Instant::now(), |n: usize| key_of(&n.to_string(), &[]));
        let jane = Authenticated { who: UserInfo::new("jane", ["devs"]), audiences: vec![] };
        answers.keep(key(0), Some(jane.clone()), start);
        for n in 1..=3 * MOST {
            answers.keep(key(n), None, start);
        }
        assert!(answers.unknown.len() <= MOST);
        assert_eq!(answers.look(&key(0), start + kept_for / 2), Some(Some(jane)));
        assert_eq!(answers.look(&key(3 * MOST), start), Some(None));
        for n in [0, 3 * MOST] {
            assert_eq!(answers.look(&key(n), start + kept_for), None, "it is asked again");
        }
        assert_ne!(key_of("a", &["b".into()]), key_of("ab", &[]));
    }
}
