//! The keeper of a host's addresses: a process of its own, which takes them from the link once what the host has them by is over, or the host's
//! process is gone. That is the host's lease for the addresses of services, and leadership for the API's.
//!
//! As the pods' keepers do it waits for a time, which stands in memory that it shares with the host's process ([`LeasePage`]), and asks nobody:
//! so an address is given up in time though the host's process hangs, is stopped or was killed. The kernel would go on to answer for it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use membership::lease::{Boottime, Epoch};
use membership::{LeasePage, boottime};
use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::netlink::Netlink;
use crate::on_link::OnLink;

/// The program's argument by which it is a keeper.
const KEEPER: &str = "address-keeper";
/// What it says once it keeps.
const READY: u8 = b'!';
/// How long it may take to start.
const START: Duration = Duration::from_secs(5);
/// How long a host that has just started waits for it before it takes an address without one. Much else starts at that time.
const FIRST: Duration = Duration::from_secs(3);
/// After this time one that has ended is followed by another.
const NEXT: Duration = Duration::from_millis(200);
/// How often it looks at least: its timers stand still while the machine sleeps, and the lease doesn't.
const LOOK: Duration = Duration::from_millis(100);
/// How often it looks at least while the host leads: whether the host's process is stopped has to be seen before others elect a leader.
const LOOK_AT_LEADER: Duration = Duration::from_millis(50);
/// How often it tries to take the addresses of a process that is gone from the link. Then there may be no link any more.
const TRIES: usize = 50;

/// By what a host has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// By its lease, in this epoch.
    Lease(Epoch),
    /// As the leader of this term.
    Leading(u64),
}

impl Hold {
    /// When it is over, unless the host says more; nothing if it is.
    fn ends(self, page: &LeasePage) -> Option<Boottime> {
        match self {
            Hold::Lease(epoch) => page.ends(epoch),
            Hold::Leading(term) => page.leading().ends(term),
        }
    }

    /// The message to the keeper: `ADDRESS KIND NUMBER`.
    fn line(self, address: IpAddr) -> String {
        match self {
            Hold::Lease(epoch) => format!("{address} lease {epoch}\n"),
            Hold::Leading(term) => format!("{address} leading {term}\n"),
        }
    }
}

/// If this process was started to be a keeper, is it until its end. To be called before anything else in `main`.
pub fn run_address_keeper() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != KEEPER {
        return None;
    }
    let link = arguments.next()?.into_string().ok()?;
    Some(match be_keeper(link) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the keeper of addresses ended");
            ExitCode::FAILURE
        }
    })
}

fn be_keeper(link: String) -> io::Result<()> {
    // What ends the host's process ends this one by the end of their connection, after it has done its work.
    for ignored in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: nothing of ours runs in a handler: there is none.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    // Before others, as far as this process may ask for that.
    // SAFETY: a system call on numbers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    let page = LeasePage::of(io::stdout().as_fd().try_clone_to_owned()?)?;
    let host = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = PathBuf::from(format!("/proc/{}/stat", parent_id()));
    runtime.block_on(keep(link, page, host, || {
        is_stopped(&std::fs::read_to_string(&status).unwrap_or_default())
    }))
}

/// Whether a process is stopped, by its `stat` (proc_pid_stat(5)): the state follows its name, which may have parentheses itself.
fn is_stopped(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| matches!(rest.trim_start().chars().next(), Some('T' | 't')))
}

/// Keeps the addresses that the host names, until it is gone.
///
/// A host's process that is stopped leads nobody from then on. So it isn't waited for: what it said of its leadership is taken back in the page,
/// from which it learns that it was away.
pub(crate) async fn keep(
    link: String,
    page: LeasePage,
    host: UnixStream,
    host_is_stopped: impl Fn() -> bool,
) -> io::Result<()> {
    host.set_nonblocking(true)?;
    let (said, mut says) = tokio::net::UnixStream::from_std(host)?.into_split();
    let (_, changes) = watch::channel(0);
    let mut on = OnLink::new(Netlink::open().map_err(io::Error::other)?, link, changes);
    let mut lines = BufReader::new(said).lines();
    let mut kept: BTreeMap<IpAddr, Hold> = BTreeMap::new();
    says.write_all(&[READY]).await?;
    loop {
        let mut wait = None;
        for (address, hold) in &kept {
            let look = match hold {
                Hold::Lease(_) => LOOK,
                Hold::Leading(term) => {
                    if hold.ends(&page).is_some() && host_is_stopped() {
                        page.leading().set(*term, None);
                    }
                    LOOK_AT_LEADER
                }
            };
            let left = match hold.ends(&page) {
                Some(until) => until.saturating_sub(boottime()).min(look),
                None => {
                    // Again and again: the host's process may have been about to put it there.
                    remove(&mut on, *address).await;
                    LOOK
                }
            };
            wait = Some(left.min(wait.unwrap_or(LOOK)));
        }
        let look = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What the host says of an address comes before it puts that on the link.
            biased;
            line = lines.next_line() => match line {
                Ok(Some(line)) => hear(&line, &mut kept),
                Ok(None) | Err(_) => break,
            },
            () = look => {}
        }
    }
    for _ in 0..TRIES {
        let mut left = BTreeMap::new();
        for (address, hold) in kept {
            if !remove(&mut on, address).await {
                left.insert(address, hold);
            }
        }
        kept = left;
        if kept.is_empty() {
            break;
        }
        sleep(LOOK).await;
    }
    Ok(())
}

async fn remove(on: &mut OnLink, address: IpAddr) -> bool {
    let removed = on.remove(address).await;
    if removed.is_err() {
        on.begin_anew();
    }
    removed.is_ok()
}

/// [`Hold::line`]: the host has it by this from now on; `ADDRESS`: it hasn't any more.
fn hear(line: &str, kept: &mut BTreeMap<IpAddr, Hold>) {
    let mut words = line.split(' ');
    let Some(Ok(address)) = words.next().map(str::parse) else { return };
    let hold = match (words.next(), words.next().map(str::parse)) {
        (Some("lease"), Some(Ok(epoch))) => Hold::Lease(epoch),
        (Some("leading"), Some(Ok(term))) => Hold::Leading(term),
        (None, _) => {
            kept.remove(&address);
            return;
        }
        _ => return,
    };
    kept.insert(address, hold);
}

/// The host's side: has a keeper there for as long as [`run`](Keeper::run) runs, and tells it what to keep.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    link: String,
    page: LeasePage,
    told: Mutex<Told>,
    /// Whether one is there that has been told all.
    is_there: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Told {
    keeper: Option<UnixStream>,
    kept: BTreeMap<IpAddr, Hold>,
}

impl Told {
    /// One that hears nothing any more is none.
    fn say(&mut self, lines: &str) {
        let said = self.keeper.as_mut().map(|keeper| keeper.write_all(lines.as_bytes()));
        if !matches!(said, Some(Ok(()))) {
            self.keeper = None;
        }
    }
}

impl Keeper {
    /// One that doesn't run yet: this program, and the link that it is to look after.
    pub fn new(program: PathBuf, link: String, page: LeasePage) -> Self {
        let (told, is_there) = (Mutex::default(), watch::Sender::new(false));
        Keeper(Arc::new(Shared { program, link, page, told, is_there }))
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something, and answers whether there is one that hears it.
    fn say(&self, mut told: MutexGuard<'_, Told>, lines: &str) -> bool {
        told.say(lines);
        let is_there = told.keeper.is_some();
        self.0.is_there.send_replace(is_there);
        is_there
    }

    /// Has an address given up when what it is held by is over. False if there is no keeper at the moment: the next one hears of it.
    pub fn tell(&self, address: IpAddr, hold: Hold) -> bool {
        let mut told = self.told();
        told.kept.insert(address, hold);
        self.say(told, &hold.line(address))
    }

    /// The same, and waits until there is a keeper that has heard it.
    ///
    /// # Errors
    /// If there is none in time: then nothing is kept.
    pub async fn keep(&self, address: IpAddr, hold: Hold) -> Result<(), Error> {
        let mut is_there = self.0.is_there.subscribe();
        if self.tell(address, hold) {
            return Ok(());
        }
        match timeout(START, is_there.wait_for(|is_there| *is_there)).await {
            Ok(Ok(_)) => Ok(()),
            _ => {
                self.gone(address);
                Err(Error::Keeper(io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// Waits until there is one, but not for long.
    pub async fn is_there(&self) {
        let mut is_there = self.0.is_there.subscribe();
        let _ = timeout(FIRST, is_there.wait_for(|is_there| *is_there)).await;
    }

    /// An address has been given up.
    pub fn gone(&self, address: IpAddr) {
        let mut told = self.told();
        if told.kept.remove(&address).is_some() {
            self.say(told, &format!("{address}\n"));
        }
    }

    /// Has a keeper run, and another one when it has ended or hangs.
    pub async fn run(self) {
        let mut problem = None;
        loop {
            let ended = self.run_one().await.err().map(|error| error.to_string());
            if ended.is_none() || ended != problem {
                let why = ended.as_deref().unwrap_or("it was there, and is gone");
                tracing::warn!(why, "the keeper of addresses doesn't run; another one is started");
            }
            problem = ended;
            sleep(NEXT).await;
        }
    }

    async fn run_one(&self) -> io::Result<()> {
        let (own, theirs) = UnixStream::pair()?;
        let page = self.0.page.file().try_clone_to_owned()?;
        let mut command = Command::new(&self.0.program);
        command.arg(KEEPER).arg(&self.0.link).stdin(OwnedFd::from(theirs)).stdout(page);
        let mut child = command.stderr(Stdio::inherit()).spawn()?;
        // What is started holds it open; nobody else here does.
        drop(command);
        // Both ends that are this process' own: what hangs must hold up nobody who says something.
        own.set_nonblocking(true)?;
        let mut ready = tokio::net::UnixStream::from_std(own.try_clone()?)?;
        let said = timeout(START, ready.read_u8()).await;
        if !matches!(said, Ok(Ok(READY))) {
            child.kill().await?;
            return Err(io::Error::other("it didn't start"));
        }
        self.introduce(Some(own));
        let mut is_there = self.0.is_there.subscribe();
        let unheard = async { _ = is_there.wait_for(|is_there| !is_there).await };
        let ended = tokio::select! {
            ended = child.wait() => ended.map(drop),
            () = unheard => child.kill().await,
        };
        self.introduce(None);
        ended
    }

    /// From now on this is the keeper, and has yet to hear all; or there is none.
    fn introduce(&self, keeper: Option<UnixStream>) {
        let mut told = self.told();
        told.keeper = keeper;
        let all: String = told.kept.iter().map(|(address, hold)| hold.line(*address)).collect();
        self.say(told, &all);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::netlink::tests::{in_namespace, ip, pair};

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 73, 0, 200));

    async fn is_here(wanted: bool) {
        let looks = async {
            while ip("address show").contains("10.73.0.200/32") != wanted {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let met = timeout(Duration::from_secs(20), looks).await;
        assert!(met.is_ok(), "it should be {wanted} that the address is here");
    }

    #[test]
    fn an_address_goes_with_the_lease_and_with_the_host_s_process() {
        if !testing::has("ip") {
            return;
        }
        in_namespace("an_address_goes_with_the_lease", || async {
            pair(&Netlink::open().unwrap()).await;
            let page = LeasePage::create().unwrap();
            let (mut host, keeper) = UnixStream::pair().unwrap();
            let keeping = tokio::spawn(keep("eth0".into(), page.clone(), keeper, || false));
            page.set(7, Some(boottime() + Duration::from_secs(3600)));
            host.write_all(format!("{ADDRESS} lease 7\n").as_bytes()).unwrap();
            ip("address add 10.73.0.200/32 dev eth0");
            // The lease isn't renewed: it takes nobody's word for the end.
            page.set(7, Some(boottime() + Duration::from_millis(300)));
            is_here(true).await;
            is_here(false).await;
            // A process that was about to put it there comes too late.
            ip("address add 10.73.0.200/32 dev eth0");
            is_here(false).await;
            page.set(8, Some(boottime() + Duration::from_secs(3600)));
            host.write_all(format!("{ADDRESS} lease 8\n").as_bytes()).unwrap();
            // Until it has heard that, it takes it away.
            let looks = async {
                while !ip("address show").contains("10.73.0.200/32") {
                    ip("address replace 10.73.0.200/32 dev eth0");
                    sleep(LOOK * 2).await;
                }
            };
            timeout(Duration::from_secs(20), looks).await.expect("in the next epoch it is let be");
            drop(host);
            is_here(false).await;
            keeping.await.unwrap().unwrap();
        });
    }

    #[test]
    fn a_stopped_process_is_known_by_its_state() {
        assert!(is_stopped("7 (host (T) x) T 1 7") && is_stopped("7 (host) t 1 7"));
        assert!(!is_stopped("7 (host (T) T) S 1 7") && !is_stopped("7 (T") && !is_stopped(""));
    }

    #[test]
    fn what_the_host_says_is_kept_until_it_says_otherwise() {
        let mut kept = BTreeMap::new();
        let lines = [
            "10.73.0.200 lease 7",
            "nonsense",
            "10.73.0.201 lease x",
            "10.73.0.202 leading 8",
            "10.73.0.202",
        ];
        for line in lines.into_iter().chain(["fd00::1 leading 3", "10.73.0.203 other 3"]) {
            hear(line, &mut kept);
        }
        let other = "fd00::1".parse().unwrap();
        assert_eq!(kept, BTreeMap::from([(ADDRESS, Hold::Lease(7)), (other, Hold::Leading(3))]));
        for (address, hold) in &kept {
            let mut heard = BTreeMap::new();
            hear(hold.line(*address).trim_end(), &mut heard);
            assert_eq!(heard, BTreeMap::from([(*address, *hold)]));
        }
    }
}
