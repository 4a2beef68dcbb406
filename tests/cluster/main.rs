//! Whole clusters on this machine, driven by clients that share no code with Holdfast: `kube` everywhere,
//! `kubectl` where it is installed.

mod api;
mod bad_input;
mod drill;
mod durability;
mod full_disk;
mod harness;
mod kubectl;
