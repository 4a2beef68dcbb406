//! Addresses of pods, from the host's range. An address is not given again until all others had their turn,
//! and a pod keeps its own for as long as it is bound to the host.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

/// Makes pods' addresses work on this host: the network does.
pub trait PodAddresses: Send + Sync + 'static {
    /// Whether containers' pods can have networks of their own here, by [`connect`](PodAddresses::connect).
    ///
    /// # Errors
    /// Why they can't: then they share the host's network.
    fn own_networks(&self) -> Result<(), String>;

    /// Whether ports at this address of the host (`hostIP`) may lead to its pods.
    ///
    /// # Errors
    /// Why they may not.
    fn check_host_ip(&self, address: IpAddr) -> Result<(), String>;

    /// Makes the host answer on the address.
    fn add(&self, address: IpAddr) -> BoxFuture<'_, io::Result<()>>;

    /// Connects a pod's network namespace with the host's network, and gives it this address, which was added; what comes to
    /// these ports of the host is passed on to it. Fine if it is connected.
    fn connect(
        &self,
        address: IpAddr,
        namespace: OwnedFd,
        ports: Vec<HostPort>,
    ) -> BoxFuture<'_, io::Result<()>>;

    /// The address is not used any more; what was connected with it isn't either.
    fn remove(&self, address: IpAddr) -> BoxFuture<'_, io::Result<()>>;
}

/// A port of the host that leads to one of a pod (`hostPort`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort {
    /// Whether it is for datagrams (UDP); for connections otherwise (TCP).
    pub is_udp: bool,
    /// The address of the host's; None for its own one and its loopback.
    pub address: Option<IpAddr>,
    /// Its number.
    pub number: u16,
    /// The pod's port.
    pub to: u16,
}

/// A range of IPv4 addresses, such as `10.244.1.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PodRange(Ipv4Net);

impl PodRange {
    /// The range that a network is, if pods can have addresses of it: one of IPv4, neither too wide nor too narrow.
    pub(crate) fn of(network: IpNet) -> Option<Self> {
        match network {
            IpNet::V4(v4) if (8..=28).contains(&v4.prefix_len()) => Some(PodRange(v4.trunc())),
            IpNet::V4(_) | IpNet::V6(_) => None,
        }
    }

    /// The same as a network.
    pub(crate) fn network(self) -> IpNet {
        self.0.into()
    }

    fn size(self) -> u32 {
        1 << (32 - self.0.prefix_len())
    }

    /// The address at a place of the range, if pods may have it: not one that ends with 0 or 255, nor the
    /// first (a bridge's); and in a range wider than /24 none of the first 256, where the host's own lies on
    /// loopback.
    fn at(self, offset: u32) -> Option<Ipv4Addr> {
        let address = u32::from(self.0.network()) + offset;
        let reserved = offset < 2 || matches!(address & 0xff, 0 | 0xff) || offset + 1 == self.size();
        let low = self.0.prefix_len() < 24 && offset < 256;
        (!reserved && !low).then(|| address.into())
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        self.0.contains(&address)
    }
}

/// Which pod has which address, and whose turn is next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Book {
    next: u32,
    pods: BTreeMap<String, Ipv4Addr>,
}

/// The host's book of addresses, kept in a file.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: PodRange,
    path: PathBuf,
    book: Book,
}

impl Addresses {
    /// Opens the book; one that can't be read is begun anew: the pods' objects know their addresses too.
    pub(crate) fn open(path: &Path, range: PodRange) -> Self {
        let book = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Book>(&bytes).ok());
        let mut book = book.unwrap_or_default();
        book.pods.retain(|_, address| range.contains(*address));
        Addresses { range, path: path.to_owned(), book }
    }

    /// The pod's address: its own if it has one (`known` is what its object says), else the next free one.
    pub(crate) fn of(&mut self, uid: &str, known: Option<IpAddr>) -> Option<IpAddr> {
        if let Some(address) = self.book.pods.get(uid) {
            return Some((*address).into());
        }
        let taken = |book: &Book, address: Ipv4Addr| book.pods.values().any(|a| *a == address);
        let known = match known {
            Some(IpAddr::V4(known)) if self.range.contains(known) && !taken(&self.book, known) => Some(known),
            _ => None,
        };
        let address = known.or_else(|| {
            (0..self.range.size()).find_map(|_| {
                let offset = self.book.next % self.range.size();
                self.book.next = offset + 1;
                self.range.at(offset).filter(|address| !taken(&self.book, *address))
            })
        })?;
        self.book.pods.insert(uid.to_owned(), address);
        self.write();
        Some(address.into())
    }

    /// The address that a pod has.
    pub(crate) fn known(&self, uid: &str) -> Option<IpAddr> {
        self.book.pods.get(uid).map(|address| (*address).into())
    }

    /// Ends a pod's claim; the address it had.
    pub(crate) fn release(&mut self, uid: &str) -> Option<IpAddr> {
        let address = self.book.pods.remove(uid)?;
        self.write();
        Some(address.into())
    }

    /// The pods that have addresses.
    pub(crate) fn uids(&self) -> Vec<String> {
        self.book.pods.keys().cloned().collect()
    }

    /// Not synced to the disk: after a power cut an older book, or none, is as good.
    fn write(&self) {
        let next = self.path.with_extension("next");
        let bytes = serde_json::to_vec(&self.book).unwrap_or_default();
        let written = std::fs::write(&next, bytes).and_then(|()| std::fs::rename(&next, &self.path));
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "can't write the book of pod addresses");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> PodRange {
        PodRange::of(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn addresses_are_kept_and_not_given_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("addresses.json");
        let mut book = Addresses::open(&path, range("10.244.1.0/28"));
        let text = |a: Option<IpAddr>| a.map(|a| a.to_string()).unwrap_or_default();
        assert_eq!(text(book.of("a", None)), "10.244.1.2");
        assert_eq!(text(book.of("b", None)), "10.244.1.3");
        assert_eq!(text(book.of("a", None)), "10.244.1.2", "its own");
        assert_eq!(text(book.release("a")), "10.244.1.2");
        assert_eq!(text(book.of("c", None)), "10.244.1.4", "not the one just given back");
        assert_eq!(text(book.of("d", "10.244.1.9".parse().ok())), "10.244.1.9", "as its object says");

        let mut again = Addresses::open(&path, range("10.244.1.0/28"));
        assert_eq!(text(again.of("b", None)), "10.244.1.3", "kept over a restart");
        let more: Vec<_> = (0..20).filter_map(|n| again.of(&format!("m{n}"), None)).collect();
        assert_eq!(more.len(), 10, "thirteen in all: {more:?}");
        for uid in again.uids().into_iter().filter(|uid| uid != "b") {
            again.release(&uid);
        }
        assert!(again.of("late", None).is_some());
    }

    #[test]
    fn ranges_leave_out_what_is_not_the_pods() {
        let mut book = Addresses::open(Path::new("/nonexistent/x"), range("127.1.0.0/16"));
        assert_eq!(book.of("a", None), "127.1.1.1".parse().ok());
        for wrong in ["10.0.0.0/7", "10.0.0.0/30", "::/64"] {
            assert_eq!(PodRange::of(wrong.parse().unwrap()), None, "{wrong}");
        }
    }
}
