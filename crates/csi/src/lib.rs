//! Storage drivers by the Container Storage Interface, from a host's side: how a driver registers (`pluginregistration.v1`,
//! [`follow`]), and what its node service is asked (`csi.v1`, [`Driver`]). Drivers are found by what changes in a folder, which
//! [`FolderWatch`] hears.
//!
//! A driver is another program: each call has a time limit and a limit for the answer, and its words are nothing but a reason.
//! What is asked when, the room `node` decides.

mod call;
mod driver;
mod folder_watch;
pub mod messages;
mod registration;

pub use call::Failure;
pub use driver::{Capabilities, Driver, NodeInfo, Publish, Stage};
pub use folder_watch::FolderWatch;
pub use registration::{Plugin, Registrar, follow};
