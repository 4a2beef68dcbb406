//! The host's side of its keeper of addresses: has one there, and tells it what to keep.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use membership::LeasePage;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Hold, KEEPER, QUESTION, READY};
use crate::Error;

/// How long it may take to start.
const START: Duration = Duration::from_secs(5);
/// How long a host that has just started waits for it before it takes an address without one. Much else starts at that time.
const FIRST: Duration = Duration::from_secs(3);
/// After this time one that has ended is followed by another.
const NEXT: Duration = Duration::from_millis(200);
/// How often it is asked, and how long it may take to answer: one that hangs is followed by another.
const ASK: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(3);
/// How long one that was killed may take to end before another follows it. One that the kernel holds ends once it is let go.
const END: Duration = Duration::from_secs(3);
/// How many bytes are said to it while others wait. It has room for them, if it reads.
const AT_ONCE: usize = 4096;

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
        let mut talk = tokio::net::UnixStream::from_std(own.try_clone()?)?;
        let begun = async {
            is_ready(&mut talk).await?;
            self.introduce(own, &mut talk).await
        };
        if !matches!(timeout(START, begun).await, Ok(Ok(()))) {
            kill(&mut child).await?;
            return Err(io::Error::other("it didn't start"));
        }
        let mut is_there = self.0.is_there.subscribe();
        let unheard = async { _ = is_there.wait_for(|is_there| !is_there).await };
        let ended = tokio::select! {
            ended = child.wait() => ended.map(drop),
            () = unheard => kill(&mut child).await,
            () = self.hangs(&mut talk) => kill(&mut child).await.and(Err(io::Error::other("it hung"))),
        };
        self.told().keeper = None;
        self.0.is_there.send_replace(false);
        ended
    }

    /// Tells one all that is to be kept, in its own time; once it has heard that, and what was said meanwhile, it is the keeper.
    async fn introduce(&self, keeper: UnixStream, talk: &mut tokio::net::UnixStream) -> io::Result<()> {
        let mut heard = BTreeMap::new();
        loop {
            let lines = {
                let mut told = self.told();
                let lines = news(&heard, &told.kept);
                if lines.len() <= AT_ONCE {
                    told.keeper = Some(keeper);
                    self.say(told, &lines);
                    return Ok(());
                }
                heard.clone_from(&told.kept);
                lines
            };
            talk.write_all(lines.as_bytes()).await?;
            talk.write_all(question().as_bytes()).await?;
            is_ready(talk).await?;
        }
    }

    /// Waits until the keeper doesn't answer any more.
    async fn hangs(&self, talk: &mut tokio::net::UnixStream) {
        loop {
            sleep(ASK).await;
            self.say(self.told(), &question());
            if !matches!(timeout(ANSWER, is_ready(talk)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

fn question() -> String {
    format!("{QUESTION}\n")
}

async fn is_ready(talk: &mut tokio::net::UnixStream) -> io::Result<()> {
    match talk.read_u8().await? {
        READY => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What one has yet to hear that has heard of these addresses.
fn news(heard: &BTreeMap<IpAddr, Hold>, kept: &BTreeMap<IpAddr, Hold>) -> String {
    let gone = heard.keys().filter(|address| !kept.contains_key(*address));
    let new = kept.iter().filter(|(address, hold)| heard.get(*address) != Some(*hold));
    let gone = gone.map(|address| format!("{address}\n"));
    gone.chain(new.map(|(address, hold)| hold.line(*address))).collect()
}

/// Kills one, and waits for its end for a bounded time.
async fn kill(child: &mut Child) -> io::Result<()> {
    match timeout(END, child.kill()).await {
        Ok(killed) => killed,
        Err(_) => Err(io::Error::other("it was killed, and has not ended yet")),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Ipv4Addr;

    use membership::boottime;
    use membership::lease::Epoch;

    use super::*;
    use crate::address_keeper::keep;
    use crate::address_keeper::tests::{ADDRESS, is_here};
    use crate::netlink::Netlink;
    use crate::netlink::tests::{in_namespace, ip, pair};

    /// The host's end of a connection with a keeper, twice: to say something, and to wait.
    fn connected() -> (UnixStream, tokio::net::UnixStream, UnixStream) {
        let (own, theirs) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let talk = tokio::net::UnixStream::from_std(own.try_clone().unwrap()).unwrap();
        (own, talk, theirs)
    }

    #[test]
    fn a_keeper_hears_of_more_addresses_than_one_write_has_room_for() {
        if !testing::has("ip") {
            return;
        }
        in_namespace("a_keeper_hears_of_many_addresses", || async {
            pair(&Netlink::open().unwrap()).await;
            let page = LeasePage::create().unwrap();
            let long = Some(boottime() + Duration::from_secs(3600));
            page.set(7, long);
            page.leading().set(3, long);
            let host = Keeper::new("/none".into(), "eth0".into(), page.clone());
            for n in 0..12_000_u32 {
                assert!(!host.tell(Ipv4Addr::from(0x0a80_0000 + n).into(), Hold::Leading(3)));
            }
            // The last, and one that is given up again before anybody hears of it.
            host.tell([10, 200, 0, 1].into(), Hold::Lease(7));
            host.tell(ADDRESS, Hold::Lease(7));
            host.gone([10, 200, 0, 1].into());
            let (own, mut talk, theirs) = connected();
            let keeping = tokio::spawn(keep("eth0".into(), page.clone(), theirs, || false));
            let begun = async {
                is_ready(&mut talk).await.unwrap();
                host.introduce(own, &mut talk).await.unwrap();
            };
            timeout(Duration::from_secs(60), begun).await.expect("it hears all in time");
            assert!(*host.0.is_there.borrow());
            ip("address add 10.73.0.200/32 dev eth0");
            is_here(true).await;
            page.set(7, Some(boottime()));
            is_here(false).await;
            keeping.abort();
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_keeper_that_does_not_answer_is_noticed() {
        let host = Keeper::new("/none".into(), "eth0".into(), LeasePage::create().unwrap());
        let (own, mut talk, mut theirs) = connected();
        host.introduce(own, &mut talk).await.unwrap();
        // It answers once.
        theirs.write_all(&[READY]).unwrap();
        host.hangs(&mut talk).await;
        let mut asked = [0; 64];
        let length = theirs.read(&mut asked).unwrap();
        assert_eq!(&asked[..length], b"?\n?\n");
    }

    #[test]
    fn news_are_what_is_new_and_what_is_gone() {
        let of = |all: &[(u8, Epoch)]| -> BTreeMap<IpAddr, Hold> {
            all.iter().map(|(last, epoch)| ([10, 73, 0, *last].into(), Hold::Lease(*epoch))).collect()
        };
        let said = news(&of(&[(1, 7), (2, 7), (3, 7)]), &of(&[(2, 7), (3, 8), (4, 8)]));
        assert_eq!(said, "10.73.0.1\n10.73.0.3 lease 8\n10.73.0.4 lease 8\n");
    }
}
