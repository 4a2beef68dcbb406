//! The objects that every cluster has from its first moment on.

mod flows;
mod groups;
mod roles;

use api::{Object, Status};
use serde_json::{Value, json};

pub(crate) use roles::node_rules;

use crate::aggregation::config_map;
use crate::clock;
use crate::server::Server;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl Server {
    /// Makes the default objects, those that are missing: namespaces, the service `kubernetes`, the runtime
    /// class `host`, roles and their bindings, priority classes and levels, flow schemas, API services. May be
    /// called again at any time, and anywhere at once.
    ///
    /// # Errors
    /// If the store has no leader yet, or doesn't answer.
    pub async fn bootstrap(&self) -> Result<(), Status> {
        let mut objects: Vec<Value> = NAMESPACES.map(namespace).into();
        objects.push(json!({
            "kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": "host"}, "handler": "host",
        }));
        let registry = self.registry();
        objects.push(service(&registry.first_service_address().to_string()));
        objects.push(service_cidr(&registry.services().to_string()));
        objects.extend(priority_classes());
        objects.extend(roles::roles());
        objects.extend(flows::flows());
        objects.extend(groups::groups());
        objects.extend(self.aggregation().front_proxy.as_ref().map(config_map));
        registry.ensure(objects.into_iter().filter_map(Object::from_value).collect()).await
    }
}

fn namespace(name: &str) -> Value {
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})
}

fn service(address: &str) -> Value {
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

fn service_cidr(range: &str) -> Value {
    let ready = json!({
        "type": "Ready", "status": "True", "lastTransitionTime": clock::text(clock::now()), "reason": "",
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
