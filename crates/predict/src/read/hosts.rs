//! Which file is of which host.

use std::collections::BTreeMap;

use super::Host;
use super::recognise::read;
use crate::File;

/// Folders that lie on a host, and are no hosts themselves.
const ON_A_HOST: [&str; 24] = [
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
    "sysctl.d",
    "default",
    "sysconfig",
    "rancher",
    "k3s",
    "conf.d",
    "pki",
    "configs",
    "config",
    "scripts",
];

/// The hosts that files are of: one for each folder, by the first one in which paths differ. What lies above these folders is about
/// all hosts, and a host's own files count before it.
pub(crate) fn hosts(files: &[File]) -> Vec<Host> {
    let places: Vec<Vec<&str>> = files.iter().map(|file| folders(&file.path)).collect();
    let shared = places.iter().skip(1).fold(places.first().map_or(0, Vec::len), |shared, place| {
        let same = places[0].iter().zip(place).take_while(|(one, other)| one == other).count();
        shared.min(same)
    });
    let below = |place: &[&str]| {
        place.get(shared).copied().filter(|folder| !ON_A_HOST.contains(folder)).map(str::to_owned)
    };
    let mut common = Host::default();
    let mut hosts: BTreeMap<String, Host> = BTreeMap::new();
    // Hosts' own files come last, so that they count before what is about all of them.
    for (file, place) in files.iter().zip(&places) {
        match below(place) {
            None => read(file, &mut common),
            Some(name) => {
                read(file, hosts.entry(name.clone()).or_insert_with(|| Host { name, ..Host::default() }))
            }
        }
    }
    if hosts.is_empty() {
        let above = places.first().and_then(|place| place[..shared].last().copied());
        common.name = above.unwrap_or("the host").to_owned();
        return vec![common];
    }
    for host in hosts.values_mut() {
        for (key, setting) in &common.settings {
            host.settings.entry(key.clone()).or_insert_with(|| setting.clone());
        }
        for (key, setting) in &common.kernel {
            host.kernel.entry(key.clone()).or_insert_with(|| setting.clone());
        }
        host.haproxy = host.haproxy.take().or_else(|| common.haproxy.clone());
        host.keepalived = host.keepalived.take().or_else(|| common.keepalived.clone());
        host.nginx = host.nginx.take().or_else(|| common.nginx.clone());
    }
    // What is wrong with a file that is about all of them is said once.
    if let Some(first) = hosts.values_mut().next() {
        first.passwords.extend(common.passwords);
        first.not_understood.extend(common.not_understood);
        first.unknown.extend(common.unknown);
        first.certificates.extend(common.certificates);
        first.used += common.used;
        if let Some(holdfast) = common.holdfast {
            first.holdfast.get_or_insert(holdfast);
        }
    }
    hosts.into_values().collect()
}

fn folders(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    parts.pop();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read::Program;

    fn names(paths: &[&str]) -> Vec<String> {
        let file = |path: &&str| File { path: (*path).into(), text: "--a=b".into() };
        hosts(&paths.iter().map(file).collect::<Vec<_>>()).into_iter().map(|host| host.name).collect()
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
    fn what_is_about_all_hosts_counts_after_their_own() {
        let file = |path: &str, text: &str| File { path: path.into(), text: text.into() };
        let files = [
            file("kubelet.args", "--a=1 --b=2"),
            file("n1/kubelet.args", "--a=3"),
            file("n2/kube-proxy.args", "--a=4"),
        ];
        let of = |host: &Host, name: &str| host.value(Program::Kubelet, name).map(str::to_owned);
        let read = hosts(&files);
        let told: Vec<_> = read.iter().map(|host| (of(host, "a"), of(host, "b"))).collect();
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(told, [(some("3"), some("2")), (some("1"), some("2"))]);
    }
}
