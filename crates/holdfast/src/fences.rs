//! What makes sure that this host has stopped what must not run twice: its grades, for its Node and for `/metrics`.

use std::fs;

use config::HostConfig;
use fencing::{Options, State, Watchdog};
use membership::LeasePage;
use membership::lease::Terms;
use objects::Grade;
use tokio::sync::watch;
use tracing::info_span;

/// This host's grades, as they are at the moment.
pub struct Fences {
    /// All of them, the weakest first.
    pub grades: watch::Receiver<Vec<Grade>>,
    watchdog: Option<watch::Receiver<State>>,
}

impl Fences {
    /// Has a keeper feed the watchdog, if the configuration names one.
    ///
    /// # Errors
    /// If the folder of pods can't be made.
    pub fn start(config: &HostConfig, page: LeasePage) -> anyhow::Result<Fences> {
        let (tell, grades) = watch::channel(vec![Grade::Lease]);
        let Some(device) = &config.fencing.watchdog else { return Ok(Fences { grades, watchdog: None }) };
        let pods = node::pods_dir(&crate::host::node_dir(config));
        fs::create_dir_all(&pods)?;
        let (watchdog, state) = Watchdog::new(Options {
            device: device.clone(),
            pods,
            // This very program, also after its file was replaced.
            program: "/proc/self/exe".into(),
            page,
            terms: Terms { lease: config.timeouts.lease.held_for, fence: config.timeouts.lease.fenced_after },
            beat: config.timeouts.heartbeats.every,
        });
        tasks::spawn(info_span!("machine's watchdog"), watchdog.run());
        tasks::spawn(info_span!("grades of fencing"), follow(state.clone(), tell));
        Ok(Fences { grades, watchdog: Some(state) })
    }

    /// How the watchdog stands, for `/metrics`.
    pub fn metrics(&self) -> server::Measure {
        let watchdog = self.watchdog.clone();
        Box::new(move |out| {
            let Some(state) = &watchdog else { return };
            let seconds = match &*state.borrow() {
                State::Armed(timeout) => timeout.as_secs_f64(),
                State::Off(_) => 0.0,
            };
            figures::single(
                out,
                "holdfast_watchdog_timeout_seconds",
                "gauge",
                "After which time without food the machine's watchdog resets it; 0 if this host has it not armed",
                seconds,
            );
        })
    }
}

/// Tells the grades whenever the watchdog stands otherwise.
async fn follow(mut state: watch::Receiver<State>, grades: watch::Sender<Vec<Grade>>) {
    loop {
        let is_armed = matches!(*state.borrow_and_update(), State::Armed(_));
        let now = if is_armed { vec![Grade::Lease, Grade::Watchdog] } else { vec![Grade::Lease] };
        grades.send_if_modified(|known| {
            let is_new = *known != now;
            *known = now;
            is_new
        });
        if state.changed().await.is_err() {
            return;
        }
    }
}
