//! Makes room for a pod: carries out what was decided about others that go for it.

use std::sync::Arc;

use futures::future;
use machinery::Status;
use objects::{Delete, ObjectRef, Occurrence, Pod, Recorder, Write, Writer};
use store::Store;

use crate::cluster::is_leaving;
use crate::driver::{USER, clocks};
use crate::tell;
use crate::unschedulable::{Unschedulable, Victims};
use crate::volume_wait::is_there;

/// Attempts to say something on a pod of which others say something at the same time.
const ATTEMPTS: usize = 5;

/// What it is made with.
pub(crate) struct Room {
    pub store: Arc<dyn Store>,
    pub writer: Arc<dyn Writer>,
    pub recorder: Recorder,
}

impl Room {
    /// Nominates the pod for its node, and has the others go: the nomination first, so that the next leader knows for whom
    /// they went.
    pub async fn make(&self, pod: &Pod, why: &Unschedulable, victims: &Victims) -> Result<(), Status> {
        self.say(|state, now| tell::no_place(pod, why, state, now)).await?;
        // Nobody goes for a pod that went meanwhile.
        if !is_there(&self.store.snapshot(), pod) {
            return Ok(());
        }
        for other in &victims.displaced {
            // It has found another place, or will; that it is gone harms nobody.
            let _ = self.writer.write(USER, tell::not_nominated(other)).await;
        }
        let going = victims.pods.iter().filter(|victim| !is_leaving(victim));
        future::try_join_all(going.map(|victim| self.preempt(victim, pod, victims))).await?;
        Ok(())
    }

    async fn preempt(&self, victim: &Pod, by: &Pod, victims: &Victims) -> Result<(), Status> {
        self.say(|state, now| tell::preempted(victim, by, state, now)).await?;
        let subject = tell::subject(&ObjectRef::of(victim));
        let options = Delete { uid: victim.metadata.uid.clone(), ..Delete::default() };
        match self.writer.write(USER, Write::Delete { subject, options }).await {
            Ok(_) => {}
            // It went by itself, and another one may have its name.
            Err(status) if [404, 409].contains(&status.code) => return Ok(()),
            Err(status) => return Err(status),
        }
        let uid = by.metadata.uid.as_deref().unwrap_or_default();
        let told = format!("Preempted by pod {uid} on node {}", victims.node);
        self.recorder.record(Occurrence::of(victim, false, "Preempted", told));
        Ok(())
    }

    /// Writes into a pod's status; what is to be written is worked out anew when somebody else was faster.
    async fn say(
        &self,
        what: impl Fn(&store::State, jiff::Timestamp) -> Option<Write>,
    ) -> Result<(), Status> {
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            let Some(write) = what(&self.store.snapshot(), clocks().1) else { return Ok(()) };
            outcome = self.writer.write(USER, write).await.map(|_| ());
            match &outcome {
                Err(status) if status.code == 409 => {}
                // Nobody is left to hear of it.
                Err(status) if status.code == 404 => return Ok(()),
                _ => break,
            }
        }
        outcome
    }
}
