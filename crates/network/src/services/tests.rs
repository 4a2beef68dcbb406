use serde_json::{Value, json};

use super::*;

fn services(services: Value, slices: Value) -> Services {
    let services: Vec<Service> = serde_json::from_value(services).unwrap();
    let slices: Vec<EndpointSlice> = serde_json::from_value(slices).unwrap();
    let services: Vec<_> = services.into_iter().map(Arc::new).collect();
    let slices: Vec<_> = slices.into_iter().map(Arc::new).collect();
    Services::new(&services, &slices, &Targets::default())
}

fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    })
}

fn endpoint(address: &str, node: &str, conditions: Value) -> Value {
    json!({"addresses": [address], "nodeName": node, "conditions": conditions})
}

fn web() -> Services {
    services(
        json!([
            {"metadata": {"name": "web", "namespace": "default"}, "spec": {
                "type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
                "externalTrafficPolicy": "Local", "sessionAffinity": "ClientIP",
                "ports": [
                    {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "sctp", "port": 54, "protocol": "SCTP"},
                ]}},
            {"metadata": {"name": "headless", "namespace": "default"},
             "spec": {"clusterIP": "None", "ports": [{"port": 80}]}},
            {"metadata": {"name": "elsewhere", "namespace": "default"},
             "spec": {"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 80}]}},
        ]),
        json!([
            slice(
                "web-1",
                "web",
                json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]),
                json!([
                    endpoint("10.244.1.7", "n1", json!({"ready": true})),
                    endpoint("10.244.2.7", "n2", json!({})),
                    endpoint("10.244.2.8", "n2", json!({"ready": false})),
                    endpoint(
                        "10.244.3.7",
                        "n3",
                        json!({"ready": false, "serving": true, "terminating": true})
                    ),
                    endpoint(
                        "10.244.3.8",
                        "n3",
                        json!({"ready": false, "serving": false, "terminating": true})
                    ),
                    endpoint("not an address", "n3", json!({})),
                ])
            ),
            slice(
                "web-2",
                "web",
                json!([{"name": "http", "port": 8080}]),
                json!([endpoint("10.244.1.7", "n1", json!({"ready": true}))])
            ),
            slice(
                "other",
                "other",
                json!([{"name": "http", "port": 8080}]),
                json!([endpoint("10.244.1.9", "n1", json!({}))])
            ),
        ]),
    )
}

#[test]
fn a_port_has_the_endpoints_of_its_name_that_may_be_used() {
    let services = web();
    let http = services.find("default", "web", "http").unwrap();
    let backends: Vec<_> =
        http.backends.iter().map(|b| (b.address.to_string(), b.node.as_deref().unwrap(), b.ready)).collect();
    assert_eq!(
        backends,
        [
            ("10.244.1.7:8080".to_owned(), "n1", true),
            ("10.244.2.7:8080".to_owned(), "n2", true),
            ("10.244.3.7:8080".to_owned(), "n3", false),
        ]
    );
    assert_eq!(http.addresses, ["10.96.0.5".parse::<IpAddr>().unwrap()]);
    assert_eq!((http.node_port, http.affinity), (Some(30080), Some(AFFINITY)));
    assert!(http.external_local && !http.internal_local);
    let dns = services.find("default", "web", "dns").unwrap();
    assert_eq!((dns.protocol, dns.backends.len(), dns.backends[0].address.port()), (Protocol::Udp, 3, 5353));
}

#[test]
fn a_port_is_found_by_name_by_number_and_alone() {
    let services = web();
    let find = |service, port| services.find("default", service, port).map(|port| port.number);
    assert_eq!(find("web", "http"), Some(80));
    assert_eq!(find("web", "53"), Some(53));
    assert_eq!(find("web", "99"), None);
    assert_eq!(find("web", ""), None, "there are two");
    assert_eq!(find("headless", ""), Some(80));
    assert_eq!(find("headless", "80"), Some(80));
    assert_eq!(find("elsewhere", "80"), None);
    assert_eq!(services.find("other", "web", "http"), None);
    assert!(services.find("default", "headless", "").unwrap().addresses.is_empty());
}

#[test]
fn a_hosts_endpoints_are_counted_once_a_service() {
    let services = web();
    let count = |node| services.endpoints_on(node);
    assert_eq!((count("n1"), count("n2"), count("n3"), count("n4")), (1, 1, 1, 0));
}
