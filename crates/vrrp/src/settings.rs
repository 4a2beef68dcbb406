//! What a user writes down.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The virtual routers that a host takes part in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// The virtual routers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<Instance>,
    /// Which of them do as one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<SyncGroup>,
    /// Programs that say whether the host is well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<Script>,
}

/// A virtual router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Instance {
    /// Its name on this host, for its notices and the log.
    pub name: String,
    /// The link that it speaks and has its addresses on.
    pub interface: String,
    /// Its number, which all its routers give it: 1 to 255.
    pub router_id: u8,
    /// The higher, the sooner this host is its master: 1 to 254, or 255 if the addresses are the host's own.
    #[serde(default = "usual_priority")]
    pub priority: u8,
    /// Whether this host takes over from a master of lower priority.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub preempt: bool,
    /// How often this host says that it is master.
    #[serde(default = "usual_interval", with = "humantime_serde")]
    pub advert_interval: Duration,
    /// The addresses that its master has.
    pub addresses: Vec<IpAddr>,
    /// What makes the host better or worse for it.
    #[serde(default, skip_serializing_if = "Track::is_empty")]
    pub track: Track,
    /// What is run when it changes: a program and its first arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
}

/// What a virtual router's priority goes by, besides its own link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Track {
    /// Scripts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<TrackedScript>,
    /// Other links.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<TrackedLink>,
}

impl Track {
    fn is_empty(&self) -> bool {
        *self == Track::default()
    }
}

/// A script that a virtual router goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrackedScript {
    /// Its name.
    pub name: String,
    /// What it adds to the priority: if positive while it passes, if negative while it doesn't. Without: the host takes no part
    /// while it doesn't.
    #[serde(default)]
    pub weight: i16,
}

/// A link that a virtual router goes by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrackedLink {
    /// Its name.
    pub name: String,
    /// As a [`TrackedScript`]'s.
    #[serde(default)]
    pub weight: i16,
}

/// Virtual routers that are masters together, or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyncGroup {
    /// Its name, for its notices and the log.
    pub name: String,
    /// The names of the virtual routers.
    pub members: Vec<String>,
    /// What is run when it changes: a program and its first arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
}

/// A program that says by its exit code whether the host is well: 0 if it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// The program and its arguments. No shell reads them.
    pub command: Vec<String>,
    /// How often it is run.
    #[serde(default = "usual_interval", with = "humantime_serde")]
    pub interval: Duration,
    /// How long it may take; it is killed then, and hasn't passed. Without: the interval.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// How many times in a row it must pass to count as passing again.
    #[serde(default = "once")]
    pub rise: u32,
    /// How many times in a row it must not pass to count as failing.
    #[serde(default = "once")]
    pub fall: u32,
}

impl Script {
    /// How long it may take.
    pub fn limit(&self) -> Duration {
        self.timeout.unwrap_or(self.interval)
    }
}

impl Settings {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Settings::default()
    }

    /// All programs that are run, with the fields that name them.
    pub(crate) fn commands(&self) -> Vec<(String, &[String])> {
        let instances = self.instances.iter().enumerate();
        let instances = instances.map(|(at, one)| (format!("instances[{at}].notify"), &one.notify[..]));
        let groups = self.groups.iter().enumerate();
        let groups = groups.map(|(at, one)| (format!("groups[{at}].notify"), &one.notify[..]));
        let notices = instances.chain(groups).filter(|(_, command)| !command.is_empty());
        let scripts = self.scripts.iter().enumerate();
        notices
            .chain(scripts.map(|(at, script)| (format!("scripts[{at}].command"), &script.command[..])))
            .collect()
    }
}

/// keepalived's.
fn usual_priority() -> u8 {
    100
}

/// keepalived's, for both adverts and scripts.
fn usual_interval() -> Duration {
    Duration::from_secs(1)
}

fn once() -> u32 {
    1
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}
