//! The store under a seed: members, their disks, clocks and clients and the network between them in one
//! thread, with faults of every kind, and checkers that hold what the clients saw to what the store promises.
//! What runs is the engine's own core, log, wire and map; only what touches the world is played.

mod chronicle;
mod clients;
mod disk;
mod driver;
mod faults;
mod history;
mod linearizability;
mod member;
mod members;
mod network;
pub mod real;
mod report;
mod run;
mod watchers;
mod weather;
mod world;

pub use report::{Failure, Report};
pub use run::{
    Outages, Seed, elections_after_crash, full_leader, outages, run, running, slow_disks, slow_leader,
};
pub use world::Mistake;
