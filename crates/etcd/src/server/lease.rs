//! etcd's service `Lease`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use grpc::Messages;
use store::{LeaseId, State};

use super::{Server, refusal};
use crate::Status;
use crate::numbers::signed;
use crate::proto::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use crate::transport::Answers;

/// etcd's longest and (with its default timers) shortest lease, in seconds.
const LONGEST: i64 = 9_000_000_000;
const SHORTEST: u64 = 2;
/// Clocks of leases that ended are thrown away once there are this many more clocks than leases.
const SPARE_CLOCKS: usize = 1000;

/// When the leases that were made or kept alive here last started. The leader alone knows all of them.
#[derive(Debug, Default)]
pub struct LeaseClocks(Mutex<HashMap<LeaseId, Instant>>);

impl LeaseClocks {
    #[allow(clippy::disallowed_methods)] // A driver: what remains of a lease is measured here.
    fn started(&self, lease: LeaseId, state: &State) {
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.insert(lease, Instant::now());
        if clocks.len() > state.leases().count() + SPARE_CLOCKS {
            let kept: HashMap<_, _> = state.leases().collect();
            clocks.retain(|lease, _| kept.contains_key(lease));
        }
    }

    /// What remains of a lease of `seconds`; all of it where nothing is known.
    fn remaining(&self, lease: LeaseId, seconds: u64) -> u64 {
        let clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = clocks.get(&lease).map_or(Duration::ZERO, Instant::elapsed);
        seconds.saturating_sub(passed.as_secs())
    }
}

fn seconds(state: &State, lease: LeaseId) -> Option<u64> {
    state.leases().find(|(id, _)| *id == lease).map(|(_, seconds)| seconds)
}

impl Server {
    pub async fn grant(&self, request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        if request.ttl > LONGEST {
            return Err(refusal::ttl_too_large());
        }
        let ttl = u64::try_from(request.ttl).unwrap_or(0).max(SHORTEST);
        let lease = match LeaseId(request.id) {
            LeaseId::NONE => self.store.grant(ttl).await.map_err(refusal::by_store)?,
            chosen => self.store.grant_as(chosen, ttl).await.map(|()| chosen).map_err(refusal::by_store)?,
        };
        let state = self.store.snapshot();
        self.leases.started(lease, &state);
        let header = self.header(state.revision());
        Ok(LeaseGrantResponse { header, id: lease.0, ttl: signed(ttl), error: String::new() })
    }

    pub async fn revoke(&self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
        self.store.revoke(LeaseId(request.id)).await.map_err(refusal::by_store)?;
        Ok(LeaseRevokeResponse { header: self.now() })
    }

    pub async fn time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let state = self.store.read().await.map_err(refusal::by_store)?;
        let header = self.header(state.revision());
        let (id, lease) = (request.id, LeaseId(request.id));
        let Some(granted) = seconds(&state, lease) else {
            return Ok(LeaseTimeToLiveResponse { header, id, ttl: -1, ..LeaseTimeToLiveResponse::default() });
        };
        let keys = state.keys_of(lease).filter(|_| request.keys).cloned().collect();
        let ttl = signed(self.leases.remaining(lease, granted));
        Ok(LeaseTimeToLiveResponse { header, id, ttl, granted_ttl: signed(granted), keys })
    }

    pub async fn leases(&self, _: LeaseLeasesRequest) -> Result<LeaseLeasesResponse, Status> {
        let state = self.store.read().await.map_err(refusal::by_store)?;
        let leases = state.leases().map(|(lease, _)| LeaseStatus { id: lease.0 }).collect();
        Ok(LeaseLeasesResponse { header: self.header(state.revision()), leases })
    }
}

/// Keeps leases alive, one for each question; one that is gone has 0 seconds left.
pub async fn keep_alive(server: Arc<Server>, mut question: Messages, answers: Answers) -> Result<(), Status> {
    while let Some(LeaseKeepAliveRequest { id }) = question.next().await? {
        let lease = LeaseId(id);
        let ttl = match server.store.keep_alive(lease).await {
            Ok(()) => {
                let state = server.store.snapshot();
                server.leases.started(lease, &state);
                seconds(&state, lease).map_or(0, signed)
            }
            Err(store::Error::LeaseNotFound(_)) => 0,
            Err(error) => return Err(refusal::by_store(error)),
        };
        let header = server.now();
        answers.send(&LeaseKeepAliveResponse { header, id, ttl }).await?;
    }
    Ok(())
}
