//! etcd's gRPC API, both sides of it: [`serve`] lets `etcdctl` and every etcd client speak to a store,
//! [`Client`] speaks to an etcd, and [`Engine`] is a store whose state lies in one.
//!
//! The messages are [`proto`], written by hand; gRPC is a few hundred lines on the HTTP/2 that is here anyway.

mod client;
mod engine;
mod numbers;
/// etcd's messages, by its own names.
#[allow(missing_docs)] // etcd's API reference documents each of them under these very names.
pub mod proto;
mod server;
mod transport;

pub use client::{Client, WatchCall};
pub use engine::{Config, Engine, EngineError};
pub use grpc::{Code, Status};
pub use server::{Members, ServedCluster, serve};
pub use transport::{Endpoint, Tls};
