//! A member with an empty folder asks the others to let it in.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{sleep, timeout};

use super::outbound::greet;
use super::{ConnectionError, read_frame};
use crate::MemberId;
use crate::embedded::config::{Config, Timing};
use crate::embedded::error::StartError;
use crate::embedded::wire::{Caller, Frame, Refusal};

/// Between two rounds of asking: about as long as an election takes, which a refused round may have met.
const PAUSE: Duration = Duration::from_millis(250);
/// After this many rounds, five seconds, what keeps it so long is logged again.
const PATIENCE: u32 = 20;

/// Asks the members in turn until one lets this member in: its number, and who the others are.
///
/// # Errors
/// [`StartError::NotLetIn`] where none of those that are there ever will.
pub async fn join(config: &Config) -> Result<(MemberId, Vec<Caller>), StartError> {
    let address = config.peers.get(&config.name).copied().unwrap_or(config.listen);
    if config.peers.keys().all(|name| *name == config.name) {
        let folder = config.data_dir.display();
        let what = format!("{folder} is empty and there is nobody to join: restore it from a backup");
        return Err(StartError::Config(what));
    }
    let me = Caller { id: MemberId::NONE, name: config.name.clone(), address };
    for round in 0.. {
        let mut answers = Vec::new();
        for (name, address) in config.peers.iter().filter(|(name, _)| **name != config.name) {
            let host = Caller { id: MemberId::NONE, name: name.clone(), address: *address };
            match ask(config, &me, &host).await {
                Ok(admitted) => return Ok(admitted),
                Err(problem) => answers.push((name.clone(), problem)),
            }
        }
        let never = |(by, problem): &(String, ConnectionError)| match problem {
            ConnectionError::TurnedAway(Refusal::Never(why)) => Some((by.clone(), why.clone())),
            _ => None,
        };
        let said: Option<Vec<_>> = answers.iter().map(never).collect();
        if let Some((by, why)) = said.and_then(|said| said.into_iter().next()) {
            return Err(StartError::NotLetIn { by, why });
        }
        if round % PATIENCE == 0 {
            for (by, problem) in &answers {
                tracing::info!(peer = by, %problem, "asks to be let into the cluster, until it is");
            }
        }
        sleep(PAUSE).await;
    }
    // Only reached after as many rounds as there are numbers.
    Err(StartError::NotLetIn { by: config.name.clone(), why: "nobody answered".into() })
}

async fn ask(
    config: &Config,
    me: &Caller,
    host: &Caller,
) -> Result<(MemberId, Vec<Caller>), ConnectionError> {
    let Timing { connect_timeout, request_timeout, silence, .. } = config.timing;
    let greeting = greet(&config.client_tls, &config.cluster_id, me, host, silence);
    let mut stream = timeout(connect_timeout, greeting).await??;
    // The member asked may wait for a leader as long as any caller does.
    let mut buffer = BytesMut::new();
    match timeout(request_timeout * 2, read_frame(&mut stream, &mut buffer)).await?? {
        Some(Frame::Admitted { id, others }) => Ok((id, others)),
        Some(Frame::Refused(refusal)) => Err(ConnectionError::TurnedAway(refusal)),
        Some(_) => Err(ConnectionError::Refused("it answers something else than was asked".into())),
        None => Err(ConnectionError::Refused("it hung up".into())),
    }
}
