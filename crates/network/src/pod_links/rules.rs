//! What this host's kernel does with the packets of pods: a table of nftables of our own (`nft list table ip holdfast`).
//!
//! Two rules. Nobody outside of the cluster knows where pods' addresses are, so what pods send there goes out in the host's
//! name. And what comes in by a pod's link in another name than the pod's is dropped; the kernel's own check at the link
//! (`rp_filter`) is there too, but others set it as they like: udev lets `systemd-sysctl` go over each link that appears.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use nftables::{
    Change, Family, Hook, News, append, chain, create_set, create_table, dropped, expression, is_in,
    link_name, load_address, number, remove_table,
};
use tokio::time::{sleep, timeout};

use crate::Error;
use crate::keeper::{EVERY, TOGETHER};
use crate::packets::{ADDRESS, ADDRESS_TYPE, FROM, TO, within};

/// The table's name, and its chains': what goes out, and who sends.
const TABLE: &str = "holdfast";
const OUT: &str = "out";
const SENDERS: &str = "senders";
/// The sets: the links of pods by name, and each of them together with its pod's address. Each has a number within a transaction.
const LINKS: (&str, u32) = ("links", 1);
const NAMES: (&str, u32) = ("names", 2);
/// How long a link's name is for the kernel.
const NAME: usize = 16;
/// What `nft` takes elements for: names of links, and how it writes that something else follows.
const NAME_TYPE: u32 = 41;
const TYPE_BITS: u32 = 6;

/// The rules, with the pods that they know.
#[derive(Debug)]
pub(crate) struct Rules {
    pods: Ipv4Net,
    cluster: Ipv4Net,
    known: Mutex<BTreeSet<Ipv4Addr>>,
}

impl Rules {
    /// Puts the rules in place of what a former life left: what this host's `pods` say to anybody outside of the `cluster`,
    /// all hosts' pods, goes out in the host's name. Pods of a former life that live on are `known`.
    ///
    /// # Errors
    /// If the kernel has no nftables, or refuses.
    pub fn put(pods: Ipv4Net, cluster: Ipv4Net, known: BTreeSet<Ipv4Addr>) -> Result<Self, Error> {
        let rules = Rules { pods: pods.trunc(), cluster: cluster.trunc(), known: Mutex::new(known) };
        rules.put_all(&rules.known()).map_err(failed)?;
        Ok(rules)
    }

    /// From now on nothing comes in by this pod's link but in its name.
    ///
    /// # Errors
    /// If the kernel refuses: then that doesn't hold.
    pub fn add(&self, pod: Ipv4Addr) -> Result<(), Error> {
        let mut known = self.known();
        if known.insert(pod)
            && transact(&elements(number::NEW_ELEMENTS, [pod])).is_err()
            // The table may be gone, and that not noticed yet.
            && let Err(why) = self.put_all(&known)
        {
            known.remove(&pod);
            return Err(failed(why));
        }
        Ok(())
    }

    /// This pod's link is gone.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove(&self, pod: Ipv4Addr) -> Result<(), Error> {
        let mut known = self.known();
        if !known.remove(&pod) {
            return Ok(());
        }
        let removed = transact(&elements(number::DELETE_ELEMENTS, [pod]));
        removed.or_else(|_| self.put_all(&known)).map_err(failed)
    }

    /// Puts the rules again whenever they are gone: firewalls that are loaded anew begin by emptying nftables as a whole
    /// (`flush ruleset`, as in what Debian gives for an /etc/nftables.conf).
    pub async fn keep(&self) {
        let news = News::listen();
        if let Err(error) = &news {
            tracing::warn!(%error, "the kernel doesn't say when nftables change; they are looked at from time to time");
        }
        let mut refused = None;
        loop {
            let mended = self.mend();
            match &mended {
                Ok(false) => {}
                Ok(true) => tracing::warn!(
                    "another program took the rules about pods out of nftables (table ip {TABLE}); they are there again"
                ),
                Err(error) if refused.as_ref() == Some(&error.to_string()) => {}
                Err(error) => {
                    tracing::warn!(%error, "the rules about pods may be missing; they are tried again")
                }
            }
            refused = mended.err().map(|error| error.to_string());
            match &news {
                // The kernel drops news when nobody reads it in time: a look in any case.
                Ok(news) => {
                    if timeout(EVERY, news.next()).await.is_ok() {
                        sleep(TOGETHER).await;
                        news.forget();
                    }
                }
                Err(_) => sleep(EVERY).await,
            }
        }
    }

    /// Puts the rules if they aren't there; whether that was so.
    fn mend(&self) -> Result<bool, Error> {
        let known = self.known();
        if is_whole().map_err(failed)? {
            return Ok(false);
        }
        self.put_all(&known).map_err(failed)?;
        Ok(true)
    }

    /// While it is held, no other change is made: the kernel's sets are as what is known.
    fn known(&self) -> MutexGuard<'_, BTreeSet<Ipv4Addr>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_all(&self, known: &BTreeSet<Ipv4Addr>) -> io::Result<()> {
        let mut changes = self.table();
        changes.extend(elements(number::NEW_ELEMENTS, known.iter().copied()));
        transact(&changes)
    }

    /// The table as a whole, without its elements.
    fn table(&self) -> Vec<Change> {
        let goes_out = Hook { place: number::POST_ROUTING, priority: number::NAT_SOURCE };
        let comes_in = Hook { place: number::PRE_ROUTING, priority: number::RAW };
        vec![
            // That it is there is no condition of its removal then.
            create_table(TABLE),
            remove_table(TABLE),
            create_table(TABLE),
            create_set(TABLE, LINKS, NAME_TYPE, NAME),
            create_set(TABLE, NAMES, (NAME_TYPE << TYPE_BITS) | ADDRESS_TYPE, NAME + ADDRESS),
            chain(TABLE, OUT, "nat", goes_out),
            append(TABLE, OUT, &out(self.pods, self.cluster)),
            chain(TABLE, SENDERS, "filter", comes_in),
            append(TABLE, SENDERS, &in_no_other_name()),
        ]
    }
}

/// Takes the rules away, if there are any.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn remove_all() -> Result<(), Error> {
    // That the table is there is no condition of its removal then.
    transact(&[create_table(TABLE), remove_table(TABLE)]).map_err(failed)
}

fn transact(changes: &[Change]) -> io::Result<()> {
    nftables::transact(Family::Ipv4, changes)
}

fn rules_of(chain: &str) -> io::Result<u32> {
    nftables::rules_of(Family::Ipv4, TABLE, chain)
}

fn failed(why: io::Error) -> Error {
    Error::Setting { file: "the rules about pods (nftables)".into(), why }
}

/// Whether all rules are there.
fn is_whole() -> io::Result<bool> {
    Ok(rules_of(OUT)? > 0 && rules_of(SENDERS)? > 0)
}

/// Pods' elements of both sets.
fn elements(kind: u16, pods: impl IntoIterator<Item = Ipv4Addr>) -> Vec<Change> {
    let (mut links, mut names) = (Vec::new(), Vec::new());
    for pod in pods {
        let mut key = super::name(pod).into_bytes();
        key.resize(NAME, 0);
        links.push(key.clone());
        key.extend(pod.octets());
        names.push(key);
    }
    let mut changes = nftables::elements(kind, TABLE, LINKS.0, &links);
    changes.extend(nftables::elements(kind, TABLE, NAMES.0, &names));
    changes
}

/// From `pods`, to none of the `cluster`: in the name of the link by which it goes out.
///
/// Not even to the other hosts in a pod's own name, though they know the way back: they share their network with machines that
/// don't, hosts come and go, and the virtual address moves. A rule that depends on none of that is never late.
fn out(pods: Ipv4Net, cluster: Ipv4Net) -> Vec<Vec<u8>> {
    let mut parts = within(FROM, pods, number::EQUAL);
    parts.extend(within(TO, cluster, number::NOT_EQUAL));
    parts.push(expression("masq", &[]));
    parts
}

/// By the link of a pod, in none but its name: dropped.
fn in_no_other_name() -> Vec<Vec<u8>> {
    let link = || link_name(number::NAME_OF_LINK);
    vec![
        link(),
        is_in(LINKS, true),
        link(),
        // Behind the name, as in the set.
        load_address(number::NEXT_REGISTER, FROM),
        is_in(NAMES, false),
        dropped(),
    ]
}

#[cfg(test)]
mod tests;
