//! Names that only the cluster's own authority certifies: those of its parts, and of who may do everything.
//!
//! The authority of requests signs what users ask for, and its key lies on every host. Getting hold of it must not make
//! anyone an administrator.

const MASTERS: &str = "system:masters";
/// The group of hosts' agents.
pub(crate) const NODES: &str = "system:nodes";
const ACCOUNTS: &str = "system:serviceaccounts";
const NODE: &str = "system:node:";

/// The host's name in the name of its agent, if it is one.
pub(crate) fn node(user: &str) -> Option<&str> {
    user.strip_prefix(NODE).filter(|name| !name.is_empty())
}

/// The name in a certificate's subject that no certificate by request may have, if there is one: a user of the cluster's
/// own (`system:…`) but the agent of a host, `system:masters`, `system:nodes` for anybody else than an agent, and the
/// groups of service accounts.
pub fn reserved_name<'a>(user: &'a str, groups: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let agent = node(user).is_some();
    if user.starts_with("system:") && !agent {
        return Some(user);
    }
    groups.into_iter().find(|group| {
        let accounts =
            group.strip_prefix(ACCOUNTS).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
        *group == MASTERS || accounts || (*group == NODES && !agent)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_becomes_a_part_of_the_cluster_by_asking() {
        let cases: [(&str, &[&str], Option<&str>); 12] = [
            ("jane", &["dev", "system:monitoring"], None),
            ("jane", &["dev", "system:masters"], Some("system:masters")),
            ("jane", &["system:nodes"], Some("system:nodes")),
            ("jane", &["system:serviceaccounts:kube-system"], Some("system:serviceaccounts:kube-system")),
            ("jane", &["system:serviceaccounts"], Some("system:serviceaccounts")),
            ("system:node:n9", &["system:nodes"], None),
            ("system:node:n9", &["system:nodes", "system:masters"], Some("system:masters")),
            ("system:node:", &["system:nodes"], Some("system:node:")),
            ("system:kube-controller-manager", &[], Some("system:kube-controller-manager")),
            ("system:kube-scheduler", &[], Some("system:kube-scheduler")),
            ("system:apiserver", &[], Some("system:apiserver")),
            ("system:serviceaccount:kube-system:x", &[], Some("system:serviceaccount:kube-system:x")),
        ];
        for (user, groups, expected) in cases {
            assert_eq!(reserved_name(user, groups.iter().copied()), expected, "{user} {groups:?}");
        }
    }
}
