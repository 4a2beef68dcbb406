//! Container runtimes by the Container Runtime Interface (`runtime.v1`), from a host's side: containerd, CRI-O, or another that
//! listens at a unix socket.
//!
//! A runtime is another program: each call has a time limit and a limit for the answer, and its words are nothing but a reason.
//! What is asked when, the room `node` decides.

mod client;
pub mod messages;

pub use client::{Client, Endpoint, Failure, WrongEndpoint};
