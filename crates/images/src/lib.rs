//! Container images on a host's disk, without containerd: what images there are, what is in them, and each of their layers as a
//! folder of overlayfs' own form.
//!
//! A [`Store`] is a folder. [`Store::import`] brings in archives and layouts, a [`Puller`] what registries have, and [`Store::find`]
//! gives the [`Image`] that a pod names; [`save`] makes one. A layer is unpacked once, whichever images have it, and appears whole or not at all.
//! A [`Collector`] decides what goes when the disk fills up.
//!
//! ```no_run
//! let store = images::Store::open("/var/lib/holdfast/images")?;
//! store.import("busybox.tar".as_ref(), None)?;
//! if let Some(image) = store.find("busybox:1.36")? {
//!     println!("{} starts {:?} on {:?}", image.digest, image.config.command(&[], &[]), image.layers);
//! }
//! # Ok::<(), images::Error>(())
//! ```

mod archive;
mod collect;
mod compression;
mod config;
mod digest;
mod error;
mod import;
mod index;
mod manifest;
pub mod parts;
mod platform;
mod pull;
mod reference;
mod removal;
mod save;
mod store;
mod temporary;
mod unpack;

pub use collect::{Collector, DiskUsage, Inventory, Thresholds, Verdict};
pub use config::Config;
pub use digest::{Algorithm, Digest};
pub use error::{Error, Reason};
pub use platform::Platform;
pub use pull::{Credentials, Keyring, Patience, Puller, Registries, Registry, Settings};
pub use reference::Reference;
pub use removal::{InUse, Removed};
pub use save::{SavedFile, save};
pub use store::{Image, Options, Store};
pub use unpack::{Limits, Overlay};
