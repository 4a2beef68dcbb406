//! How this machine resolves names.

use std::path::PathBuf;

use dns::ResolvConf;

use super::text;
use crate::facts::Names;

pub(super) fn names() -> Names {
    let hostname = text("/proc/sys/kernel/hostname").unwrap_or_default();
    let hosts = text("/etc/hosts").unwrap_or_default();
    let services = text("/etc/nsswitch.conf").unwrap_or_default();
    // As pods' resolvers would have it, where the machine's own is systemd-resolved.
    let path: PathBuf = dns::machine_resolv_conf();
    Names {
        hostname_is_known: is_known(&hostname, &hosts, &services),
        hostname,
        resolver: text(&path).map(|text| (path, ResolvConf::parse(&text))),
    }
}

/// Without asking anybody: looking it up would.
fn is_known(hostname: &str, hosts: &str, services: &str) -> bool {
    let without_comment = |line: &str| line.split('#').next().unwrap_or_default().to_owned();
    let in_hosts = hosts
        .lines()
        .map(without_comment)
        .any(|line| line.split_whitespace().skip(1).any(|name| name.eq_ignore_ascii_case(hostname)));
    let by_itself = services
        .lines()
        .map(without_comment)
        .filter_map(|line| line.trim().strip_prefix("hosts:").map(str::to_owned))
        .any(|line| line.split_whitespace().any(|service| service == "myhostname"));
    in_hosts || by_itself
}

#[cfg(test)]
mod tests {
    use super::is_known;

    #[test]
    fn a_name_is_known_by_the_file_or_by_the_system() {
        assert!(is_known("n1", "127.0.0.1 localhost\n127.0.1.1 n1.example N1", ""));
        assert!(!is_known("n1", "127.0.0.1 localhost # n1\nn1 10.0.0.1", "hosts: files dns # myhostname"));
        assert!(is_known("n1", "", "passwd: files\nhosts: files myhostname dns"));
    }
}
