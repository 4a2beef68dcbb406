//! Which file is of which host.

use std::collections::{BTreeMap, BTreeSet};

use super::recognise::read;
use super::{Host, NotUnderstood, Program};
use crate::File;

/// Folders that lie on a host, and are no hosts themselves.
const ON_A_HOST: [&str; 33] = [
    "etc",
    "usr",
    "var",
    "lib",
    "opt",
    "haproxy",
    "keepalived",
    "nginx",
    "etcd",
    "kubernetes",
    "manifests",
    "kubelet",
    "systemd",
    "system",
    "default",
    "sysconfig",
    "rancher",
    "k3s",
    "pki",
    "configs",
    "config",
    "scripts",
    "proc",
    "ssl",
    "cni",
    "run",
    "root",
    "home",
    "tmp",
    "srv",
    "mnt",
    "certs",
    "conf",
];

/// A folder may be a host's, by its name: no `conf.d`, and no number, which is a process in `/proc`.
fn may_be_host(folder: &str) -> bool {
    !ON_A_HOST.contains(&folder) && !folder.ends_with(".d") && !folder.chars().all(|c| c.is_ascii_digit())
}

/// The hosts that files are of: one for each of several folders that somebody named (`named`), whatever they are called, if one of them
/// may be a host by its name or all are numbers; else one for each folder, by the first one in which paths differ. What lies above these
/// folders is about all hosts, and a host's own files count before it.
pub(crate) fn hosts(files: &[File], named: &[String]) -> Vec<Host> {
    let places: Vec<Vec<&str>> = files.iter().map(|file| folders(&file.path)).collect();
    let named: BTreeSet<Vec<&str>> = named.iter().map(|path| parts(path)).collect();
    let is_host = |path: &Vec<&str>| {
        let Some((last, above)) = path.split_last() else { return false };
        !above.contains(&"proc") && (may_be_host(last) || last.chars().all(|c| c.is_ascii_digit()))
    };
    let named = if named.len() > 1 && named.iter().any(is_host) { named } else { BTreeSet::new() };
    let shared = places.iter().skip(1).fold(places.first().map_or(0, Vec::len), |shared, place| {
        let same = places[0].iter().zip(place).take_while(|(one, other)| one == other).count();
        shared.min(same)
    });
    let below = |place: &[&str]| match named.is_empty() {
        true => place.get(shared).copied().filter(|folder| may_be_host(folder)).map(str::to_owned),
        false => {
            let of = (1..=place.len()).find(|length| named.contains(&place[..*length]))?;
            place.get(of - 1).map(|folder| (*folder).to_owned())
        }
    };
    let mut common = Host::default();
    let mut hosts: BTreeMap<String, Host> = BTreeMap::new();
    let mut given: BTreeMap<Option<String>, BTreeSet<&str>> = BTreeMap::new();
    for (file, place) in files.iter().zip(&places) {
        let of = below(place);
        given.entry(of.clone()).or_default().extend(file.path.rsplit('/').next());
        match of {
            None => read(file, &mut common),
            Some(name) => {
                read(file, hosts.entry(name.clone()).or_insert_with(|| Host { name, ..Host::default() }))
            }
        }
    }
    common.join();
    let above = given.remove(&None).unwrap_or_default();
    if hosts.is_empty() {
        let folder = places.first().and_then(|place| place[..shared].last().copied());
        common.name = folder.unwrap_or("the host").to_owned();
        missing(&mut common, &[&above]);
        return vec![common];
    }
    for host in hosts.values_mut() {
        host.join();
        for (key, setting) in &common.settings {
            host.settings.entry(key.clone()).or_insert_with(|| setting.clone());
        }
        for (key, setting) in &common.kernel {
            host.kernel.entry(key.clone()).or_insert_with(|| setting.clone());
        }
        host.haproxy = host.haproxy.take().or_else(|| common.haproxy.clone());
        host.keepalived = host.keepalived.take().or_else(|| common.keepalived.clone());
        host.nginx = host.nginx.take().or_else(|| common.nginx.clone());
        host.variables.extend(common.variables.iter().cloned());
        host.configured.extend(&common.configured);
    }
    // What is wrong with a file that is about all of them is said once.
    if let Some(first) = hosts.values_mut().next() {
        first.passwords.extend(common.passwords);
        first.not_understood.extend(common.not_understood);
        first.unknown.extend(common.unknown);
        first.certificates.extend(common.certificates);
        first.wanted.extend(common.wanted);
        first.holes.extend(common.holes);
        first.used += common.used;
        if let Some(holdfast) = common.holdfast {
            first.holdfast.get_or_insert(holdfast);
        }
    }
    for host in hosts.values_mut() {
        let own = given.remove(&Some(host.name.clone())).unwrap_or_default();
        missing(host, &[&own, &above]);
    }
    hosts.into_values().collect()
}

/// The flags that name programs' configurations.
const CONFIGURATIONS: [(Program, &str); 5] = [
    (Program::Kubelet, "config"),
    (Program::KubeProxy, "config"),
    (Program::Scheduler, "config"),
    (Program::Etcd, "config-file"),
    (Program::K3s, "config"),
];

/// Names what a host's files speak of and isn't here: it may change any time of the prediction.
fn missing(host: &mut Host, given: &[&BTreeSet<&str>]) {
    let is_here =
        |path: &str| given.iter().any(|of| path.rsplit('/').next().is_some_and(|name| of.contains(name)));
    let mut told = BTreeSet::new();
    for (path, by) in std::mem::take(&mut host.wanted) {
        if !is_here(&path) {
            told.insert((by, format!("EnvironmentFile={path} isn't here: give it too")));
        }
    }
    for (name, by) in std::mem::take(&mut host.holes) {
        if !host.variables.contains(&name) {
            told.insert((by, format!("no file here says what ${name} holds")));
        }
    }
    for (program, flag) in CONFIGURATIONS {
        if let Some(of) = host.setting(program, flag)
            && !host.configured.contains(&program)
            && !is_here(&of.value)
        {
            let what = format!("{}'s configuration {} isn't here: give it too", program.name(), of.value);
            told.insert((of.file.clone(), what));
        }
    }
    host.not_understood.extend(told.iter().map(|(file, what)| NotUnderstood::of(file, what)));
}

fn folders(path: &str) -> Vec<&str> {
    let mut parts = parts(path);
    parts.pop();
    parts
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&str]) -> Vec<String> {
        let file = |path: &&str| File { path: (*path).into(), text: "--a=b".into() };
        hosts(&paths.iter().map(file).collect::<Vec<_>>(), &[]).into_iter().map(|host| host.name).collect()
    }

    #[test]
    fn a_folder_for_each_host_however_deep_its_files_lie() {
        assert_eq!(names(&["c/n1/etcd.yaml", "c/n2/etcd.yaml"]), ["n1", "n2"]);
        assert_eq!(
            names(&["/x/n1/etc/haproxy/haproxy.cfg", "/x/n2/etc/etcd/etcd.yaml", "/x/all.conf"]),
            ["n1", "n2"]
        );
        assert_eq!(names(&["peers/seed/etcd.yaml", "peers/seed/haproxy.cfg"]), ["seed"]);
        assert_eq!(names(&["/etc/haproxy/haproxy.cfg", "/etc/etcd/etcd.yaml"]), ["etc"]);
        assert_eq!(names(&["etcd.yaml", "haproxy.cfg"]), ["the host"]);
        assert_eq!(names(&[]), ["the host"]);
    }

    #[test]
    fn folders_that_lie_on_a_host_are_none_and_named_ones_are_whatever_they_are_called() {
        assert_eq!(names(&["/proc/12/cmdline", "/etc/cni/net.d/x", "/etc/ssl/y"]), ["the host"]);
        assert_eq!(names(&["n1/proc/12/cmdline", "n1/etc/ssl/y"]), ["n1"]);
        let file = |path: &str| File { path: path.into(), text: "--a=b".into() };
        let of = |paths: [&str; 3], named: &[&str]| {
            let named: Vec<String> = named.iter().map(|of| (*of).to_owned()).collect();
            let all = hosts(&paths.map(file), &named).into_iter().map(|host| host.name);
            all.collect::<Vec<_>>()
        };
        let peers = ["p/seed/etcd.args", "p/default/etcd.args", "p/3/etcd.args"];
        assert_eq!(of(peers, &["p/seed/", "p/default", "p/3"]), ["3", "default", "seed"]);
        assert_eq!(of(["1/x", "2/x", "3/x"], &["1", "2", "3"]), ["1", "2", "3"]);
        let programs = ["/etc/haproxy/a", "/etc/keepalived/b", "/etc/kubernetes/c"];
        assert_eq!(of(programs, &["/etc/haproxy", "/etc/keepalived", "/etc/kubernetes"]), ["etc"]);
    }

    #[test]
    fn what_files_speak_of_and_is_missing_is_named() {
        let unit = "[Service]\nEnvironmentFile=-/etc/default/kubelet\nExecStart=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml $KUBELET_EXTRA_ARGS\n";
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let told = |more: &[File]| {
            let all = [&[file("n1/kubelet.service", unit)][..], more].concat();
            hosts(&all, &[])[0].not_understood.iter().map(|told| told.what.clone()).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&[]),
            [
                "EnvironmentFile=/etc/default/kubelet isn't here: give it too",
                "kubelet's configuration /var/lib/kubelet/config.yaml isn't here: give it too",
                "no file here says what $KUBELET_EXTRA_ARGS holds"
            ]
        );
        let own = file("n1/kubelet.yaml", "kind: KubeletConfiguration\nnodeLeaseDurationSeconds: 4\n");
        let variables = file("n1/default/kubelet", "KUBELET_EXTRA_ARGS=--a=b\n");
        assert!(told(&[own, variables]).is_empty());
    }

    #[test]
    fn what_is_about_all_hosts_counts_after_their_own() {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = [
            file("kubelet.args", "--a=1 --b=2"),
            file("n1/kubelet.args", "--a=3"),
            file("n2/kube-proxy.args", "--a=4"),
        ];
        let of = |host: &Host, name: &str| host.value(Program::Kubelet, name).map(str::to_owned);
        let read = hosts(&files, &[]);
        let told: Vec<_> = read.iter().map(|host| (of(host, "a"), of(host, "b"))).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(told, [(some("3"), some("2")), (some("1"), some("2"))]);
    }
}
