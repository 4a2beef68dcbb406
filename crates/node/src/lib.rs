//! The agent of a host, the kubelet's part: it says that the host is there and what it is, turns the pods
//! bound to it into processes (runtime `host`), which a shim a pod holds, watches over them with probes, restarts and orderly ends,
//! keeps what they print, and says of each how it is. It reads from the store's state and writes through
//! [`objects::Writer`] as `system:node:NAME`. What to do is decided without I/O; a thin driver does it.

mod about;
mod addresses;
mod agent;
mod clock;
mod container;
mod csi_volumes;
mod eviction;
mod foreign;
mod host;
mod image_garbage;
mod images;
mod manifests;
mod node;
mod oci;
mod own_file;
mod pod;
mod pods;
mod probe;
mod removed_volumes;
mod runtime;
mod runtimes;
mod server;
mod shim;
mod shims;
mod stats;
mod streams;

pub use addresses::{HostPort, PodAddresses};
pub use agent::{
    Agent, Error, Foreign, HostLease, Options, ShutdownGroup, end_all_pods, end_former_pods,
    end_of_leased_pods, pods_dir,
};
pub use container::cgroup::roots as cgroup_roots;
pub use eviction::{Bound, Eviction, Signal, Threshold};
pub use foreign::{CNI_PLUGIN, run_cni_plugin};
pub use images::{Image, ImageError, Images, Present, PullSecret, images_in_use};
pub use shim::{SHIM, run_shim};

/// What reads bytes from outside, for those who look for mistakes in it: a program has no use for these.
pub mod parts {
    pub use crate::streams::{read_spdy, spdy};
}
