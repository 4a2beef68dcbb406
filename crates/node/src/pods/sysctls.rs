//! Kernel parameters of a pod's own (`securityContext.sysctls`).

use k8s_openapi::api::core::v1::Sysctl;

use crate::oci::Mapping;

/// What a pod may set without a say of the host's, as far as it has the namespace that it is of
/// (`pkg/kubelet/sysctl/safe_sysctls.go`).
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    PORTS,
    GROUPS,
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
/// The first port that any user may listen at.
const PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
/// The groups whose processes may ping.
const GROUPS: &str = "net.ipv4.ping_group_range";

/// Which of the namespaces that have parameters are a pod's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct OfPod<'a> {
    pub ipc: bool,
    /// Its network; otherwise why parameters of it can't be set.
    pub network: Result<(), &'a str>,
    pub users: Option<Mapping>,
}

/// The parameters of a pod, by names with dots: those that it asks for, and what containerd gives each network of a pod
/// (`enable_unprivileged_ports`, `enable_unprivileged_icmp`).
///
/// # Errors
/// Which it can't have, in the kubelet's words where it has some.
pub(super) fn sysctls(asked: &[Sysctl], own: OfPod<'_>) -> Result<Vec<(String, String)>, String> {
    let mut all = Vec::new();
    for sysctl in asked {
        let name = with_dots(&sysctl.name);
        let forbidden = |why: &str| Err(format!("forbidden sysctl: {name:?} {why}"));
        if !SAFE.contains(&name.as_str()) {
            return forbidden("not allowlisted");
        }
        match own.network {
            Err(why) if name.starts_with("net.") => return forbidden(why),
            _ if !own.ipc && name.starts_with("kernel.shm") => {
                return forbidden("not allowed with host ipc enabled");
            }
            _ => all.push((name, sysctl.value.clone())),
        }
    }
    if own.network.is_ok() {
        // A group that the pod's users don't have is none that could be named.
        let last = own.users.map_or(i32::MAX.unsigned_abs(), |users| users.size.saturating_sub(1));
        for (name, value) in [(PORTS, "0".to_owned()), (GROUPS, format!("0 {last}"))] {
            if !all.iter().any(|(asked, _)| asked == name) {
                all.push((name.to_owned(), value));
            }
        }
    }
    Ok(all)
}

/// Names may be written with slashes, and then a dot is one within a part (`NormalizeName` upstream).
fn with_dots(name: &str) -> String {
    let separator = name.chars().find(|letter| matches!(letter, '.' | '/'));
    if separator != Some('/') {
        return name.to_owned();
    }
    let swapped = name.chars().map(|letter| match letter {
        '/' => '.',
        '.' => '/',
        other => other,
    });
    swapped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: OfPod<'_> = OfPod { ipc: true, network: Ok(()), users: None };

    fn of(names: &[(&str, &str)], own: OfPod<'_>) -> Result<Vec<(String, String)>, String> {
        let sysctl = |(name, value): &(&str, &str)| Sysctl { name: (*name).into(), value: (*value).into() };
        sysctls(&names.iter().map(sysctl).collect::<Vec<_>>(), own)
    }

    #[test]
    fn a_pod_sets_what_is_of_its_own_namespaces() {
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let given = pairs(&[(PORTS, "0"), (GROUPS, "0 2147483647")]);
        assert_eq!(of(&[], OWN).unwrap(), given);
        let asked = of(&[("net/ipv4/ip_unprivileged_port_start", "1024")], OWN).unwrap();
        assert_eq!(asked, pairs(&[(PORTS, "1024"), (GROUPS, "0 2147483647")]));
        let users = Some(Mapping { container_id: 0, host_id: 65_536, size: 65_536 });
        assert_eq!(of(&[], OfPod { users, ..OWN }).unwrap()[1].1, "0 65535");

        let shared = OfPod { network: Err("not allowed with host net enabled"), ..OWN };
        assert_eq!(of(&[("kernel.shm_rmid_forced", "1")], shared).unwrap().len(), 1);
        for (name, own, why) in [
            ("net.ipv4.tcp_syncookies", shared, "not allowed with host net enabled"),
            ("kernel.shm_rmid_forced", OfPod { ipc: false, ..OWN }, "not allowed with host ipc enabled"),
            ("kernel.msgmax", OWN, "not allowlisted"),
            ("net.ipv4.conf.eth0/1.mtu", OWN, "not allowlisted"),
        ] {
            assert_eq!(of(&[(name, "1")], own).unwrap_err(), format!("forbidden sysctl: {name:?} {why}"));
        }
    }

    #[test]
    fn names_have_dots_or_slashes() {
        assert_eq!(with_dots("net/ipv4/conf/eth0.1/mtu"), "net.ipv4.conf.eth0/1.mtu");
        assert_eq!(with_dots("net.ipv4.conf.eth0/1.mtu"), "net.ipv4.conf.eth0/1.mtu");
    }
}
