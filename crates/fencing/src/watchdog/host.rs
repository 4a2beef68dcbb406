//! The host's side of the watchdog: has a keeper run, and knows how it stands.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use membership::LeasePage;
use membership::lease::Terms;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::sleep;

use super::keeper::{ARMED, KEEPER, REFUSED, WAITS};

/// After this time a keeper that has ended is followed by another: before the device, which nobody feeds now, resets the machine.
const NEXT: Duration = Duration::from_millis(200);
/// After this time a device that was refused is looked at again.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);
/// The most bytes that a keeper says.
const LONGEST: u64 = 4096;

/// What a watchdog needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The device, such as `/dev/watchdog`.
    pub device: PathBuf,
    /// The folder of all pods, on which those that must not run twice hold a lock.
    pub pods: PathBuf,
    /// This program, which calls [`run_watchdog_keeper`](crate::run_watchdog_keeper) first of all.
    pub program: PathBuf,
    /// Until when the host's lease holds.
    pub page: LeasePage,
    /// By what the others count that.
    pub terms: Terms,
    /// From one heartbeat to the next.
    pub beat: Duration,
}

/// How a host's watchdog stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It isn't fed by this host, for this reason.
    Off(String),
    /// It resets the machine once it isn't fed for so long.
    Armed(Duration),
}

/// A host's watchdog.
#[derive(Debug)]
pub struct Watchdog {
    options: Options,
    state: watch::Sender<State>,
}

impl Watchdog {
    /// One that is off, and how it will stand.
    pub fn new(options: Options) -> (Self, watch::Receiver<State>) {
        let (state, seen) = watch::channel(State::Off("it isn't open yet".into()));
        (Watchdog { options, state }, seen)
    }

    /// Has a keeper feed the device, and another one when it has ended. When this is dropped, or its process ends, the keeper goes on until nothing is
    /// left that must not run twice, and closes the device then.
    pub async fn run(self) {
        loop {
            let ended = self.run_one().await;
            let is_refused = matches!(ended, Ok(true));
            if !is_refused {
                let why = match ended {
                    Ok(_) => "its keeper ended".to_owned(),
                    Err(error) => format!("its keeper can't be started: {error}"),
                };
                self.stands(State::Off(why));
            }
            sleep(if is_refused { REFUSED_AGAIN } else { NEXT }).await;
        }
    }

    /// Has one keeper run until it ends. Whether it has refused the device.
    async fn run_one(&self) -> io::Result<bool> {
        let Options { device, pods, program, page, terms, beat } = &self.options;
        let (own, theirs) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        let mut command = Command::new(program);
        command.arg(KEEPER).arg(device).arg(pods);
        command.args([terms.lease, terms.fence, *beat].map(|time| time.as_millis().to_string()));
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(page.file().try_clone_to_owned()?)
            .stderr(Stdio::inherit());
        let mut child = command.spawn()?;
        // What is started holds its end open; nobody else here does.
        drop(command);
        let said = tokio::net::UnixStream::from_std(own)?;
        let mut lines = BufReader::new(said.take(LONGEST)).lines();
        let mut is_refused = false;
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(timeout) = line.strip_prefix(ARMED).and_then(|timeout| timeout.parse().ok()) {
                self.stands(State::Armed(Duration::from_millis(timeout)));
            } else if let Some(why) = line.strip_prefix(WAITS) {
                self.stands(State::Off(why.to_owned()));
            } else if let Some(why) = line.strip_prefix(REFUSED) {
                is_refused = true;
                self.stands(State::Off(why.to_owned()));
            }
        }
        child.wait().await?;
        Ok(is_refused)
    }

    fn stands(&self, state: State) {
        if *self.state.borrow() == state {
            return;
        }
        let device = self.options.device.display();
        match &state {
            State::Armed(timeout) => {
                tracing::info!(%device, ?timeout, "the watchdog is armed: it resets this machine if it isn't fed")
            }
            State::Off(why) => tracing::warn!(%device, why, "the watchdog is off"),
        }
        self.state.send_replace(state);
    }
}
