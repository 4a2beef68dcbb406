//! The in-process proxy: a listener for every address of every Service.

mod listeners;
mod opening;
mod tcp;
mod udp;

pub(crate) use listeners::{ListenAt, Proxy};
