//! Whole clusters on this machine, driven by clients that share no code with Holdfast: `kube` everywhere,
//! `kubectl` where it is installed.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests wait for real clusters, and give up in the end")]

mod api;
mod backup;
mod bad_input;
mod certificates;
mod check;
mod containers;
mod custom_resources;
mod cut_off;
mod described;
mod drain;
mod drill;
mod durability;
mod earlier;
mod etcdctl;
mod full_disk;
mod harness;
mod in_cluster;
mod jobs;
mod joining;
mod kube_client;
mod kubectl;
mod leftovers;
mod load_balancers;
mod lost_disk;
mod metrics;
mod names;
mod on_etcd;
mod package;
mod pause;
mod predict;
mod python;
mod service;
mod stateful;
mod static_pods;
mod status;
mod storage_drivers;
mod streams;
mod survival;
mod terminal;
mod users;
mod volumes;
mod workloads;
