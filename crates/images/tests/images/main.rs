//! The store as its users see it: archives and layouts come in, images are found, stacked and removed.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

mod debian;
mod import;
mod made;
mod mounted;
mod pull;
mod registry;
mod shared;
