//! Telling the switch of a cluster on loopback which addresses this host stands for.
//!
//! One JSON datagram holds all of them, for what a host no longer lists it has given up.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use membership::LeasePage;
use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::{Error, Protocol};

/// How often all is announced again. A datagram may be lost and the switch may be new: after this time it knows all the same.
const INTERVAL: Duration = Duration::from_millis(100);
/// The largest datagram that loopback carries for certain, with room for the headers.
const LARGEST: usize = 60_000;

/// An address that this host stands for, and where it takes its connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    pub kind: AddressKind,
    pub address: IpAddr,
    pub port: u16,
    pub protocol: Protocol,
    pub target: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AddressKind {
    Vip,
    Service,
}

#[derive(Serialize)]
struct Announcement<'a> {
    host: &'a str,
    entries: Vec<&'a Entry>,
}

/// What a host stands for, as it changes.
#[derive(Debug)]
pub(crate) struct Stands {
    /// Services' addresses. Of those that one host holds alone, only what is in `held` is announced.
    pub services: watch::Receiver<Vec<Entry>>,
    /// The API's virtual address.
    pub virtual_address: watch::Receiver<Option<Entry>>,
    /// The addresses of services that this host holds.
    pub held: watch::Receiver<BTreeSet<IpAddr>>,
    /// The lease with which it gives them up; and until when it stands for the API.
    pub lease: LeasePage,
}

/// Announces what it is given until the end of the network: at every change, and every 100 ms.
#[derive(Debug)]
pub(crate) struct Announcer {
    host: String,
    socket: UdpSocket,
    stands: Stands,
}

impl Announcer {
    pub async fn new(host: &str, from: IpAddr, switch: SocketAddr, stands: Stands) -> Result<Self, Error> {
        let open = async || {
            let socket = UdpSocket::bind((from, 0)).await?;
            socket.connect(switch).await?;
            io::Result::Ok(socket)
        };
        let socket = open().await.map_err(|why| Error::Socket { what: "the switch", why })?;
        Ok(Announcer { host: host.to_owned(), socket, stands })
    }

    /// Runs until `stop`; then it takes everything back.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let (datagram, left_out) = self.datagram();
            if left_out > 0 {
                tracing::warn!(left_out, "more services than an announcement holds: some are not reachable");
            }
            // A switch that isn't there (yet) gets the next one soon.
            let _ = self.socket.send(&datagram).await;
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = self.stands.services.changed() => {}
                Ok(()) = self.stands.virtual_address.changed() => {}
                Ok(()) = self.stands.held.changed() => {}
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        let nothing = encode(&Announcement { host: &self.host, entries: Vec::new() });
        let _ = self.socket.send(&nothing).await;
    }

    /// The datagram, and how many entries had no room in it.
    fn datagram(&mut self) -> (Vec<u8>, usize) {
        let Stands { services, virtual_address, held, lease } = &mut self.stands;
        // A process that was stopped for a while may not have given them up yet.
        let (is_over, leads) = (lease.remaining().is_zero(), !lease.leading().remaining().is_zero());
        let virtual_address = virtual_address.borrow_and_update();
        let (services, held) = (services.borrow_and_update(), held.borrow_and_update());
        let stands = |entry: &&Entry| match entry.kind {
            AddressKind::Service => true,
            AddressKind::Vip => !is_over && held.contains(&entry.address),
        };
        let mut entries: Vec<&Entry> =
            virtual_address.iter().filter(|_| leads).chain(services.iter().filter(stands)).collect();
        let all = entries.len();
        loop {
            let datagram = encode(&Announcement { host: &self.host, entries: entries.clone() });
            if datagram.len() <= LARGEST || entries.is_empty() {
                return (datagram, all - entries.len());
            }
            entries.truncate(entries.len() * LARGEST / datagram.len());
        }
    }
}

fn encode(announcement: &Announcement<'_>) -> Vec<u8> {
    // Writing plain structs to memory can't fail.
    serde_json::to_vec(announcement).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: AddressKind, port: u16) -> Entry {
        let target = ([127, 0, 1, 1], 6443).into();
        Entry { kind, address: [127, 0, 0, 100].into(), port, protocol: Protocol::Tcp, target }
    }

    async fn announcer(
        services: Vec<Entry>,
        switch: SocketAddr,
    ) -> (Announcer, watch::Sender<Option<Entry>>, watch::Sender<BTreeSet<IpAddr>>) {
        let (vip, virtual_address) = watch::channel(None);
        let (holds, held) = watch::channel(BTreeSet::new());
        let services = watch::Sender::new(services).subscribe();
        let from = [127, 0, 0, 1].into();
        let lease = LeasePage::create().unwrap();
        let long = Some(membership::boottime() + Duration::from_secs(3600));
        lease.set(1, long);
        lease.leading().set(1, long);
        let stands = Stands { services, virtual_address, held, lease };
        (Announcer::new("n1", from, switch, stands).await.unwrap(), vip, holds)
    }

    #[tokio::test]
    async fn the_switch_hears_of_a_change_and_of_the_end() {
        let switch = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other: IpAddr = [127, 0, 0, 200].into();
        let balanced = Entry { address: other, ..entry(AddressKind::Vip, 80) };
        let (announcer, vip, holds) = announcer(vec![balanced], switch.local_addr().unwrap()).await;
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(announcer.run(stop.subscribe()));
        let mut buffer = [0; 2048];
        let mut hear = async |wanted: &str| {
            loop {
                let length = switch.recv(&mut buffer).await.unwrap();
                if buffer[..length] == *wanted.as_bytes() {
                    return;
                }
            }
        };
        hear(r#"{"host":"n1","entries":[]}"#).await;
        vip.send_replace(Some(entry(AddressKind::Vip, 6443)));
        let held = r#"{"host":"n1","entries":[{"kind":"vip","address":"127.0.0.100","port":6443,"protocol":"TCP","target":"127.0.1.1:6443"}]}"#;
        hear(held).await;
        hear(held).await;
        vip.send_replace(None);
        hear(r#"{"host":"n1","entries":[]}"#).await;
        holds.send_replace([other].into());
        hear(&held.replace(r#"0.100","port":6443"#, r#"0.200","port":80"#)).await;
        holds.send_replace(BTreeSet::new());
        hear(r#"{"host":"n1","entries":[]}"#).await;
        stop.send_replace(true);
        hear(r#"{"host":"n1","entries":[]}"#).await;
        task.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_host_held_by_a_lease_that_is_over_is_not_announced() {
        let balanced = entry(AddressKind::Vip, 80);
        let (mut announcer, vip, holds) =
            announcer(vec![balanced.clone()], "127.0.0.1:9".parse().unwrap()).await;
        holds.send_replace([balanced.address].into());
        assert!(String::from_utf8(announcer.datagram().0).unwrap().contains("vip"));
        announcer.stands.lease.set(1, None);
        assert!(!String::from_utf8(announcer.datagram().0).unwrap().contains("vip"));
        vip.send_replace(Some(balanced));
        assert!(String::from_utf8(announcer.datagram().0).unwrap().contains("vip"), "it leads");
        announcer.stands.lease.leading().set(1, None);
        assert!(!String::from_utf8(announcer.datagram().0).unwrap().contains("vip"));
    }

    #[tokio::test]
    async fn an_announcement_fits_into_a_datagram_with_the_virtual_address_in_it() {
        let services = (1..=u16::MAX).map(|port| entry(AddressKind::Service, port)).collect();
        let (mut announcer, vip, _) = announcer(services, "127.0.0.1:9".parse().unwrap()).await;
        vip.send_replace(Some(entry(AddressKind::Vip, 6443)));
        let (datagram, left_out) = announcer.datagram();
        assert!(datagram.len() <= LARGEST && datagram.len() > LARGEST / 2, "{}", datagram.len());
        assert!(left_out > 0);
        let text = String::from_utf8(datagram).unwrap();
        assert!(text.starts_with(r#"{"host":"n1","entries":[{"kind":"vip""#));
    }
}
