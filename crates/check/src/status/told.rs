//! What hosts say of themselves and of each other: the answers of the API at two paths of its own. A host of another version may say
//! more, which is left out, and what it doesn't know is as it is by default.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Where a host says how all of them are: a [`ClusterSays`].
pub const CLUSTER_PATH: &str = "/holdfast/status";
/// Where a host says how it is itself: a [`HostSays`].
pub const HOST_PATH: &str = "/holdfast/status/host";

/// How all hosts are, as one of them found it out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSays {
    /// The host that was asked.
    pub asked: String,
    /// What came of asking each host, itself among them.
    pub hosts: BTreeMap<String, HostAnswer>,
    /// The members of the hosts' own store; none where the state lies in an etcd.
    pub members: Option<Vec<MemberSays>>,
    /// The API's virtual address.
    pub virtual_api: SocketAddr,
}

/// What came of asking a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostAnswer {
    /// What it says.
    Says(Box<HostSays>),
    /// It wasn't asked, since no heartbeats come from it: for how many seconds.
    Silent(f64),
    /// Its heartbeats come, and it gave no answer that can be used: why.
    Fails(String),
}

/// How a host is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostSays {
    /// The version of its program.
    pub version: String,
    /// Who leads, as it sees it.
    pub leader: Option<String>,
    /// Whether it leads itself.
    pub leads: bool,
    /// The newest revision that it knows.
    pub revision: u64,
    /// How many milliseconds it took to come up with all that was written when it was asked; none where it took too long.
    pub caught_up_ms: Option<f64>,
    /// Its lease.
    pub lease: LeaseSays,
    /// The certificates that it uses, and those that it believes.
    #[serde(default)]
    pub certificates: Vec<CertificateSays>,
}

/// What a host knows of its own lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseSays {
    /// For how many seconds from now it may count on it; 0 if it holds none.
    pub seconds: f64,
    /// Its epoch.
    pub epoch: u64,
}

/// The end of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateSays {
    /// The name of its file.
    pub file: String,
    /// When it ends.
    pub until: Timestamp,
}

/// A member of the hosts' own store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberSays {
    /// Its name; empty for one that was added without a name and has not come yet.
    pub name: String,
    /// Where the others reach it.
    pub address: IpAddr,
    /// Whether it follows without a vote.
    pub is_learner: bool,
    /// Whether it ever took part.
    pub has_joined: bool,
}
