//! Files of a cluster, as what they say about failover.

mod blocks;
mod certificate;
mod haproxy;
mod hosts;
mod keepalived;
mod nginx;
mod objects;
mod recognise;
mod source;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use config::HostConfig;
use serde::Serialize;

pub(crate) use certificate::Certificate;
pub(crate) use haproxy::{Haproxy, Section};
pub(crate) use hosts::hosts;
pub(crate) use keepalived::{Instance, Keepalived, Script};
pub(crate) use nginx::{Nginx, Proxy as NginxProxy};
pub(crate) use recognise::is_reachable;
pub(crate) use source::Source;
use source::Texts;
pub(crate) use words::milliseconds;

/// A statement that may matter, and that nobody here knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NotUnderstood {
    /// The file.
    pub file: String,
    /// Where, from 1; 0 for the whole file.
    pub line: usize,
    /// Its words, or why a file can't be read.
    pub what: String,
}

/// The longest text of a file that is repeated: what is wrong with a file may be a megabyte of it.
const LONGEST_TOLD: usize = 120;

impl NotUnderstood {
    /// What is said of a file as a whole.
    pub(crate) fn of(file: &str, what: &str) -> Self {
        NotUnderstood { file: file.to_owned(), ..NotUnderstood::at(0, what) }
    }

    fn at(line: usize, what: &str) -> Self {
        let what = values::cut(what.trim(), LONGEST_TOLD).chars().filter(|c| !c.is_control()).collect();
        NotUnderstood { file: String::new(), line, what }
    }
}

/// The most statements of a file that are named: more is no file that somebody wrote.
const MOST_NAMED: usize = 1000;

fn note(named: &mut Vec<NotUnderstood>, line: usize, what: &str) {
    if named.len() < MOST_NAMED {
        named.push(NotUnderstood::at(line, what));
    }
}

/// The first word of a statement, if it may be one of a configuration's own: what somebody's quotes and braces tore out of a password
/// must not be repeated.
fn keyword(word: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    match !word.is_empty() && word.len() <= 40 && word.chars().all(is_plain) {
        true => word,
        false => "what is no statement",
    }
}

/// A program whose settings count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Program {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Kubelet,
    KubeProxy,
    K3s,
}

impl Program {
    const ALL: [Program; 7] = [
        Program::Etcd,
        Program::ApiServer,
        Program::ControllerManager,
        Program::Scheduler,
        Program::Kubelet,
        Program::KubeProxy,
        Program::K3s,
    ];

    /// The name of its file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Etcd => "etcd",
            Program::ApiServer => "kube-apiserver",
            Program::ControllerManager => "kube-controller-manager",
            Program::Scheduler => "kube-scheduler",
            Program::Kubelet => "kubelet",
            Program::KubeProxy => "kube-proxy",
            Program::K3s => "k3s",
        }
    }

    /// The program that a word, a path, or the name of a container or file, stands for.
    fn of(word: &str) -> Option<Program> {
        let name = word.rsplit('/').next().unwrap_or(word);
        Program::ALL.into_iter().find(|program| {
            name.strip_prefix(program.name())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
    }
}

/// A setting, and the file that it comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Setting {
    pub(crate) value: String,
    pub(crate) file: String,
}

/// What is known of a host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// Settings by program and flag. What a program takes from a file stands under the name of the flag that means the same; variables
    /// of its environment have their own names.
    pub(crate) settings: BTreeMap<(Program, String), Setting>,
    pub(crate) haproxy: Option<(Source, Haproxy)>,
    pub(crate) keepalived: Option<(Source, Keepalived)>,
    pub(crate) nginx: Option<(Source, Nginx)>,
    /// Files of HAProxy, keepalived and nginx, until all of them are there.
    texts: Texts,
    /// Settings of the kernel.
    pub(crate) kernel: BTreeMap<String, Setting>,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) holdfast: Option<(String, Box<HostConfig>)>,
    /// Passwords in clear, which every reader of the file sees: which, where, of what.
    pub(crate) passwords: Vec<(String, usize, &'static str)>,
    pub(crate) not_understood: Vec<NotUnderstood>,
    /// Files of which nothing is known.
    pub(crate) unknown: Vec<(String, String)>,
    /// Files that units name, each with the unit that does.
    wanted: Vec<(String, String)>,
    /// Variables that stand in command lines as words, each with its file.
    holes: BTreeSet<(String, String)>,
    /// Variables of which some file says what they hold.
    variables: BTreeSet<String>,
    /// Programs whose own configuration is there.
    configured: BTreeSet<Program>,
    /// What is read lies in a ConfigMap: none within it is looked for, however deep somebody laid them.
    pub(crate) in_config_map: bool,
    /// How many files were of use.
    pub(crate) used: usize,
}

impl Host {
    pub(crate) fn setting(&self, program: Program, name: &str) -> Option<&Setting> {
        self.settings.get(&(program, name.to_owned()))
    }

    pub(crate) fn value(&self, program: Program, name: &str) -> Option<&str> {
        self.setting(program, name).map(|setting| setting.value.as_str())
    }

    pub(crate) fn runs(&self, program: Program) -> bool {
        self.settings.keys().any(|(of, _)| *of == program)
    }

    /// A file of it says something about failover.
    pub(crate) fn tells(&self) -> bool {
        !self.settings.is_empty()
            || self.haproxy.is_some()
            || self.keepalived.is_some()
            || self.nginx.is_some()
            || self.holdfast.is_some()
    }

    fn set(&mut self, program: Program, name: &str, value: &str, file: &str) {
        let setting = Setting { value: value.to_owned(), file: file.to_owned() };
        self.settings.insert((program, name.to_owned()), setting);
    }

    fn flags(&mut self, program: Program, words: &[String], file: &str) {
        // The program runs here, whatever its flags say.
        self.set(program, "", "", file);
        for (name, value) in words::flags(words) {
            self.set(program, &name, &value, file);
        }
    }
}

/// A host and a port out of `10.0.0.1:6443`, `[::1]:6443`, `https://n1:2379/x`, `*:80`, `:80` or `6443`.
pub(crate) fn endpoint(text: &str) -> (String, Option<u16>) {
    let text = text.rsplit("://").next().unwrap_or(text);
    // A user's password may hold anything; it ends with the last `@`, and so does HAProxy's `ipv4@`.
    let text = text.rsplit('@').next().unwrap_or(text);
    let text = text.split(['/', '?']).next().unwrap_or_default();
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host.to_owned(), rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match text.rsplit_once(':') {
        // More than one colon: an IPv6 address without a port.
        Some((host, _)) if host.contains(':') => (text.to_owned(), None),
        Some((host, port)) => (host.to_owned(), port.parse().ok()),
        None => (text.to_owned(), None),
    }
}

/// A port at which API servers listen: kubeadm's, k3s', and the usual ones of proxies before them.
pub(crate) fn is_api_port(port: Option<u16>) -> bool {
    matches!(port, Some(6443 | 6444 | 8443 | 9345))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_files() {
        for (word, program) in [
            ("/usr/bin/kube-proxy", Some(Program::KubeProxy)),
            ("kube-apiserver.args", Some(Program::ApiServer)),
            ("etcd", Some(Program::Etcd)),
            ("etcdctl", None),
            ("kubelet.service", Some(Program::Kubelet)),
            ("sh", None),
        ] {
            assert_eq!(Program::of(word), program, "{word}");
        }
    }

    #[test]
    fn endpoints_in_all_their_forms() {
        for (text, host, port) in [
            ("10.0.0.1:6443", "10.0.0.1", Some(6443)),
            ("[fd00::1]:6443", "fd00::1", Some(6443)),
            ("fd00::1", "fd00::1", None),
            ("https://n1:2379/x", "n1", Some(2379)),
            ("*:80", "*", Some(80)),
            ("n1", "n1", None),
            ("ipv4@10.0.0.1:1", "10.0.0.1", Some(1)),
            ("https://user:ge/h@im@10.0.0.1:2379/x", "10.0.0.1", Some(2379)),
            ("", "", None),
        ] {
            assert_eq!(endpoint(text), (host.to_owned(), port), "{text}");
        }
    }
}
