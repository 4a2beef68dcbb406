//! The runtime whose containers are made and held by their pod's shim.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use membership::LeasePage;
use membership::lease::Epoch;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tracing::info_span;

use super::bond::{Bond, end_now};
use super::former::{PATIENCE, end, living};
use super::launch::Launcher;
use super::sandboxes::Slot;
use super::session::{CommandEnd, Ours, begun, exit, output_pipe, system};
use super::usage::Running;
use crate::container::cgroup::{Amounts, Cgroups, Memory};
use crate::container::{LogProgress, Resize, Terminal, end_leftovers};
use crate::host::Isolation;
use crate::oci::Namespace;
use crate::runtime::{
    Attached, Begun, Bundle, Exec, Exit, Found, OutputReader, Program, RunError, Runtime, Session, Shape,
    Tried, Trouble, Usage, Which,
};
use crate::shim::wire::{Answer, Ask, Life, Told};

/// The shims of this host's pods.
#[derive(Debug)]
pub(crate) struct ShimRuntime {
    /// The folder of all pods' folders.
    pub(super) pods: PathBuf,
    pub(super) launcher: Arc<Launcher>,
    pub(super) isolation: Isolation,
    pub(super) cgroups: Option<Arc<Cgroups>>,
    /// Until when the host's lease holds, where it has one.
    pub(super) lease: Option<LeasePage>,
    pub(super) troubles:
        (mpsc::UnboundedSender<Trouble>, tokio::sync::Mutex<mpsc::UnboundedReceiver<Trouble>>),
    pub(super) slots: Mutex<HashMap<String, Arc<Slot>>>,
    /// What runs, as far as nobody has heard of its end.
    running: Running,
}

fn life(which: &Which) -> Life {
    Life { container: which.container.clone(), attempt: which.attempt }
}

fn resized(terminal: Terminal) -> Box<dyn Resize> {
    Box::new(terminal)
}

impl ShimRuntime {
    /// A runtime whose pods have their folders in `pods`, and whose shims are `program`. Without `cgroups` the pods go without; without a
    /// `lease` none stops with it.
    ///
    /// # Errors
    /// If this process can't tell what it has open.
    pub(crate) fn new(
        pods: PathBuf,
        program: PathBuf,
        isolation: Isolation,
        cgroups: Option<Cgroups>,
        lease: Option<LeasePage>,
    ) -> io::Result<Self> {
        let launcher = Arc::new(Launcher::new(program)?);
        let (tell, told) = mpsc::unbounded_channel();
        let troubles = (tell, tokio::sync::Mutex::new(told));
        let cgroups = cgroups.map(Arc::new);
        Ok(ShimRuntime {
            pods,
            launcher,
            isolation,
            cgroups,
            lease,
            troubles,
            slots: Mutex::default(),
            running: Running::default(),
        })
    }
}

impl Runtime for ShimRuntime {
    fn prepare<'a>(&'a self, uid: &'a str, wanted: Shape) -> Tried<'a, Vec<Namespace>> {
        async move {
            let link = self.sandbox(uid).await?;
            let wanted = match wanted {
                Shape::Process => return Ok(Vec::new()),
                Shape::Own(wanted) => wanted,
                Shape::Foreign(_) => return Err(RunError::of_another()),
            };
            match link.ask(&Ask::Sandbox(wanted), Vec::new()).await {
                Some((Answer::Sandbox(namespaces), _)) => Ok(namespaces),
                reply => Err(begun(reply)
                    .err()
                    .unwrap_or_else(|| system("the pod's shim answered something else"))),
            }
        }
        .boxed()
    }

    fn first_process(&self, which: &Which) -> Option<i32> {
        self.running.first_process(which)
    }

    fn network<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Option<OwnedFd>> {
        async move {
            match self.link(uid)?.ask(&Ask::Network, Vec::new()).await? {
                (Answer::Network, mut files) => files.pop(),
                // It has none, or its shim is older than such networks.
                _ => None,
            }
        }
        .boxed()
    }

    fn start<'a>(&'a self, which: &'a Which, program: Program, log: PathBuf) -> Tried<'a, Begun> {
        async move {
            let link = self.sandbox(&which.uid).await?;
            let life = life(which);
            let (ask, wanted) = match program {
                Program::Process(command) => {
                    let wanted = command.cgroup;
                    (Ask::Start { life, command, isolation: self.isolation, log }, wanted)
                }
                Program::Bundle(Bundle { folder, layers, streams, cgroup, target }) => {
                    let target = target.as_ref().map(self::life);
                    (Ask::StartBundle { life, folder, layers, streams, log, target }, cgroup)
                }
                Program::Foreign(_) => return Err(RunError::of_another()),
            };
            let cgroup = self.cgroup(which, &wanted).await;
            let cgroup = cgroup.map_err(|why| system(format!("can't make the container's cgroup: {why}")))?;
            let begun = begun(link.ask(&ask, cgroup).await)?;
            self.running.begin(which, begun);
            Ok(begun)
        }
        .boxed()
    }

    fn exit<'a>(&'a self, which: &'a Which) -> BoxFuture<'a, Option<Exit>> {
        async move {
            let link = self.link(&which.uid)?;
            let ended = exit(link.ask(&Ask::Exit(life(which)), Vec::new()).await);
            let is_gone = ended.is_none() && link.is_over() && link.bond().is_none();
            let slot = self.slots().get(&which.uid).cloned().filter(|_| is_gone);
            if let Some(slot) = slot {
                // Before somebody decides what comes next: that may be to stop with the lease, and nothing may run then that doesn't.
                let _making = slot.making.lock().await;
                let is_last = slot.link().as_ref().is_some_and(|last| Arc::ptr_eq(last, &link));
                if is_last {
                    self.clear(&which.uid, &link).await;
                }
            }
            self.running.end(which);
            ended
        }
        .boxed()
    }

    fn signal(&self, which: &Which, signal: i32) {
        if let Some(link) = self.link(&which.uid) {
            drop(link.send(&Ask::Signal { life: life(which), signal }, Vec::new()));
        }
    }

    fn exec<'a>(&'a self, which: &'a Which, Exec { argv, streams, .. }: Exec) -> Tried<'a, Session> {
        async move {
            let link = self.link(&which.uid).ok_or(RunError::Gone)?;
            let (ours, theirs) = Ours::make(streams).map_err(system)?;
            let (number, answer) = link.send(&Ask::Exec { life: life(which), argv, streams }, theirs);
            // Before the answer is awaited: should the caller give up meanwhile, the command is killed as this is
            // dropped.
            let end = Box::new(CommandEnd { link, number });
            begun(answer.await.ok())?;
            Ok(Session {
                outputs: ours.outputs,
                input: ours.input,
                terminal: ours.terminal.map(resized),
                end,
            })
        }
        .boxed()
    }

    fn attach<'a>(
        &'a self,
        which: &'a Which,
        (stdout, stderr): (bool, bool),
    ) -> BoxFuture<'a, Option<Attached>> {
        async move {
            let link = self.link(&which.uid)?;
            let mut theirs = Vec::new();
            let mut output = |wanted: bool| -> io::Result<OutputReader> {
                if !wanted {
                    return Ok(Box::pin(tokio::io::empty()));
                }
                let (reader, writer) = output_pipe()?;
                theirs.push(writer);
                Ok(reader)
            };
            let outputs = (output(stdout).ok()?, output(stderr).ok()?);
            let ask = Ask::Attach { life: life(which), stdout, stderr };
            let (Answer::Attached, mut files) = link.ask(&ask, theirs).await? else { return None };
            let mut attached = Attached { outputs, input: None, terminal: None };
            if let Some(file) = files.pop() {
                if nix::unistd::isatty(&file).unwrap_or(false) {
                    let terminal = Terminal::of(file).ok()?;
                    attached.input = Some(Box::pin(terminal.clone()));
                    attached.terminal = Some(resized(terminal));
                } else {
                    attached.input = Some(Box::pin(pipe::Sender::from_owned_fd(file).ok()?));
                }
            }
            Some(attached)
        }
        .boxed()
    }

    fn close_input(&self, which: &Which) {
        if let Some(link) = self.link(&which.uid) {
            drop(link.send(&Ask::CloseInput(life(which)), Vec::new()));
        }
    }

    fn log(&self, which: &Which) -> watch::Receiver<LogProgress> {
        let (tell, progress) = watch::channel(LogProgress::default());
        let (link, life) = (self.link(&which.uid), life(which));
        tasks::spawn(info_span!("follow a log", uid = which.uid, container = which.container), async move {
            let mut seen = LogProgress::default();
            while !seen.ended {
                let ask = Ask::Log { life: life.clone(), seen: seen.writes };
                let answer = async { link.as_ref()?.ask(&ask, Vec::new()).await };
                seen = tokio::select! {
                    answer = answer => match answer {
                        Some((Answer::Log(progress), _)) => progress,
                        _ => LogProgress { ended: true, ..seen },
                    },
                    () = tell.closed() => return,
                };
                tell.send_replace(seen);
            }
        });
        progress
    }

    fn trouble(&self) -> BoxFuture<'_, Trouble> {
        async move {
            match self.troubles.1.lock().await.recv().await {
                Some(trouble) => trouble,
                // This runtime has the other end itself.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn found(&self) -> BoxFuture<'_, Vec<Found>> {
        async move {
            let (mut found, mut strange) = (Vec::new(), BTreeSet::new());
            for (uid, link, told) in living(&self.pods, PATIENCE).await {
                let Some(told) = told else {
                    tracing::warn!(
                        uid,
                        "a pod's shim is of another version than the agent, or doesn't answer: the pod is ended"
                    );
                    strange.insert(uid);
                    continue;
                };
                let here = |Told { life: Life { container, attempt }, begun, exit }| {
                    let which = Which { uid: uid.clone(), container, attempt };
                    if exit.is_none() {
                        self.running.begin(&which, begun);
                    }
                    Found { which, begun, exit }
                };
                found.extend(told.into_iter().map(here));
                self.attend(&uid, &link);
                let bound = Mutex::new(link.bond().map(|bond| bond.epoch));
                let slot = Slot { link: Mutex::new(Some(link)), bound, ..Slot::default() };
                self.slots().insert(uid, Arc::new(slot));
            }
            end_now(&self.pods, strange).await;
            let spared: BTreeSet<String> = self.slots().keys().cloned().collect();
            if let Some(cgroups) = &self.cgroups {
                let stray =
                    cgroups.pods().into_iter().filter(|uid| !spared.contains(uid)).collect::<Vec<_>>();
                join_all(stray.iter().map(|uid| cgroups.remove(uid))).await;
            }
            end_leftovers(self.pods.clone(), move |uid| spared.contains(uid)).await;
            found
        }
        .boxed()
    }

    fn update_resources<'a>(&'a self, uid: &'a str, of: Option<&'a Which>, to: Amounts) -> Tried<'a, ()> {
        async move {
            let Some(cgroups) = self.cgroups.clone() else { return Ok(()) };
            cgroups.updated(uid, of.map(|which| &*which.container), to).await.map_err(system)
        }
        .boxed()
    }

    fn usage(&self) -> BoxFuture<'_, Vec<(Which, Timestamp, Usage)>> {
        self.running.usage(self.cgroups.clone()).boxed()
    }

    fn memory_of_pods(&self, uids: Vec<String>) -> BoxFuture<'_, HashMap<String, Memory>> {
        async move {
            let Some(cgroups) = self.cgroups.clone() else { return HashMap::new() };
            cgroups.memory_of_pods(uids).await
        }
        .boxed()
    }

    fn can_stop_with_lease(&self) -> bool {
        self.lease.is_some()
    }

    fn bind(&self, uid: &str, epoch: Option<Epoch>) {
        *self.slot(uid).bound() = epoch;
    }

    fn bound(&self, uid: &str) -> Option<Option<Epoch>> {
        let link = self.link(uid)?;
        let bound = link.bond().map(|bond| bond.epoch);
        // What a shim without a lease leaves behind runs until somebody ends it.
        let is_left = bound.is_none() && !link.is_cleared.load(Ordering::Acquire);
        (is_left || !link.is_over()).then_some(bound)
    }

    fn ended_with_lease(&self, uid: &str) -> bool {
        let link = self.link(uid).filter(|link| link.is_over());
        link.is_some_and(|link| link.bond().is_some_and(Bond::is_over))
    }

    fn sandboxes(&self) -> Vec<String> {
        self.slots().keys().cloned().collect()
    }

    fn end<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, ()> {
        async move {
            let slot = self.slots().remove(uid);
            self.running.end_pod(uid);
            if let Some(link) = slot.and_then(|slot| slot.link().take()) {
                end(link).await;
            }
            self.remove_cgroup(uid).await;
        }
        .boxed()
    }

    fn end_all(&self) -> BoxFuture<'_, ()> {
        async move {
            let uids = self.sandboxes();
            join_all(uids.iter().map(|uid| self.end(uid))).await;
            if let Some(cgroups) = &self.cgroups {
                cgroups.close();
            }
        }
        .boxed()
    }
}
