//! What makes sure that this host has stopped what must not run twice: its grades, for its Node and for `/metrics`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use config::HostConfig;
use fencing::{Options, State, Watchdog};
use membership::lease::Terms;
use membership::{HeartbeatDriver, LeasePage};
use objects::{Grade, Writer};
use store::Store;
use tokio::sync::watch;
use tracing::info_span;

use crate::fence_agents::{FenceAgents, Off, Runs, Silence};

/// Where most machines that have a watchdog have it.
const USUAL: &str = "/dev/watchdog";

/// This host's grades, as they are at the moment.
pub struct Fences {
    /// All of them, the weakest first.
    pub grades: watch::Receiver<Vec<Grade>>,
    watchdog: Option<watch::Receiver<State>>,
    runs: Runs,
}

impl Fences {
    /// Has a keeper feed the watchdog, if the configuration names one.
    ///
    /// # Errors
    /// If the folder of pods can't be made, or kept from others.
    pub fn start(config: &HostConfig, page: LeasePage) -> anyhow::Result<Fences> {
        let has_agent = config.fencing.agents.contains_key(&config.name);
        let (tell, grades) = watch::channel(grades(false, has_agent));
        let runs = Runs::default();
        let Some(device) = &config.fencing.watchdog else {
            if Path::new(USUAL).exists() {
                tracing::info!(
                    "this machine has {USUAL}, and this host doesn't feed it: with fencing.watchdog it would be reset if it hangs"
                );
            }
            return Ok(Fences { grades, watchdog: None, runs });
        };
        let pods = node::pods_dir(&crate::host::node_dir(config));
        fs::create_dir_all(&pods)?;
        // Who can't open it can't hold a lock on it, by which it would seem that something is left.
        fs::set_permissions(&pods, Permissions::from_mode(0o711))?;
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
        tasks::spawn(info_span!("grades of fencing"), follow(state.clone(), has_agent, tell));
        Ok(Fences { grades, watchdog: Some(state), runs })
    }

    /// Has other hosts' agents switch them off while this host leads. Answers who is off.
    pub fn run_agents(
        &self,
        config: &HostConfig,
        membership: &HeartbeatDriver,
        store: Arc<dyn Store>,
        writer: Arc<dyn Writer>,
    ) -> watch::Receiver<Off> {
        let (tell, off) = watch::channel(Off::default());
        let silence = Silence { silent: membership.silence(), missed: membership.missed() };
        let agents = FenceAgents::new(config, silence, store, writer, self.runs.clone());
        tasks::spawn(info_span!("fence agents"), agents.run(tell));
        off
    }

    /// The grades, how the watchdog stands, and what agents did, for `/metrics`.
    pub fn metrics(&self) -> server::Measure {
        let (grades, watchdog, runs) = (self.grades.clone(), self.watchdog.clone(), self.runs.clone());
        Box::new(move |out| {
            runs.write(out);
            let about = "Whether this host has a grade of fencing";
            figures::family(out, "holdfast_fencing_grade", "gauge", about);
            for grade in Grade::ALL {
                let labels = format!(r#"grade="{}""#, grade.as_str());
                let has_it = grades.borrow().contains(&grade);
                figures::sample(out, "holdfast_fencing_grade", &labels, u8::from(has_it));
            }
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

/// All grades of a host, the weakest first.
fn grades(is_armed: bool, has_agent: bool) -> Vec<Grade> {
    let all = [(Grade::Lease, true), (Grade::Watchdog, is_armed), (Grade::Agent, has_agent)];
    all.into_iter().filter(|(_, is_there)| *is_there).map(|(grade, _)| grade).collect()
}

/// Tells the grades whenever the watchdog stands otherwise.
async fn follow(mut state: watch::Receiver<State>, has_agent: bool, tell: watch::Sender<Vec<Grade>>) {
    loop {
        let is_armed = matches!(*state.borrow_and_update(), State::Armed(_));
        let now = grades(is_armed, has_agent);
        tell.send_if_modified(|known| {
            let is_new = *known != now;
            *known = now;
            is_new
        });
        if state.changed().await.is_err() {
            return;
        }
    }
}
