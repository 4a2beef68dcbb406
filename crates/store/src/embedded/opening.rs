//! What a member needs before it starts: its address, its folder and what lies in it, its settings.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use super::config::{Config, Timing};
use super::core::Settings;
use super::disk;
use super::error::StartError;
use super::folder::{self, Claim};
use super::log::{Log, LogError, Recovered};
use super::membership::Membership;
use crate::MemberId;

/// Listens on an address. One in use may be a predecessor's that is just ending: it gets a moment.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    const TRIES: u32 = 25;
    for _ in 1..TRIES {
        match TcpListener::bind(address).await {
            Err(problem) if problem.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
    TcpListener::bind(address).await
}

/// Locks the folder and looks whose it is.
pub(super) fn open(config: &Config) -> Result<(File, disk::Folder, Claim), StartError> {
    let failed = |source| StartError::Folder { folder: config.data_dir.clone(), source };
    let disk = disk::Folder::new(&config.data_dir).map_err(failed)?;
    let lock = disk.lock().map_err(failed)?.ok_or_else(|| StartError::InUse(config.data_dir.clone()))?;
    let claim = folder::claim(&disk, &claimant(config, &Membership::initial(&config.peers)));
    Ok((lock, disk, claim.map_err(|problem| located(config, problem))?))
}

/// Reads what the folder holds: of the member that it is of, or of the newcomer that has got its number.
pub(super) fn read(
    config: &Config,
    disk: &disk::Folder,
    claim: Claim,
    newcomer: Option<MemberId>,
) -> Result<(MemberId, u64, Log, Recovered), StartError> {
    let (id, boot) = match (claim, newcomer) {
        (Claim::Member(id, boot), _) => (id, boot),
        (Claim::Newcomer, id) => {
            let id = id.unwrap_or_default();
            let first = Membership::initial(&config.peers);
            (id, folder::settle(disk, &claimant(config, &first), id)?)
        }
    };
    let (log, recovered) =
        Log::open_sealed(Arc::new(disk.clone()), &config.sealing).map_err(|problem| match problem {
            LogError::Io(source) => StartError::Folder { folder: config.data_dir.clone(), source },
            LogError::Damaged(damaged) => located(config, damaged),
        })?;
    Ok((id, boot, log, recovered))
}

fn claimant<'a>(config: &'a Config, first: &'a Membership) -> folder::Claimant<'a> {
    folder::Claimant {
        cluster: &config.cluster_id,
        member: &config.name,
        first,
        start: config.start,
        folder: &config.data_dir,
    }
}

/// Says of damage where the file lies.
fn located(config: &Config, problem: StartError) -> StartError {
    match problem {
        StartError::Damaged { file, offset, what } => {
            let file = config.data_dir.join(file).display().to_string();
            StartError::Damaged { file, offset, what }
        }
        other => other,
    }
}

/// What the core goes by.
#[allow(clippy::disallowed_methods)] // A seed has to come from somewhere, once a start.
pub(super) fn settings(config: &Config, id: MemberId, boot: u64) -> Settings {
    let ticks = |time: Duration| (time.as_micros() / config.timing.tick.as_micros().max(1)).max(1) as usize;
    let Timing { heartbeat, election_min, election_max, .. } = config.timing;
    Settings {
        id,
        boot,
        seed: config.seed.unwrap_or_else(rand::random),
        tick: config.timing.tick,
        heartbeat_ticks: ticks(heartbeat),
        election_ticks: (ticks(election_min), ticks(election_max)),
        request_timeout: config.timing.request_timeout,
        disk_stall: config.timing.disk_stall,
        snapshot_bytes: config.limits.snapshot_bytes,
        trailing_bytes: config.limits.trailing_bytes,
        history_bytes: config.limits.history_bytes,
    }
}
