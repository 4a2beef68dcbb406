//! The keeper of a host's addresses: a process of its own, which takes them from the link once what the host has them by is over, or the host's
//! process is gone. That is the host's lease for the addresses of services, and leadership for the API's.
//!
//! As the pods' keepers do it waits for a time, which stands in memory that it shares with the host's process ([`LeasePage`]), and asks nobody:
//! so an address is given up in time though the host's process hangs, is stopped or was killed. The kernel would go on to answer for it.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use futures::FutureExt;
use membership::lease::{Boottime, Epoch};
use membership::{LeasePage, boottime};
use nix::sys::signal::{SigHandler, Signal, signal};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::netlink::Netlink;
use crate::on_link::OnLink;

mod host;

pub(crate) use host::Keeper;

/// The program's argument by which it is a keeper.
const KEEPER: &str = "address-keeper";
/// What it says once it keeps, and whenever it is asked whether it does: then it has heard all that was said before.
const READY: u8 = b'!';
/// The question.
const QUESTION: &str = "?";
/// How many lines it hears before it looks at what is over.
const LINES: usize = 256;
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
    'host: loop {
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
            line = lines.next_line() => {
                let (mut next, mut room) = (Some(line), LINES);
                while let Some(line) = next {
                    match line {
                        // It asks for no more than it takes answers for.
                        Ok(Some(line)) if line == QUESTION => _ = says.try_write(&[READY]),
                        Ok(Some(line)) => hear(&line, &mut kept),
                        Ok(None) | Err(_) => break 'host,
                    }
                    room -= 1;
                    // What has arrived together.
                    next = if room > 0 { lines.next_line().now_or_never() } else { None };
                }
            }
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Ipv4Addr;

    use tokio::time::timeout;

    use super::*;
    use crate::netlink::tests::{in_namespace, ip, pair};

    pub(super) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 73, 0, 200));

    pub(super) async fn is_here(wanted: bool) {
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
