//! The cluster on this machine as a drill sees it: hosts with power to cut, and what they tell of themselves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use drill::{BoxFuture, Fault, Happening, Held, Memory, Way};
use local::{Addresses, Cluster, Component, Lost, NetKind, WhoHas};
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tracing::info_span;

/// A running cluster on this machine.
pub struct LocalSite {
    hosts: BTreeMap<String, String>,
    net: String,
    cluster: tokio::sync::Mutex<Cluster>,
    seen: Arc<Mutex<Seen>>,
    reading: JoinHandle<()>,
    /// Nothing on loopback.
    who_has: Option<Result<Arc<WhoHas>, String>>,
    address: Ipv4Addr,
}

/// How often the hosts are asked who has the API's virtual address.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// How long a host may take to end when that is planned: more than its pods' grace.
const ENDING: Duration = Duration::from_secs(40);

/// What the hosts' timelines said so far.
#[derive(Default)]
struct Seen {
    /// The newest term that was won, and by whom.
    leader: Option<(u64, String)>,
    /// The host that took the virtual address last, and when.
    holder: Option<(SystemTime, String)>,
    listeners: Vec<UnboundedSender<Happening>>,
}

impl LocalSite {
    /// Watches over a cluster that was started.
    pub fn new(cluster: Cluster) -> Self {
        let addresses = cluster.folder().addresses();
        let peers = addresses.peers(cluster.folder().record().nodes);
        let api = |ip| format!("https://{ip}:{}", Addresses::API_PORT);
        let hosts = peers.iter().map(|(name, ip)| (name.clone(), api(ip))).collect();
        let files = cluster.hosts().iter().map(|name| cluster.folder().timeline(name)).collect();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let who_has = cluster.who_has().map(|asker| asker.map(Arc::new)).map_err(|error| error.to_string());
        LocalSite {
            who_has: who_has.transpose(),
            address: addresses.virtual_address(),
            hosts,
            net: cluster.folder().record().net.to_string(),
            reading: tasks::spawn(info_span!("follow timelines"), follow(files, seen.clone())),
            cluster: tokio::sync::Mutex::new(cluster),
            seen,
        }
    }

    /// Ends the watch and gives the cluster back.
    pub fn into_cluster(self) -> Cluster {
        self.reading.abort();
        self.cluster.into_inner()
    }
}

impl drill::Site for LocalSite {
    fn hosts(&self) -> Vec<String> {
        self.hosts.keys().cloned().collect()
    }

    fn net(&self) -> &str {
        &self.net
    }

    fn api_address(&self, host: &str) -> Option<String> {
        self.hosts.get(host).cloned()
    }

    fn reaches_pods(&self) -> bool {
        true
    }

    fn holders(&self) -> Result<UnboundedReceiver<Held>, String> {
        let (sender, receiver) = unbounded_channel();
        let Some(asker) = &self.who_has else {
            return Err("on loopback the switch gives the address to the host that announced it last".into());
        };
        let (asker, address) = (asker.clone()?, self.address);
        let asking = move || {
            while !sender.is_closed() {
                let at = now();
                let Ok(by) = asker.ask(address, ASKED_EVERY) else { return };
                // A receiver that is gone ends this.
                let _ = sender.send(Held { at, by });
            }
        };
        tasks::thread("who-has", info_span!("ask for the address"), asking)
            .map_err(|error| error.to_string())?;
        Ok(receiver)
    }

    fn can(&self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Partition | Fault::OneWay { .. } | Fault::Flap { .. } | Fault::PacketLoss { .. }
                if self.net == NetKind::Loopback.to_string() =>
            {
                Err("on loopback hosts have no links of their own (--net netns, where the machine allows it)"
                    .into())
            }
            Fault::Component { component }
                if component == Component::AddressKeeper.name()
                    && self.net == NetKind::Loopback.to_string() =>
            {
                Err("on loopback no process keeps a host's addresses (--net netns, where the machine allows it)"
                    .into())
            }
            Fault::Command => Err("commands are for a cluster that runs elsewhere (--kubeconfig)".into()),
            _ => Ok(()),
        }
    }

    fn inject<'a>(&'a self, host: &'a str, fault: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>> {
        Box::pin(async move {
            let mut cluster = self.cluster.lock().await;
            let cut = match fault {
                Fault::PowerOff => cluster.cut(host).await?,
                Fault::ProcessKill => cluster.kill(host).await?,
                Fault::Pause { .. } => cluster.pause(host)?,
                Fault::Partition => cluster.lose(host, Lost::Both, 100)?,
                Fault::OneWay { way: Way::From } => cluster.lose(host, Lost::From, 100)?,
                Fault::OneWay { way: Way::To } => cluster.lose(host, Lost::To, 100)?,
                Fault::Flap { .. } => cluster.link_down(host).await?,
                Fault::PacketLoss { percent, .. } => cluster.lose(host, Lost::Both, percent)?,
                Fault::SlowDisk { stall, .. } => cluster.stall(host, stall)?,
                Fault::FullDisk { .. } => cluster.fill(host).await?,
                Fault::Component { component } => {
                    let known = Component::named(component);
                    let known = known.with_context(|| format!("a host has no component {component}"))?;
                    cluster.kill_component(host, known).await?
                }
                Fault::Restart => cluster.shut_down(host, ENDING).await?,
                Fault::Command => anyhow::bail!("there is no command"),
            };
            Ok(cut.wall)
        })
    }

    fn heal<'a>(&'a self, host: &'a str, fault: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>> {
        Box::pin(async move {
            let mut cluster = self.cluster.lock().await;
            let at = match fault {
                Fault::PowerOff | Fault::ProcessKill | Fault::Restart => {
                    cluster.bury(host).await?;
                    let at = now();
                    cluster.power_on(host).await?;
                    return Ok(at);
                }
                Fault::Pause { .. } => cluster.resume(host)?,
                Fault::Flap { .. } => cluster.link_up(host).await?,
                Fault::SlowDisk { .. } => cluster.stall(host, Duration::ZERO)?,
                Fault::FullDisk { .. } => cluster.empty(host).await?,
                // Another one is the host's own affair.
                Fault::Component { .. } => return Ok(now()),
                Fault::Partition | Fault::OneWay { .. } | Fault::PacketLoss { .. } => {
                    cluster.lose_nothing(host)?
                }
                Fault::Command => anyhow::bail!("there is no command"),
            };
            Ok(at.wall)
        })
    }

    fn leader<'a>(&'a self) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let leader = seen.leader.as_ref().map(|(_, host)| host);
        let holder = seen.holder.as_ref().map(|(_, host)| host);
        let settled = leader.filter(|leader| Some(*leader) == holder).cloned();
        Box::pin(async move { Ok(settled) })
    }

    fn memory<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Option<Memory>> {
        Box::pin(async move {
            let cluster = self.cluster.lock().await;
            Some(Memory { resident: cluster.resident_memory(host)?, peak: cluster.peak_memory(host)? })
        })
    }

    fn forget_peaks(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.cluster.lock().await.forget_peaks() })
    }

    fn timeline(&self) -> UnboundedReceiver<Happening> {
        let (sender, receiver) = unbounded_channel();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).listeners.push(sender);
        receiver
    }
}

/// Reads the hosts' timelines along, for as long as it is let.
async fn follow(files: Vec<PathBuf>, seen: Arc<Mutex<Seen>>) {
    const BETWEEN: Duration = Duration::from_millis(20);
    let mut tails: Vec<Tail> =
        files.into_iter().map(|path| Tail { path, read: 0, rest: Vec::new() }).collect();
    loop {
        for tail in &mut tails {
            for happening in tail.news() {
                seen.lock().unwrap_or_else(PoisonError::into_inner).note(happening);
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

impl Seen {
    fn note(&mut self, happening: Happening) {
        let Happening { at, host, what, fields } = &happening;
        let term: u64 = fields.get("term").and_then(|term| term.parse().ok()).unwrap_or_default();
        match what.as_str() {
            "election-won" if self.leader.as_ref().is_none_or(|(newest, _)| term >= *newest) => {
                self.leader = Some((term, host.clone()));
            }
            "vip-moved" if self.holder.as_ref().is_none_or(|(newest, _)| at >= newest) => {
                self.holder = Some((*at, host.clone()));
            }
            _ => {}
        }
        self.listeners.retain(|listener| listener.send(happening.clone()).is_ok());
    }
}

/// A file that grows by lines.
struct Tail {
    path: PathBuf,
    read: u64,
    rest: Vec<u8>,
}

impl Tail {
    /// What was added since the last look; nothing while the file can't be read.
    fn news(&mut self) -> Vec<Happening> {
        let added = self.added().unwrap_or_default();
        self.rest.extend(added);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let lines: Vec<u8> = self.rest.drain(..=end).collect();
        lines.split(|byte| *byte == b'\n').filter_map(parse).collect()
    }

    fn added(&mut self) -> std::io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        // It was full and made way for a new one (`timeline`'s limit).
        if file.metadata()?.len() < self.read {
            self.read = 0;
            self.rest.clear();
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut added = Vec::new();
        self.read += file.read_to_end(&mut added)? as u64;
        Ok(added)
    }
}

fn parse(line: &[u8]) -> Option<Happening> {
    let Value::Object(mut object) = serde_json::from_slice(line).ok()? else { return None };
    let mut text = |field: &str| match object.remove(field)? {
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    let at = UNIX_EPOCH + Duration::from_micros(text("at_us")?.parse().ok()?);
    let (host, what) = (text("host")?, text("what")?);
    let rest: Vec<String> = object.keys().cloned().collect();
    let mut fields = BTreeMap::new();
    for field in rest {
        if let Some(value) = object.get(&field) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            fields.insert(field, value);
        }
    }
    Some(Happening { at, host, what, fields })
}

#[allow(clippy::disallowed_methods, reason = "a drill compares with the times that hosts write down")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn whole_lines_are_read_as_they_come() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut tail = Tail { path: file.path().to_owned(), read: 0, rest: Vec::new() };
        assert!(tail.news().is_empty());
        write!(file, r#"{{"at_us":1000000,"host":"n1","what":"election-won","term":3}}"#).unwrap();
        assert!(tail.news().is_empty(), "half a line is none");
        write!(file, "\nnot json\n{{\"at_us\":2").unwrap();
        let news = tail.news();
        assert_eq!((news.len(), news[0].host.as_str(), news[0].fields["term"].as_str()), (1, "n1", "3"));
        assert_eq!(news[0].at, UNIX_EPOCH + Duration::from_secs(1));
        writeln!(file, r#"000000,"host":"n2","what":"vip-moved"}}"#).unwrap();
        assert_eq!(tail.news()[0].what, "vip-moved");
    }

    #[test]
    fn the_newest_term_leads() {
        let mut seen = Seen::default();
        let won = |host: &str, term: u64| Happening {
            at: UNIX_EPOCH,
            host: host.into(),
            what: "election-won".into(),
            fields: BTreeMap::from([("term".to_owned(), term.to_string())]),
        };
        seen.note(won("n2", 5));
        seen.note(won("n1", 4));
        assert_eq!(seen.leader, Some((5, "n2".to_owned())));
    }
}
