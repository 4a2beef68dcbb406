//! Reading one object, and which state a read is served from.

use std::sync::Arc;

use machinery::{Cause, Status};
use objects::Named;
use store::{KeyValue, Revision, State};

use super::Registry;
use super::commit::read_failed;

/// How fresh a read has to be: the `resourceVersion` of a get, list or watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Not set: as new as every write acknowledged before.
    Newest,
    /// `0`: whatever is known here.
    Any,
    /// At least that revision.
    AtLeast(Revision),
}

impl Freshness {
    /// Reads the parameter.
    pub(crate) fn parse(resource_version: Option<&str>) -> Result<Self, Status> {
        match resource_version {
            None => Ok(Freshness::Newest),
            Some("0") => Ok(Freshness::Any),
            Some(text) => text.parse().map(Freshness::AtLeast).map_err(|_| {
                Status::new(500, "", format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
            }),
        }
    }
}

impl Registry {
    /// A state that is fresh enough.
    pub(crate) async fn state(&self, freshness: Freshness) -> Result<Arc<State>, Status> {
        match freshness {
            Freshness::Any => Ok(self.store.snapshot()),
            Freshness::Newest => self.store.read().await.map_err(read_failed),
            Freshness::AtLeast(revision) => {
                let known = self.store.snapshot();
                if known.revision() >= revision {
                    return Ok(known);
                }
                // Not waited for, unlike in upstream's watch cache: this read is as new as every acknowledged write, so
                // a revision that it doesn't reach has not happened.
                let newest = self.store.read().await.map_err(read_failed)?;
                if newest.revision() >= revision {
                    Ok(newest)
                } else {
                    Err(too_large(revision, newest.revision()))
                }
            }
        }
    }

    /// One object's key with its value, as its resource serves it.
    pub(crate) async fn get(&self, named: &Named<'_>, freshness: Freshness) -> Result<Arc<KeyValue>, Status> {
        let state = self.state(freshness).await?;
        let found = state.get(named.key().as_bytes()).ok_or_else(|| named.not_found())?;
        self.converter.served(named.resource, found).await
    }
}

/// 504: a revision was asked for that has not happened (KEP-2340's `ResourceVersionTooLarge`).
fn too_large(asked: Revision, newest: Revision) -> Status {
    let message = format!("Too large resource version: {asked}, current: {newest}");
    let mut status = Status::new(504, "Timeout", format!("Timeout: {message}")).about("", "", "");
    if let Some(details) = &mut status.details {
        details.retry_after_seconds = 1;
        details.causes.push(Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        });
    }
    status
}
