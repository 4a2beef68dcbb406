//! The pods that a host runs by itself (static pods): manifests in a folder of the host, as the API would judge them.

mod copies;
mod follow;
mod manifest;
mod shelf;

pub(crate) use follow::{StaticPods, follow_manifests};
pub(crate) use manifest::StaticPod;
