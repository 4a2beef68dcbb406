//! The keeper of a host's addresses: a process of its own, which takes them from the link once the host's lease is over, or the host's process
//! is gone.
//!
//! As the pods' keepers do it waits for one time, which stands in memory that it shares with the host's heartbeats ([`LeasePage`]), and asks nobody:
//! so an address is given up in time though the host's process hangs, is stopped or was killed. The kernel would go on to answer for it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use membership::LeasePage;
use membership::lease::Epoch;
use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
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
/// How often it looks at least: its timers stand still while the machine sleeps, and the lease doesn't.
const LOOK: Duration = Duration::from_millis(100);
/// How often it tries to take the addresses of a process that is gone from the link. Then there may be no link any more.
const TRIES: usize = 50;

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
    runtime.block_on(keep(link, page, host))
}

/// Keeps the addresses that the host names, until it is gone.
pub(super) async fn keep(link: String, page: LeasePage, host: UnixStream) -> io::Result<()> {
    host.set_nonblocking(true)?;
    let (said, mut says) = tokio::net::UnixStream::from_std(host)?.into_split();
    let (_, changes) = watch::channel(0);
    let mut on = OnLink::new(Netlink::open().map_err(io::Error::other)?, link, changes);
    let mut lines = BufReader::new(said).lines();
    let mut kept: BTreeMap<Ipv4Addr, Epoch> = BTreeMap::new();
    says.write_all(&[READY]).await?;
    loop {
        let is_over = |epoch: &Epoch| page.ends(*epoch).is_none();
        let over: Vec<Ipv4Addr> =
            kept.iter().filter(|(_, epoch)| is_over(epoch)).map(|(address, _)| *address).collect();
        for address in &over {
            // Again and again: the host's process may have been about to put it there.
            remove(&mut on, *address).await;
        }
        let wait = match (kept.is_empty(), over.is_empty()) {
            (true, _) => None,
            (false, false) => Some(LOOK),
            (false, true) => Some(page.remaining().min(LOOK)),
        };
        let look = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            line = lines.next_line() => match line {
                Ok(Some(line)) => hear(&line, &mut kept),
                Ok(None) | Err(_) => break,
            },
            () = look => {}
        }
    }
    for _ in 0..TRIES {
        let mut left = BTreeMap::new();
        for (address, epoch) in kept {
            if !remove(&mut on, address).await {
                left.insert(address, epoch);
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

async fn remove(on: &mut OnLink, address: Ipv4Addr) -> bool {
    let removed = on.remove(IpAddr::V4(address)).await;
    if removed.is_err() {
        on.begin_anew();
    }
    removed.is_ok()
}

/// `ADDRESS EPOCH`: it is held in this epoch; `ADDRESS`: it isn't any more.
fn hear(line: &str, kept: &mut BTreeMap<Ipv4Addr, Epoch>) {
    let (address, epoch) =
        line.split_once(' ').map_or((line, None), |(address, epoch)| (address, Some(epoch)));
    let Ok(address) = address.parse() else { return };
    match epoch {
        Some(epoch) => drop(epoch.parse().map(|epoch| kept.insert(address, epoch))),
        None => drop(kept.remove(&address)),
    }
}

/// The host's side: starts a keeper when there is something to keep, and another one when it has ended.
#[derive(Debug)]
pub(crate) struct Keeper {
    program: PathBuf,
    link: String,
    page: LeasePage,
    running: Option<(Child, UnixStream)>,
    kept: BTreeMap<Ipv4Addr, Epoch>,
}

impl Keeper {
    /// One that isn't running yet: this program, and the link that it is to look after.
    pub fn new(program: PathBuf, link: String, page: LeasePage) -> Self {
        Keeper { program, link, page, running: None, kept: BTreeMap::new() }
    }

    /// Has an address given up with the lease of an epoch. Only then may it be put anywhere.
    ///
    /// # Errors
    /// If no keeper can be started.
    pub async fn keep(&mut self, address: Ipv4Addr, epoch: Epoch) -> Result<(), Error> {
        self.kept.insert(address, epoch);
        if self.say(&format!("{address} {epoch}\n")).is_ok() {
            return Ok(());
        }
        let started = self.start().await.map_err(Error::Keeper);
        if started.is_err() {
            self.kept.remove(&address);
        }
        started
    }

    /// An address has been given up.
    pub fn gone(&mut self, address: Ipv4Addr) {
        self.kept.remove(&address);
        // One that isn't there needs no telling.
        let _ = self.say(&format!("{address}\n"));
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        match &mut self.running {
            Some((_, stream)) => stream.write_all(line.as_bytes()),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    async fn start(&mut self) -> io::Result<()> {
        if let Some((mut former, _)) = self.running.take() {
            tracing::warn!("the keeper of addresses has ended; another one is started");
            let _ = former.kill();
            former.wait()?;
        }
        let (own, theirs) = UnixStream::pair()?;
        let page = self.page.file().try_clone_to_owned()?;
        let mut command = Command::new(&self.program);
        command.arg(KEEPER).arg(&self.link).stdin(OwnedFd::from(theirs)).stdout(page);
        let child = command.stderr(Stdio::inherit()).spawn()?;
        // What is started holds it open; nobody else here does.
        drop(command);
        let ready = own.try_clone()?;
        ready.set_nonblocking(true)?;
        let mut ready = tokio::net::UnixStream::from_std(ready)?;
        let said = timeout(START, ready.read_u8()).await;
        if !matches!(said, Ok(Ok(READY))) {
            return Err(io::Error::other("it didn't start"));
        }
        self.running = Some((child, own));
        let all: String = self.kept.iter().map(|(address, epoch)| format!("{address} {epoch}\n")).collect();
        self.say(&all)
    }
}

#[cfg(test)]
mod tests {
    use membership::boottime;

    use super::*;
    use crate::netlink::tests::{in_namespace, ip, pair};

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 200);

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
            let keeping = tokio::spawn(keep("eth0".into(), page.clone(), keeper));
            page.set(7, Some(boottime() + Duration::from_secs(3600)));
            host.write_all(format!("{ADDRESS} 7\n").as_bytes()).unwrap();
            ip("address add 10.73.0.200/32 dev eth0");
            // The lease isn't renewed: it takes nobody's word for the end.
            page.set(7, Some(boottime() + Duration::from_millis(300)));
            is_here(true).await;
            is_here(false).await;
            // A process that was about to put it there comes too late.
            ip("address add 10.73.0.200/32 dev eth0");
            is_here(false).await;
            page.set(8, Some(boottime() + Duration::from_secs(3600)));
            host.write_all(format!("{ADDRESS} 8\n").as_bytes()).unwrap();
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
    fn what_the_host_says_is_kept_until_it_says_otherwise() {
        let mut kept = BTreeMap::new();
        for line in ["10.73.0.200 7", "nonsense", "10.73.0.201 x", "10.73.0.202 8", "10.73.0.202"] {
            hear(line, &mut kept);
        }
        assert_eq!(kept, BTreeMap::from([(ADDRESS, 7)]));
    }
}
