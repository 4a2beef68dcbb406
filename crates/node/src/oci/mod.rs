//! Containers with a root of their own: each a bundle as the Open Container Initiative has it, made by the agent out of a pod and
//! an image, and carried out by the pod's shim.

mod app_armor;
mod bundle;
mod image;
mod probe;
mod profiles;
mod run;
mod seccomp;
mod security;
mod spec;

pub(crate) use app_armor::{AppArmor, refused_by_app_armor};
pub(crate) use bundle::{MASKED, Parts, READ_ONLY, Sandbox, config_file, oom_score, spec};
pub(crate) use image::accounts;
pub(crate) use probe::probe;
pub(crate) use profiles::HostAppArmor;
pub(crate) use run::{
    Bundle, Held, InMemory, PATH, WRITTEN, Wanted, exec, host_devices, processes_of, start,
};
pub(crate) use security::{Given, Security, Who};
pub(crate) use spec::{ImageMount, Mapping, Namespace, NamespaceKind, Spec};
