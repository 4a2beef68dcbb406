//! The variables that tell a pod of the services of its namespace, as the kubelet sets them.

use k8s_openapi::api::core::v1::Service;

/// The variables of one service, none if it has no address.
pub(super) fn variables(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let address = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
    let (Some(address), Some(name)) = (address, service.metadata.name.as_deref()) else { return Vec::new() };
    let Some(first) = spec.ports.as_ref().and_then(|ports| ports.first()) else { return Vec::new() };
    let name = as_variable(name);
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let mut list = vec![
        (format!("{name}_SERVICE_HOST"), address.to_owned()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in spec.ports.iter().flatten() {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            list.push((format!("{name}_SERVICE_PORT_{}", as_variable(port_name)), port.port.to_string()));
        }
    }
    for (place, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let lower = protocol.to_ascii_lowercase();
        let url = format!("{lower}://{host}:{}", port.port);
        if place == 0 {
            list.push((format!("{name}_PORT"), url.clone()));
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_ascii_uppercase());
        list.push((prefix.clone(), url));
        list.push((format!("{prefix}_PROTO"), lower));
        list.push((format!("{prefix}_PORT"), port.port.to_string()));
        list.push((format!("{prefix}_ADDR"), address.to_owned()));
    }
    list
}

fn as_variable(name: &str) -> String {
    name.to_ascii_uppercase().replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_becomes_variables() {
        let service = |ip: &str| -> Service {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "my-db"},
                "spec": {"clusterIP": ip, "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]},
            }))
            .unwrap()
        };
        let list = variables(&service("10.96.0.7"));
        for (name, value) in [
            ("MY_DB_SERVICE_HOST", "10.96.0.7"),
            ("MY_DB_SERVICE_PORT", "5432"),
            ("MY_DB_SERVICE_PORT_SQL", "5432"),
            ("MY_DB_PORT", "tcp://10.96.0.7:5432"),
            ("MY_DB_PORT_5432_TCP_ADDR", "10.96.0.7"),
        ] {
            assert!(list.contains(&(name.to_owned(), value.to_owned())), "{name}: {list:?}");
        }
        assert_eq!(variables(&service("None")), []);
    }
}
