//! The in-process proxy: a listener for every address of every Service.

mod listeners;
mod tcp;
mod udp;

pub(crate) use listeners::{Listeners, Place};
