//! The objects that every cluster has from its first moment on.

mod flows;
mod groups;
mod roles;

use std::net::Ipv4Addr;

use machinery::Object;
use serde_json::{Value, json};

use crate::admission::ServiceRange;

pub(crate) use roles::node_rules;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The objects that every cluster has, made at `now`; services have their addresses from `services`.
pub(crate) fn objects(services: &ServiceRange, now: &str) -> Vec<Object> {
    let mut objects: Vec<Value> = NAMESPACES.map(namespace).into();
    objects.push(json!({
        "kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": "host"}, "handler": "host",
    }));
    objects.push(service(&services.first()));
    objects.push(service_cidr(&services.network().to_string(), now));
    objects.extend(priority_classes());
    objects.extend(roles::roles());
    objects.extend(flows::flows(now));
    objects.extend(groups::groups(now));
    objects.into_iter().filter_map(Object::from_value).collect()
}

fn namespace(name: &str) -> Value {
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})
}

fn service(address: &Ipv4Addr) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "sessionAffinity": "None", "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443}],
        },
    })
}

/// The service of the cluster's DNS, as kubeadm makes it but for the pods behind it: hosts answer for it by themselves, and a
/// controller says which.
pub(crate) fn dns_service(services: &ServiceRange) -> Option<Object> {
    Object::from_value(json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": services.dns(), "sessionAffinity": "None",
            "ipFamilyPolicy": "SingleStack",
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
                {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53},
            ],
        },
    }))
}

fn service_cidr(range: &str, now: &str) -> Value {
    let ready = json!({
        "type": "Ready", "status": "True", "lastTransitionTime": now, "reason": "",
        "message": "Kubernetes Service CIDR is ready",
    });
    json!({
        "kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "kubernetes", "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
        "spec": {"cidrs": [range]}, "status": {"conditions": [ready]},
    })
}

fn priority_classes() -> [Value; 2] {
    let class = |name: &str, value: u32, description: &str| {
        json!({
            "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
            "value": value, "description": description,
        })
    };
    [
        class(
            "system-cluster-critical",
            2_000_000_000,
            "For pods that the cluster needs, and that may run on any of its nodes.",
        ),
        class(
            "system-node-critical",
            2_000_001_000,
            "For pods that their node needs, and that may not run on any other.",
        ),
    ]
}
