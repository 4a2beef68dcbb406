//! What a runtime of others has of this host's pods. It is asked when the agent begins, however late it answers: until then nothing of it is ended,
//! and nothing is made in it.

use std::collections::HashMap;
use std::time::Duration;

use cri::Failure;

use super::label::{laid, which};
use super::lives::{Ended, Life, ended, time};
use super::runtime::{AGAIN, ForeignRuntime, system};
use crate::runtime::{Begun, Found, RunError, Runtime, Which};

/// How long a runtime may take to answer when the agent begins, until the agent goes on without knowing what it has.
const COMES_UP: Duration = Duration::from_secs(30);

/// What is known of the pods that a runtime has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: it wasn't asked yet.
    NotYet,
    /// Nothing, though the agent is at work: it didn't answer in time.
    Late,
    /// All.
    All,
}

impl ForeignRuntime {
    /// Whether something of a pod may run here, as far as anybody knows: a runtime that hasn't answered yet may have any.
    pub(crate) fn may_have(&self, uid: &str) -> bool {
        self.has(uid) || *self.known.borrow() != Known::All
    }

    /// Nothing is made as long as it isn't known what is there already: that might be ended for it.
    ///
    /// # Errors
    /// If that isn't known.
    pub(super) fn check_known(&self) -> Result<(), RunError> {
        if !self.is_awaited() {
            return Ok(());
        }
        let runtime = self.client.endpoint();
        Err(system(format!("the containers' runtime at {runtime} doesn't answer")))
    }

    /// What the runtime has, if it answers in time.
    pub(super) async fn first_look(&self) -> Vec<Found> {
        if let Ok(found) = tokio::time::timeout(COMES_UP, self.until_it_answers()).await {
            return found;
        }
        let runtime = self.client.endpoint().to_string();
        tracing::warn!(runtime, "the containers' runtime doesn't answer: the agent begins without it");
        self.known.send_replace(Known::Late);
        Vec::new()
    }

    /// What it has, where it didn't answer in time, as soon as it does.
    pub(super) async fn late_look(&self) -> Vec<Found> {
        if self.is_awaited() { self.until_it_answers().await } else { std::future::pending().await }
    }

    async fn until_it_answers(&self) -> Vec<Found> {
        let mut is_told = false;
        loop {
            match self.look_around().await {
                Ok(found) => {
                    self.known.send_replace(Known::All);
                    return found;
                }
                Err(failure) if !is_told => {
                    is_told = true;
                    let runtime = self.client.endpoint().to_string();
                    tracing::warn!(runtime, %failure, "waiting for the containers' runtime");
                }
                Err(_) => {}
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// What the runtime has of this host's pods.
    async fn look_around(&self) -> Result<Vec<Found>, Failure> {
        if let Some(offer) = &self.offer {
            offer.make(&self.client).await?;
        }
        let sandboxes = self.sandboxes.found().await?;
        let mut last: HashMap<(String, String), (u32, cri::messages::Container)> = HashMap::new();
        for container in self.client.containers(self.labels.clone()).await? {
            let attempt = container.metadata.as_ref().map(|metadata| metadata.attempt);
            let Some(Which { uid, container: name, attempt }) = which(&container.labels, attempt) else {
                continue;
            };
            let is_held = sandboxes.contains(&(uid.clone(), container.pod_sandbox_id.clone()));
            let is_newer = last.get(&(uid.clone(), name.clone())).is_none_or(|(known, _)| *known < attempt);
            if is_held && is_newer {
                last.insert((uid, name), (attempt, container));
            }
        }
        let mut found = Vec::new();
        for ((uid, container), (attempt, there)) in last {
            let status = match self.client.container_status(&there.id).await {
                Err(failure) if failure.is_missing() => continue,
                status => status?,
            };
            if status.started_at == 0 {
                // The agent died before it was started. If it can't be removed now, the next life's start does that: no other pod waits.
                if let Err(failure) = self.client.remove_container(&there.id).await {
                    tracing::warn!(uid, container, %failure, "a container that was never started can't be removed");
                }
                continue;
            }
            let begun = Begun { pid: 0, since: time(status.started_at) };
            let end = ended(&status);
            let which = Which { uid, container, attempt };
            let exit = end.and_then(|end| match end {
                Ended::Exit(exit) => Some(exit),
                Ended::Lost => None,
            });
            let life = Life::new(there.id, begun, status.log_path.into(), laid(&status.annotations), end);
            self.lives.begin(which.clone(), life);
            found.push(Found { which, begun, exit });
        }
        for (uid, id) in sandboxes {
            self.sandboxes.take_over(&uid, id).await;
        }
        self.remove_stray_cgroups().await;
        Ok(found)
    }
}
