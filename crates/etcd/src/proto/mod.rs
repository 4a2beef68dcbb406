//! The messages of etcd's API v3, by hand: names and field numbers are those of etcd's `kv.proto` and
//! `rpc.proto`, whose reference documents each of them. Written out rather than generated, so that building
//! needs no `protoc`.

mod cluster;
mod key_value;
mod lease;
mod maintenance;
mod watch;

pub use cluster::*;
pub use key_value::*;
pub use lease::*;
pub use maintenance::*;
pub use watch::*;

/// On every answer: who gave it, and at which revision.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponseHeader {
    #[prost(uint64, tag = "1")]
    pub cluster_id: u64,
    #[prost(uint64, tag = "2")]
    pub member_id: u64,
    #[prost(int64, tag = "3")]
    pub revision: i64,
    #[prost(uint64, tag = "4")]
    pub raft_term: u64,
}
