//! Where the state lies: room, kind, and how long a sync takes.

use std::time::Duration;

use super::{as_root, bytes, milliseconds};
use crate::facts::{Disk, Facts, Syncs};
use crate::finding::{Group, Section};

/// The kubelet's thresholds (`evictionHard`): nodefs.available, nodefs.inodesFree; in percent.
const LEAST_FREE: u64 = 10;
const LEAST_INODES: u64 = 5;
/// The store keeps 64 MiB free, and a snapshot, an image or a log may take the rest of this at once.
const SO_LITTLE: u64 = 256 << 20;
/// What a message between hosts takes there and back where it couldn't be measured: in one data centre, with the time until somebody reads it.
const MESSAGE: Duration = Duration::from_millis(1);
/// Raft wants elections to wait for so many times as long as a message and its sync take (`defaults.yaml`).
const TIMES: u32 = 10;
/// Suggested times are multiples of it.
const GRAIN: u128 = 10;

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Disk);
    match &facts.disk {
        Err(why) => section.unseen("disk", why, as_root(facts, "see `df` and `dmesg`")),
        Ok(disk) => {
            kind(disk, &mut section);
            room(disk, &mut section);
            match &disk.syncs {
                None => section.note(
                    "sync",
                    "the state lies in an etcd: what this disk's syncs take doesn't matter to elections",
                ),
                Some(Err(why)) => section.unseen(
                    "sync",
                    format!("syncs in {} can't be measured: {why}", disk.at.display()),
                    as_root(facts, "see that files can be written there"),
                ),
                Some(Ok(syncs)) => latency(facts, syncs, &mut section),
            }
        }
    }
    section
}

fn kind(disk: &Disk, section: &mut Section) {
    let (at, kind) = (disk.at.display(), &disk.kind);
    if disk.read_only {
        section.fault(
            "file-system",
            format!("{at} is read-only: nothing can be written"),
            format!("mount -o remount,rw, and see why it is (dmesg); or set dataDir elsewhere than {at}"),
        );
        return;
    }
    match kind.as_str() {
        "tmpfs" | "ramfs" => section.warning(
            "file-system",
            format!("{at} lies in memory ({kind}): the state is lost with the machine's power"),
            "set dataDir to a folder on a disk",
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "fuse.sshfs" | "9p" | "ceph" | "fuse.glusterfs" => section
            .warning(
                "file-system",
                format!("{at} lies on other machines ({kind}): when they stop, this host stops with them"),
                "set dataDir to a folder on a disk of this machine",
            ),
        "overlay" => section.warning(
            "file-system",
            format!("{at} lies on an overlayfs, which can't carry the roots of containers"),
            "set dataDir to a folder on a file system of its own, such as a volume",
        ),
        _ => section.ok("file-system", format!("{at} lies on {kind}")),
    }
}

fn room(disk: &Disk, section: &mut Section) {
    let what = format!("{} of {} are free", bytes(disk.free), bytes(disk.size));
    let percent = |part: u64, whole: u64| u128::from(part) * 100 / u128::from(whole.max(1));
    let remedy = "remove what nobody needs (holdfast image rm, old logs), or enlarge the file system";
    if disk.free < SO_LITTLE {
        section.fault(
            "room",
            format!("{what}: the store soon takes no writes, since it keeps 64 MiB free"),
            remedy,
        );
    } else if percent(disk.free, disk.size) < u128::from(LEAST_FREE) {
        section.warning("room", format!("{what}, less than {LEAST_FREE} %"), remedy);
    } else {
        section.ok("room", what);
    }
    if disk.inodes > 0 {
        let free = percent(disk.inodes_free, disk.inodes);
        let what = format!("{} of {} inodes are free", disk.inodes_free, disk.inodes);
        match free < u128::from(LEAST_INODES) {
            true => section.warning("inodes", format!("{what}, less than {LEAST_INODES} %"), remedy),
            false => section.ok("inodes", what),
        }
    }
}

/// Which elections the disk allows, and those that it should have.
fn latency(facts: &Facts, syncs: &Syncs, section: &mut Section) {
    const CHECK: &str = "sync";
    let store = facts.plan.timeouts().store;
    let message = message(facts).unwrap_or(MESSAGE);
    let (usual, slow) = ((message + syncs.p50) * TIMES, (message + syncs.p99) * TIMES);
    let what = format!(
        "{} syncs of 4 KiB took {} (p50), {} (p99), {} (the longest)",
        syncs.count,
        milliseconds(syncs.p50),
        milliseconds(syncs.p99),
        milliseconds(syncs.longest)
    );
    let rule = |time: Duration| {
        format!("ten times that and a message of {} is {}", milliseconds(message), milliseconds(time))
    };
    let min = store.election_min;
    let has = format!("timeouts.store.electionMin is {}", milliseconds(min));
    if usual > min {
        section.fault(
            CHECK,
            format!("{what}; {} and {has}: elections begin while the disk is at its usual work", rule(usual)),
            remedy(facts, slow),
        );
    } else if slow > min {
        section.warning(
            CHECK,
            format!("{what}; {} and {has}: elections may begin without a fault", rule(slow)),
            remedy(facts, slow),
        );
    } else if syncs.longest > store.disk_stall {
        section.warning(
            CHECK,
            format!(
                "{what}; where others' disks are faster, a leader hands over when a sync takes longer than timeouts.store.diskStall, {}",
                milliseconds(store.disk_stall)
            ),
            "keep others' writes off this disk, or take a faster one",
        );
    } else {
        section.ok(CHECK, format!("{what}; {}, and {has}", rule(slow)));
    }
}

/// Times that do: all of the store's together, on all hosts, as they are made for each other.
fn remedy(facts: &Facts, needed: Duration) -> String {
    let store = facts.plan.timeouts().store;
    let min =
        Duration::from_millis(u64::try_from(needed.as_millis().div_ceil(GRAIN) * GRAIN).unwrap_or(u64::MAX));
    let max = (min * 2).max(store.election_max);
    format!(
        "set timeouts.store on all hosts to electionMin: {}ms, electionMax: {}ms, diskStall: {}ms; or give the data folder a faster disk",
        min.as_millis(),
        max.as_millis(),
        max.max(store.disk_stall).as_millis(),
    )
}

/// The longest way to another member, as it was measured.
fn message(facts: &Facts) -> Option<Duration> {
    let cluster = facts.cluster.as_ref()?.as_ref().ok()?;
    let own = facts.plan.config.as_ref().map(|config| config.name.as_str());
    let others = cluster.peers.iter().filter(|(name, _)| Some(name.as_str()) != own);
    others.filter_map(|(_, peer)| peer.way.as_ref().ok()).map(|way| way.time).max()
}
