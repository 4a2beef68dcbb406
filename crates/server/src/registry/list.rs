//! Lists: consistent, in pages, of any revision that the history still holds.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use machinery::{Cause, Resource, Status};
use serde::{Deserialize, Serialize};
use store::{KeyRange, KeyValue, Revision, State};

use super::commit::read_failed;
use super::read::Freshness;
use super::{Registry, Selection};
use crate::conversion;

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    Exact,
    NotOlderThan,
}

impl Match {
    pub(crate) fn parse(text: Option<&str>) -> Result<Option<Self>, Status> {
        match text {
            None => Ok(None),
            Some("Exact") => Ok(Some(Match::Exact)),
            Some("NotOlderThan") => Ok(Some(Match::NotOlderThan)),
            Some(other) => Err(wrong_option(
                "FieldValueNotSupported",
                format!("Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""),
            )),
        }
    }
}

/// 422 about `resourceVersionMatch`.
pub(super) fn wrong_option(reason: &str, message: String) -> Status {
    let cause = Cause { reason: reason.into(), message, field: "resourceVersionMatch".into() };
    Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}

/// What to list.
#[derive(Debug)]
pub(crate) struct ListOptions<'a> {
    pub(crate) resource: &'a Resource,
    /// Empty for all namespaces.
    pub(crate) namespace: &'a str,
    pub(crate) selection: Selection,
    /// How many at most; 0 for all.
    pub(crate) limit: u64,
    pub(crate) continued: Option<&'a str>,
    pub(crate) resource_version: Option<&'a str>,
    pub(crate) matching: Option<Match>,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) revision: Revision,
    pub(crate) items: Vec<Arc<KeyValue>>,
    /// Where the next page starts, if there is one.
    pub(crate) continues: Option<String>,
    /// How many more there are, where that is known.
    pub(crate) remaining: Option<u64>,
}

/// A `continue` token.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// The state to go on in; 0 for the newest one, whatever has changed since the pages before.
    rv: Revision,
    start: String,
}

const TOKEN_VERSION: &str = "holdfast/v1";
/// How many objects a webhook converts before we look whether they are enough.
const CHUNK: usize = 256;
/// More objects than this, or more bytes of them, are looked through beside the threads that answer everybody:
/// heartbeats must not wait for them.
const LONG: usize = 1000;
const LONG_BYTES: usize = 1 << 20;

impl Registry {
    /// Whether it takes long to look through the objects of a resource, or of a namespace if one is named.
    pub(crate) fn is_long(&self, resource: &Resource, namespace: &str) -> bool {
        let (group, plural) = resource.stored_under();
        let range = KeyRange::prefix(objects::namespace_prefix(group, plural, namespace));
        let state = self.store.snapshot();
        let mut bytes = 0;
        state.range(&range).enumerate().any(|(number, kv)| {
            bytes += kv.value.len();
            number >= LONG || bytes > LONG_BYTES
        })
    }

    pub(crate) async fn list(&self, options: &ListOptions<'_>) -> Result<Listing, Status> {
        let resource = options.resource;
        let (group, plural) = resource.stored_under();
        let prefix = objects::namespace_prefix(group, plural, options.namespace);
        let mut range = range_of(options, &prefix);
        let state = match options.continued {
            Some(token) => {
                let token = read_token(token)?;
                if options.resource_version.is_some_and(|version| version != "0") {
                    return Err(Status::bad_request(
                        "specifying resource version is not allowed when using continue",
                    ));
                }
                range.start = Bytes::from(prefix.clone() + &token.start);
                match token.rv {
                    Revision::ZERO => self.state(Freshness::Newest).await?,
                    revision => match self.pages.at(revision, &self.store.snapshot(), self.edge.instant()) {
                        Some(state) => state,
                        None => {
                            self.state_at(revision).await.map_err(|status| too_old(status, token.start))?
                        }
                    },
                }
            }
            None => self.state_for(options).await?,
        };
        // As upstream: a list from what is known here ignores the limit.
        let limit = if options.resource_version == Some("0") { 0 } else { options.limit };
        let wanted = if limit == 0 { usize::MAX } else { usize::try_from(limit).unwrap_or(usize::MAX) };
        let Page { items, next, remaining } = match conversion::by_webhook(resource) {
            Some(_) => self.converted_page(options, state.range(&range).cloned().collect(), wanted).await?,
            None => page(resource, &options.selection, state.range(&range), wanted),
        };
        let mut listing = Listing { revision: state.revision(), items, continues: None, remaining };
        if let Some(next) = next {
            let start = String::from_utf8_lossy(&next[prefix.len()..]).into_owned();
            listing.continues = Some(write_token(state.revision(), start)?);
            self.pages.keep(&state, &self.store.snapshot(), self.edge.instant());
        }
        Ok(listing)
    }

    /// As [`page`], where a webhook converts: no more than is shown, if that can be known before.
    async fn converted_page(
        &self,
        options: &ListOptions<'_>,
        mut stored: Vec<Arc<KeyValue>>,
        wanted: usize,
    ) -> Result<Page, Status> {
        let resource = options.resource;
        if options.selection.is_everything() {
            let next = stored.get(wanted).map(|kv| kv.key.clone());
            let remaining = next.as_ref().map(|_| (stored.len() - wanted) as u64);
            stored.truncate(wanted);
            let items = self.converter.all_served(resource, stored).await?;
            return Ok(Page { items, next, remaining });
        }
        let mut items = Vec::new();
        for some in stored.chunks(CHUNK) {
            let served = self.converter.all_served(resource, some.to_vec()).await?;
            items.extend(served.into_iter().filter(|kv| options.selection.matches_stored(kv)));
            if items.len() > wanted {
                break;
            }
        }
        let next = items.get(wanted).map(|kv| kv.key.clone());
        items.truncate(wanted);
        Ok(Page { items, next, remaining: None })
    }

    async fn state_for(&self, options: &ListOptions<'_>) -> Result<Arc<State>, Status> {
        let freshness = Freshness::parse(options.resource_version)
            .map_err(|status| Status::bad_request(format!("resourceVersion: {status}")))?;
        match (freshness, options.matching) {
            (Freshness::Newest, Some(_)) => Err(wrong_option(
                "FieldValueForbidden",
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided".into(),
            )),
            (Freshness::Any, Some(Match::Exact)) => Err(wrong_option(
                "FieldValueForbidden",
                "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"".into(),
            )),
            (Freshness::AtLeast(revision), Some(Match::Exact)) => self.state_at(revision).await,
            // A page of a revision without a match is exact, for clients from before there was a choice.
            (Freshness::AtLeast(revision), None) if options.limit > 0 => self.state_at(revision).await,
            (freshness, _) => self.state(freshness).await,
        }
    }

    async fn state_at(&self, revision: Revision) -> Result<Arc<State>, Status> {
        let state = self.state(Freshness::AtLeast(revision)).await?;
        if state.revision() == revision {
            return Ok(state);
        }
        state.at(revision).map(Arc::new).map_err(read_failed)
    }
}

/// What a page of a list holds, the key after it, and how many there are from there on where that is known.
struct Page {
    items: Vec<Arc<KeyValue>>,
    next: Option<Bytes>,
    remaining: Option<u64>,
}

/// The first `wanted` of what the selection matches.
fn page<'a>(
    resource: &Resource,
    selection: &Selection,
    stored: impl Iterator<Item = &'a Arc<KeyValue>>,
    wanted: usize,
) -> Page {
    let all = stored.filter_map(|kv| conversion::served(resource, kv).ok());
    let mut matching = all.filter(|kv| selection.matches_stored(kv));
    let items = matching.by_ref().take(wanted).collect();
    let next = matching.next().map(|kv| kv.key.clone());
    let counts = next.is_some() && selection.is_everything();
    let remaining = counts.then(|| 1 + matching.count() as u64);
    Page { items, next, remaining }
}

/// The keys that can match: one where the selection names it.
fn range_of(options: &ListOptions<'_>, prefix: &str) -> KeyRange {
    match options.selection.name() {
        Some(name) if !options.resource.namespaced || !options.namespace.is_empty() => {
            KeyRange::key(format!("{prefix}{name}"))
        }
        _ => KeyRange::prefix(prefix.to_owned()),
    }
}

/// 410 with a token that goes on all the same (upstream's `handleCompactedErrorForPaging`).
fn too_old(status: Status, start: String) -> Status {
    if status.code != 410 {
        return status;
    }
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new \
         list without the continue parameter, or use the continue token in this response to retrieve the remainder of \
         the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.";
    match write_token(Revision::ZERO, start) {
        Ok(token) => Status::expired(message).continued(token),
        Err(status) => status,
    }
}

fn read_token(token: &str) -> Result<Token, Status> {
    let wrong = || Status::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| wrong())?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    if token.v == TOKEN_VERSION { Ok(token) } else { Err(wrong()) }
}

fn write_token(rv: Revision, start: String) -> Result<String, Status> {
    let token = Token { v: TOKEN_VERSION.into(), rv, start };
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).map_err(Status::internal)?))
}
