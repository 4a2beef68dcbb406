//! What the desk has done for pods that run: those of a former agent are taken over, and files from objects brought up to date.

use std::collections::HashMap;
use std::time::Duration;

use tasks::SpawnIn;
use tracing::{debug_span, info_span};

use super::desk::Desk;
use super::life::{begin, outcome, watch_over};
use crate::pod::{Preparation, container, container_id, is_over, subject, take_over, uid};
use crate::runtime::Found;

impl Desk {
    /// Carries on with what a former agent started of a pod.
    pub(super) fn take_over(&mut self, id: &str, found: Vec<Found>) {
        let (host, now) = (self.host.clone(), self.host.clock.now());
        let Some(entry) = self.entries.get_mut(id) else { return };
        let pod = entry.pod.clone();
        let Some(address) = host.address_of(&pod) else { return };
        entry.record.preparation = Preparation::Done { address };
        entry.told_started = true;
        for Found { which, begun, exit } in found {
            let name = which.container.as_str();
            let Some(spec) = container(&pod, name) else { continue };
            let mut spec = spec.into_owned();
            host.complete_from_image(&pod, &mut spec);
            let past = take_over(&pod, &spec, &mut entry.record, which.attempt, begun.since, now);
            if exit.is_some() {
                let full = container_id(id, name, which.attempt);
                let outcome = outcome(&host, &pod, &spec, &which, exit);
                entry.record.exited(&full, name, which.attempt, outcome, now);
                continue;
            }
            let (started, ends) = begin(&host, &spec, &which, address, begun);
            let (target, reports) = (*started.target.clone(), self.reports.clone());
            entry.processes.insert(name.to_owned(), started);
            self.work.spawn_in(
                info_span!("container", pod = subject(&pod), container = which.container),
                watch_over(host.clone(), pod.clone(), target, ends, Some(past), reports),
            );
        }
        entry.record.resume_resize(&pod);
        if is_over(&pod) || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        // Its address is this host's again, and its files are brought up to date.
        self.work.spawn_in(info_span!("take over", pod = subject(&pod)), async move {
            let subject = subject(&pod);
            if let Err(error) = host.take_again(pod).await {
                tracing::warn!(pod = subject, %error, "a pod that was taken over keeps what it has");
            }
        });
    }

    /// A runtime that was away when the agent began says what it has. Pods that wait for it go on with that. What is of no pod of this host ends,
    /// once `are_pods_known`; before that it is taken for what was found in time.
    pub(super) fn found_late(&mut self, found: Vec<Found>, are_pods_known: bool) {
        let mut by_pod: HashMap<String, Vec<Found>> = HashMap::new();
        for one in found {
            by_pod.entry(one.which.uid.clone()).or_default().push(one);
        }
        self.entries.values_mut().for_each(|entry| entry.wake = Some(Duration::ZERO));
        for (uid, found) in by_pod {
            let Some(entry) = self.entries.get_mut(&uid) else {
                self.found.insert(uid, found);
                continue;
            };
            let is_prepared = matches!(entry.record.preparation, Preparation::Done { .. });
            if !is_prepared && !entry.record.alive() && !entry.record.finishing && !entry.released {
                self.take_over(&uid, found);
            }
        }
        if are_pods_known {
            self.found.clear();
            for uid in self.host.runtime.sandboxes() {
                if !self.entries.contains_key(&uid) && !self.former.contains(&uid) {
                    tracing::info!(uid, "a pod of a former life is not this host's any more: ended");
                    drop(self.begin_to_end(&uid));
                    // What it has is given back once it has ended.
                    self.former.insert(uid);
                }
            }
        }
    }

    pub(super) fn refresh_files(&mut self) {
        for entry in self.entries.values() {
            let from_objects = entry.pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|volume| {
                volume.config_map.is_some() || volume.secret.is_some() || volume.projected.is_some()
            });
            let Preparation::Done { address } = entry.record.preparation else { continue };
            if entry.released {
                continue;
            }
            if self.host.csi.has_mounted(uid(&entry.pod))
                && entry.record.ending.is_none()
                && !is_over(&entry.pod)
            {
                let (host, pod) = (self.host.clone(), entry.pod.clone());
                self.work.spawn_in(info_span!("keep volumes", pod = subject(&pod)), async move {
                    host.keep_volumes(&pod, address).await;
                });
            }
            if from_objects && entry.record.ending.is_none() {
                let (host, pod) = (self.host.clone(), entry.pod.clone());
                self.work.spawn_in(info_span!("refresh files", pod = subject(&pod)), async move {
                    if let Err(error) = host.renew_tokens(&pod).await {
                        tracing::debug!(pod = subject(&pod), %error, "a pod keeps the tokens that it has");
                    }
                    let of = pod.clone();
                    let done =
                        tasks::blocking(debug_span!("write files"), move || host.refresh(&of, address)).await;
                    if let Ok(Err(error)) = done {
                        tracing::debug!(pod = subject(&pod), %error, "a pod's files stay as they were");
                    }
                });
            }
        }
    }
}
