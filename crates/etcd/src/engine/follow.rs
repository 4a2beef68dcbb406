//! Follows etcd's watch, whatever happens to the connection: no event is missed, none is taken twice.

use std::sync::Arc;
use std::time::Duration;

use store::{Revision, State};
use tokio::sync::watch;

use super::Config;
use super::config::EngineError;
use super::keys::Keys;
use super::load::{claim, load};
use super::mirror::{Candidate, Mirror};
use crate::numbers::{from_etcd, to_etcd};
use crate::proto::{WatchCreateRequest, WatchRequest, WatchRequestRequestUnion};
use crate::{Client, Status};

/// The pause before a watch that broke is begun anew. It doubles up to the last one: a member that restarts is found at once, and an
/// etcd that is gone for long is asked twice a second by each host.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Keeps what this member shows as etcd says it is.
pub struct Follower {
    pub client: Client,
    pub config: Config,
    pub keys: Keys,
    pub mirror: Mirror,
    pub states: watch::Sender<Arc<State>>,
    pub head: watch::Sender<Option<Candidate>>,
    /// Which etcd it is.
    pub etcd: u64,
}

/// Why a watch ended.
enum Break {
    /// The connection, or the member at its other end.
    Lost(Status),
    /// etcd has forgotten what comes next.
    Compacted,
    /// It is of no use to go on.
    Lasting(EngineError),
}

impl From<Status> for Break {
    fn from(status: Status) -> Self {
        Break::Lost(status)
    }
}

impl Follower {
    /// Follows for ever; returns where it can't.
    pub async fn run(mut self) -> EngineError {
        let mut pause = FIRST_PAUSE;
        loop {
            let problem = match self.follow(&mut pause).await {
                Break::Lost(status) => status.to_string(),
                Break::Compacted => match load(&self.client, &self.config, &self.keys).await {
                    Ok(mirror) => match self.resync(mirror) {
                        Ok(()) => "history was cut".to_owned(),
                        Err(error) => return error,
                    },
                    Err(error) if error.may_pass() => error.to_string(),
                    Err(error) => return error,
                },
                Break::Lasting(error) => return error,
            };
            tracing::debug!(problem, "etcd is watched anew");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// What was read anew takes the place of what was followed. Watchers that haven't seen what lies between get
    /// an error that it is compacted.
    fn resync(&mut self, mirror: Mirror) -> Result<(), EngineError> {
        let (known, found) = (self.mirror.state.revision(), mirror.state.revision());
        if found < known {
            return Err(went_back(known, found));
        }
        tracing::info!(%known, %found, "etcd forgot what came between: everything was read anew");
        self.mirror = mirror;
        self.publish();
        Ok(())
    }

    async fn follow(&mut self, pause: &mut Duration) -> Break {
        match self.watch(pause).await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn watch(&mut self, pause: &mut Duration) -> Result<std::convert::Infallible, Break> {
        self.check().await?;
        let (key, range_end) = self.keys.all();
        let create = WatchCreateRequest {
            key,
            range_end,
            start_revision: to_etcd(self.mirror.state.revision().next()),
            // Each watch's own are in order with its events; those asked for aren't before 3.4.25 and 3.5.8.
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        let union = Some(WatchRequestRequestUnion::Create(create));
        let mut call = self.client.watch(&WatchRequest { request_union: union }).await?;
        loop {
            let ended = || Status::unavailable("etcd ended the watch");
            let answer = call.next().await?.ok_or_else(ended)?;
            *pause = FIRST_PAUSE;
            if answer.compact_revision > 0 {
                return Err(Break::Compacted);
            }
            if answer.canceled {
                return Err(Status::unavailable(answer.cancel_reason).into());
            }
            if !answer.events.is_empty() {
                self.mirror.take(&answer.events);
            // The header of the answer that says "created" tells how far etcd is, not how far this watch has told.
            } else if !answer.created
                && let Some(header) = &answer.header
            {
                self.mirror.advance(from_etcd(header.revision));
            }
            if self.mirror.is_orphan {
                let lost = format!("the keys under {}/ were deleted", self.config.prefix);
                return Err(Break::Lasting(EngineError::WentBack(lost)));
            }
            self.publish();
        }
    }

    /// Whether this is still the etcd that was followed until now.
    async fn check(&self) -> Result<(), Break> {
        let claimed = match claim(&self.client, &self.config, &self.keys).await {
            Ok(claimed) => claimed,
            Err(EngineError::Unreachable(why)) => return Err(Status::unavailable(why).into()),
            Err(error) => return Err(Break::Lasting(error)),
        };
        let known = self.mirror.state.revision();
        if claimed.etcd != self.etcd {
            let lost = "it is another etcd than before".to_owned();
            return Err(Break::Lasting(EngineError::WentBack(lost)));
        }
        if claimed.newest < known {
            return Err(Break::Lasting(went_back(known, claimed.newest)));
        }
        Ok(())
    }

    /// Shows what is known now: first the state, then who leads, who so has the whole state when it begins.
    fn publish(&self) {
        if self.states.borrow().revision() != self.mirror.state.revision() {
            self.states.send_replace(Arc::new(self.mirror.state.clone()));
        }
        self.head.send_if_modified(|head| {
            let changed = head.as_ref() != self.mirror.head();
            if changed {
                *head = self.mirror.head().cloned();
            }
            changed
        });
    }
}

fn went_back(known: Revision, found: Revision) -> EngineError {
    EngineError::WentBack(format!("it was at revision {known} and is at {found}"))
}
