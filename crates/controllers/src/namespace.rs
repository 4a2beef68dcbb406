//! Namespaces: each has its default ServiceAccount, and one that is deleted is emptied first.
//!
//! Follows `pkg/controller/namespace` and `pkg/controller/serviceaccount`.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use objects::{Delete, Propagation, Write};
use serde_json::json;

use crate::plan::{Plan, create, merge};
use crate::view::View;

const FINALIZER: &str = "kubernetes";
/// The most objects that one reconciliation deletes; the next one goes on.
const BURST: usize = 100;

/// Fills or empties one namespace.
pub fn reconcile(view: &View, name: &str) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = view.namespaces.get("", name) else { return plan };
    if namespace.metadata.deletion_timestamp.is_some() {
        empty(view, namespace, name, &mut plan);
    } else if view.service_accounts.get(name, "default").is_none() {
        let metadata = ObjectMeta {
            name: Some("default".into()),
            namespace: Some(name.into()),
            ..ObjectMeta::default()
        };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        plan.actions.extend(create(&account).map(Into::into));
    }
    plan
}

fn empty(view: &View, namespace: &Namespace, name: &str, plan: &mut Plan) {
    let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    let others: Vec<&String> = finalizers.clone().filter(|finalizer| *finalizer != FINALIZER).collect();
    if !finalizers.into_iter().any(|finalizer| finalizer == FINALIZER) {
        return;
    }
    let mut contents = view.graph.in_namespace(name).peekable();
    if contents.peek().is_none() {
        let patch = json!({"spec": {"finalizers": others}});
        plan.write(merge(namespace, "finalize", patch));
        return;
    }
    for node in contents.filter(|node| !node.deleting).take(BURST) {
        let options = Delete {
            uid: Some(node.uid.clone()).filter(|uid| !uid.is_empty()),
            propagation: Some(Propagation::Background),
            ..Delete::default()
        };
        plan.write(Write::Delete { subject: node.subject(), options });
    }
}
