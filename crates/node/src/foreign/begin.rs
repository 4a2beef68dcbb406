//! How a container begins in its sandbox.

use std::path::PathBuf;
use std::time::Duration;

use cri::messages::{ContainerState, NamespaceMode};
use tracing::info_span;

use super::label::{laid, word};
use super::lives::{Life, time};
use super::runtime::{ForeignRuntime, KILL, system};
use super::{CONTAINER_NAME, Container, STREAMS};
use crate::container::make_room;
use crate::runtime::{Begun, RunError, Which};

impl ForeignRuntime {
    /// Starts a container in its sandbox.
    pub(super) async fn begin(
        &self,
        which: &Which,
        asked: Container,
        log: PathBuf,
    ) -> Result<Begun, RunError> {
        let Container { mut config, mut sandbox, streams, target, parts } = asked;
        let id = self.sandboxes.id(&which.uid).await.ok_or(RunError::Gone)?;
        let folder = log.clone();
        let attempt = which.attempt;
        let made =
            tasks::blocking(info_span!("make a log", uid = which.uid), move || make_room(&folder, attempt));
        let made = made.await.map_err(system)?;
        made.map_err(|why| system(format!("can't make the log: {why}")))?;
        if let Some(begun) = self.clear_former(which, &id).await? {
            return Ok(begun);
        }
        if let Some(cgroup) = self.known_cgroup(&which.uid).await {
            sandbox.linux.get_or_insert_default().cgroup_parent = cgroup;
        }
        for (mount, place) in self.show_parts(which, parts).await? {
            if let Some(mount) = config.mounts.get_mut(mount) {
                mount.host_path = place.display().to_string();
            }
        }
        config.labels.extend(self.sandboxes.labels(&which.uid));
        config.annotations.insert(STREAMS.into(), word(streams).into());
        if let Some(metadata) = &mut config.metadata {
            metadata.attempt = attempt;
        }
        config.log_path = format!("{}/{attempt}.log", which.container);
        if let Some(target) = target {
            let seen = self.lives.running(&which.uid, &target);
            let seen = seen.ok_or_else(|| RunError::no_target(&target))?;
            let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
            if let Some(options) = security.and_then(|security| security.namespace_options.as_mut()) {
                options.pid = NamespaceMode::Target as i32;
                options.target_id = seen;
            }
        }
        let made = self.client.create_container(&id, config, sandbox).await.map_err(system)?;
        if let Err(failure) = self.client.start_container(&made).await {
            // It may be half started; the next attempt finds it otherwise.
            if let Err(failure) = self.client.remove_container(&made).await {
                tracing::debug!(container = made, %failure, "a container that didn't start can't be removed");
            }
            return Err(system(failure));
        }
        let status = self.client.container_status(&made).await.map_err(system)?;
        let begun = Begun { pid: 0, since: time(status.started_at) };
        let log = log.join(format!("{attempt}.log"));
        self.lives.begin(which.clone(), Life::new(made, begun, log, streams, None));
        Ok(begun)
    }

    /// Takes away what a container's former lives left in a sandbox. One of this very life that runs is it: the agent that started it
    /// didn't hear of it.
    async fn clear_former(&self, which: &Which, sandbox: &str) -> Result<Option<Begun>, RunError> {
        let mut labels = self.sandboxes.labels(&which.uid);
        labels.insert(CONTAINER_NAME.into(), which.container.clone());
        let mut begun = None;
        for old in self.client.containers(labels).await.map_err(system)? {
            let attempt = old.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
            let runs = old.state == ContainerState::Running as i32;
            if runs && attempt == which.attempt && old.pod_sandbox_id == sandbox {
                let status = self.client.container_status(&old.id).await.map_err(system)?;
                let since = Begun { pid: 0, since: time(status.started_at) };
                let life = Life::new(old.id, since, status.log_path.into(), laid(&status.annotations), None);
                self.lives.begin(which.clone(), life);
                begun = Some(since);
                continue;
            }
            self.client.stop_container(&old.id, Duration::ZERO, KILL).await.map_err(system)?;
            self.client.remove_container(&old.id).await.map_err(system)?;
        }
        Ok(begun)
    }
}
