//! Addresses that Endpoints and EndpointSlices may lead to.
//!
//! Follows `ValidateEndpointIP` of `pkg/apis/core/validation` upstream: what a host keeps to itself is no endpoint, since
//! the writer of one would reach it through each host's proxy.

use std::net::IpAddr;

use machinery::{Cause, Faults, Object, Resource};
use serde_json::Value;

use super::field::paths;

/// A text that is an address, in the one way in which its like is written.
pub(super) fn validate_form(address: &Value, path: &str, faults: &mut Faults) -> Option<IpAddr> {
    let parsed: Option<IpAddr> = address.as_str().and_then(|text| text.parse().ok());
    match parsed {
        None => {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            faults.push(Cause::invalid(path, address, why));
        }
        // Programs differ in what they make of it: some connect to the IPv4 address.
        Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            faults.push(Cause::invalid(path, address, "must not be an IPv4-mapped IPv6 address"));
        }
        Some(_) => {}
    }
    parsed
}

/// The faults of where an Endpoints or an EndpointSlice leads to, none for objects of other kinds. On a machine's loopback
/// network only what `is_own` may be an endpoint: the addresses of the cluster's own hosts and pods, where those are there.
pub fn validate_endpoint_addresses(
    resource: &Resource,
    object: &Object,
    is_own: &dyn Fn(IpAddr) -> bool,
) -> Vec<Cause> {
    let mut faults = Faults::default();
    let null = Value::Null;
    let part = |field: &str| object.0.get(field).unwrap_or(&null);
    match (resource.group, resource.plural) {
        ("", "endpoints") => {
            for (path, subset) in paths(part("subsets"), "subsets") {
                for field in ["addresses", "notReadyAddresses"] {
                    for (path, address) in paths(&subset[field], &format!("{path}.{field}")) {
                        validate(&address["ip"], format!("{path}.ip"), is_own, &mut faults);
                    }
                }
            }
        }
        ("discovery.k8s.io", "endpointslices") if part("addressType") != "FQDN" => {
            for (path, endpoint) in paths(part("endpoints"), "endpoints") {
                for (path, address) in paths(&endpoint["addresses"], &format!("{path}.addresses")) {
                    validate(address, path, is_own, &mut faults);
                }
            }
        }
        _ => {}
    }
    faults.into_causes()
}

fn validate(address: &Value, path: String, is_own: &dyn Fn(IpAddr) -> bool, faults: &mut Faults) {
    let Some(parsed) = address.as_str().and_then(|text| text.parse::<IpAddr>().ok()) else { return };
    let ip = parsed.to_canonical();
    let (link_local, link_local_multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let why = if ip.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if ip.is_loopback() && !is_own(ip) {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if link_local_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    } else {
        return;
    };
    faults.push(Cause::invalid(path, address, why));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn why(address: &str, own: &str) -> Vec<String> {
        let is_own = |ip: IpAddr| ip.to_string() == own;
        let slices = crate::resource("discovery.k8s.io", "v1", "endpointslices").unwrap();
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1", address]}]});
        let of_slice = validate_endpoint_addresses(slices, &Object::from_value(slice).unwrap(), &is_own);
        let endpoints = crate::resource("", "v1", "endpoints").unwrap();
        let by_hand =
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": address}]}]});
        let of_endpoints =
            validate_endpoint_addresses(endpoints, &Object::from_value(by_hand).unwrap(), &is_own);
        let words = |faults: &[Cause]| faults.iter().map(|f| f.message.clone()).collect::<Vec<_>>();
        assert_eq!(words(&of_slice), words(&of_endpoints), "{address}");
        for (faults, path) in
            [(&of_slice, "endpoints[0].addresses[1]"), (&of_endpoints, "subsets[0].notReadyAddresses[0].ip")]
        {
            assert!(faults.iter().all(|fault| fault.field == path), "{faults:?}");
        }
        words(&of_slice)
    }

    #[test]
    fn what_a_host_keeps_to_itself_is_no_endpoint() {
        for (addresses, range) in [
            (
                &["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"][..],
                "may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            (
                &["169.254.169.254", "fe80::1", "febf::1", "::ffff:169.254.1.1"],
                "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
            ),
            (
                &["224.0.0.1", "ff02::1", "ff12::1"],
                "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
            ),
            (&["0.0.0.0", "::", "::ffff:0.0.0.0"], "may not be unspecified (0.0.0.0 or ::)"),
        ] {
            for address in addresses {
                assert_eq!(why(address, "127.1.1.1"), [format!("Invalid value: \"{address}\": {range}")]);
            }
        }
        for address in
            ["10.244.1.7", "2001:db8::7", "fec0::1", "169.253.1.1", "224.0.1.1", "ff05::1", "no address"]
        {
            assert_eq!(why(address, "127.1.1.1"), [""; 0], "{address}");
        }
    }

    #[test]
    fn a_cluster_on_loopback_has_its_endpoints_there() {
        assert_eq!(why("127.1.1.1", "127.1.1.1"), [""; 0]);
        assert_eq!(why("169.254.1.1", "169.254.1.1").len(), 1, "nobody's pods are there");
    }

    #[test]
    fn other_kinds_lead_nowhere() {
        let services = crate::resource("", "v1", "services").unwrap();
        let service = json!({"subsets": [{"addresses": [{"ip": "127.0.0.1"}]}]});
        let faults = validate_endpoint_addresses(services, &Object::from_value(service).unwrap(), &|_| false);
        assert_eq!(faults, []);
    }
}
