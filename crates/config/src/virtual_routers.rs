//! Virtual routers: what else can't work in a host's configuration, besides what the room `vrrp` finds in their settings alone.

use std::net::IpAddr;

use crate::check::Findings;
use crate::{HostConfig, NetConfig};

/// The priority of who has the addresses for its own.
const OWNER: u8 = vrrp::state::OWNER;

impl HostConfig {
    pub(crate) fn check_virtual_routers(&self, findings: &mut Findings) {
        for vrrp::Problem { field, what, remedy } in self.vrrp.problems() {
            findings.problem(format!("vrrp.{field}"), what, remedy);
        }
        findings.require(
            self.vrrp.is_empty() || matches!(self.net, NetConfig::Netns { .. }),
            "vrrp",
            "a host on loopback has no link of its own on which addresses could move",
            "leave it out, or give the host a network of its own (net.kind netns)",
        );
        for (at, instance) in self.vrrp.instances.iter().enumerate() {
            let field = format!("vrrp.instances[{at}].addresses");
            for address in &instance.addresses {
                if let Some(other) = self.use_of(*address, instance.priority == OWNER) {
                    let what = format!("{address} is {other}, which looks after it by itself");
                    findings.problem(&field, what, "take an address that nothing else of the cluster uses");
                }
            }
        }
    }

    /// What else an address is in this cluster.
    fn use_of(&self, address: IpAddr, owns: bool) -> Option<String> {
        if address == self.virtual_address {
            return Some("the API's virtual address".into());
        }
        // Its own address is what an owner's virtual router is about.
        let mut hosts = self.peers.iter().filter(|(name, _)| !(owns && **name == self.name));
        if let Some((name, _)) = hosts.find(|(_, host)| **host == address) {
            return Some(format!("host {name}'s own address"));
        }
        if let Some(range) = self.load_balancer_cidrs.iter().find(|range| range.contains(address)) {
            return Some(format!("in loadBalancerCidrs, {range}"));
        }
        let networks = [("serviceCidr", self.service_cidr), ("clusterCidr", self.cluster_cidr)];
        let network = networks.into_iter().find(|(_, network)| network.contains(&address));
        network.map(|(name, network)| format!("in {name}, {network}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::check::tests::config;

    /// What is wrong with a virtual router for an address, in a host's configuration.
    fn told(address: &str, priority: u8) -> Vec<String> {
        let mut config = config();
        config.load_balancer_cidrs = vec!["10.73.0.192/27".parse().unwrap()];
        config.vrrp = serde_json::from_value(json!({"instances": [
            {"name": "a", "interface": "eth0", "routerId": 7, "priority": priority, "addresses": [address]}]}))
        .unwrap();
        config.check().problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_something_else_looks_after_is_no_virtual_router_s() {
        assert_eq!(told("10.73.0.50", 100), [""; 0]);
        assert_eq!(told("10.73.0.1", OWNER), [""; 0], "its own");
        for (address, priority, wanted) in [
            ("10.73.0.100", 100, "10.73.0.100 is the API's virtual address, "),
            ("10.73.0.1", 100, "10.73.0.1 is host n1's own address, "),
            ("10.73.0.2", OWNER, "10.73.0.2 is host n2's own address, "),
            ("10.73.0.200", 100, "10.73.0.200 is in loadBalancerCidrs, 10.73.0.192/27, "),
            ("10.96.0.10", 100, "10.96.0.10 is in serviceCidr, 10.96.0.0/16, "),
            ("10.244.7.7", 100, "10.244.7.7 is in clusterCidr, 10.244.0.0/16, "),
        ] {
            let told = told(address, priority);
            let wanted = format!("vrrp.instances[0].addresses: {wanted}");
            assert!(told.len() == 1 && told[0].starts_with(&wanted), "{wanted}: {told:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_them_alone_is_told_with_its_place_in_the_file() {
        let told = told("10.73.0.50", 0);
        assert!(told[0].starts_with("vrrp.instances[0].priority: by 0 a master says "), "{told:?}");
    }

    #[test]
    fn hosts_on_loopback_have_none() {
        let mut config = config();
        config.net = NetConfig::Loopback { switch: "127.0.0.254:2382".parse().unwrap() };
        assert_eq!(config.check().problems, []);
        config.vrrp = serde_json::from_value(json!({"instances": [
            {"name": "a", "interface": "eth0", "routerId": 7, "addresses": ["10.73.0.50"]}]}))
        .unwrap();
        let problems = config.check().problems;
        assert!(problems.iter().any(|problem| problem.field == "vrrp"), "{problems:?}");
    }
}
