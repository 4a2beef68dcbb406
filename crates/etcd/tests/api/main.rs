//! The same requests to this store and, where it is installed, to a real etcd: the answers must be the same.
#![allow(clippy::disallowed_methods)] // A test is a driver.
#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

mod backup;
mod bad_input;
mod compare;
mod etcdctl;
mod servers;
mod tls;
