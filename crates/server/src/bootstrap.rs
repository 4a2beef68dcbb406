//! The objects that every cluster has from its first moment on.

use api::{Object, Status};
use objects::Write;
use serde_json::{Value, json};

use crate::server::Server;

/// Who makes them.
const USER: &str = "system:apiserver";
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

impl Server {
    /// Makes the default objects, those that are missing: namespaces, the service `kubernetes`, the runtime
    /// class `host`. May be called again at any time, and anywhere at once.
    ///
    /// # Errors
    /// If the store has no leader yet, or doesn't answer.
    pub async fn bootstrap(&self) -> Result<(), Status> {
        for name in NAMESPACES {
            self.ensure(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})).await?;
        }
        self.ensure(json!({
            "kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": "host"}, "handler": "host",
        }))
        .await?;
        let address = self.registry().first_service_address().to_string();
        self.ensure(json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP", "clusterIP": address, "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": 6443}],
            },
        }))
        .await
    }

    /// Creates an object unless it exists.
    async fn ensure(&self, object: Value) -> Result<(), Status> {
        let Some(object) = Object::from_value(object) else { return Ok(()) };
        match self.writer().write(USER, Write::Create(object)).await {
            Ok(_) => Ok(()),
            Err(status) if status.reason == "AlreadyExists" => Ok(()),
            Err(status) => Err(status),
        }
    }
}
