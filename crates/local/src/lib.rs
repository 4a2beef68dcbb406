//! A whole cluster on one machine: its folder, its hosts as processes, the links and the switch between them,
//! and their power. With network namespaces every host has a link of its own that can be cut; on loopback the
//! hosts are ordinary processes on 127.0.0.0/8, this process stands for the switch, and a cut freezes a host
//! with all that runs on it. Order matters at the start of a program: [`split_off`], [`stand_guard`],
//! [`Island::enter`] and [`OwnDisks::mount`] come first, in this order, while the process has one thread.

mod addresses;
mod cluster;
mod component;
mod detach;
mod disks;
mod ferry;
mod folder;
mod guard;
mod island;
mod kubeconfig;
mod link;
mod loss;
mod outside;
mod power;
mod process;
mod relay;
mod running;
mod single_thread;
mod stall;
mod switch;
mod tree;
mod watch;
mod who_has;

pub use addresses::{Addresses, MOST_NODES, NetKind};
pub use cluster::{Cluster, Cut, Error as ClusterError, Net, Options};
pub use component::Component;
pub use detach::{Error as DetachError, Front, split_off};
pub use disks::{Disks, Error as DisksError, OwnDisks};
pub use ferry::{Crossing, Ferry};
pub use folder::{ClusterPlan, ClusterRecord, Error as FolderError, Folder};
pub use guard::{Error as GuardError, stand_guard};
pub use island::{Error as IslandError, Island, Permission};
pub use kubeconfig::kubeconfig;
pub use link::{Bridge, Error as LinkError, HostNamespace};
pub use loss::Lost;
pub use outside::Outside;
pub use process::Error as ProcessError;
pub use relay::{Forward, forward};
pub use running::Running;
pub use switch::{AddressKind, Announcement, Entry, Error as SwitchError, Protocol, Switch, SwitchAddresses};
pub use tree::Error as TreeError;
pub use who_has::WhoHas;
