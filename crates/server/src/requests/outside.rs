//! Whose a token is: the cluster's own, or one about which somebody outside is asked, whose answers are kept for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use access::{Authenticated, TokenError, outside_answer, outside_question};
use futures::future::BoxFuture;
use ring::digest::{Context, SHA256};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Objects;
use crate::registry::Freshness;

/// The most answers that are kept of each kind: that a token is known, and that it isn't. Strangers with tokens of their own push
/// out no answer about a good one.
const MOST: usize = 1024;
/// The most questions at a time.
const PLACES: usize = 16;
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
    complained: Mutex<Option<Instant>>,
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
            complained: Mutex::default(),
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn authenticate(&self, token: &str, audiences: &[String], now: Instant) -> Option<Authenticated> {
        if token.len() > LONGEST {
            return None;
        }
        let key = key_of(token, audiences);
        if let Some(answered) = self.answers().look(&key, now) {
            return answered;
        }
        let asked = timeout(PATIENCE, async {
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
    /// Whose a token is that is shown to one of `audiences` (the API itself, if there is none).
    pub(super) async fn whose(&self, token: &str, audiences: &[String]) -> Option<Authenticated> {
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
            Err(_) => self.outside.get()?.authenticate(token, audiences, edge.instant()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use access::UserInfo;

    use super::*;

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
