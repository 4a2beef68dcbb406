//! Namespaces: each has its default ServiceAccount and the cluster's root certificate, and one that is deleted is
//! emptied first.
//!
//! Follows `pkg/controller/namespace`, `pkg/controller/serviceaccount` and
//! `pkg/controller/certificates/rootcacertpublisher`.

mod ending;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use objects::{Delete, Propagation, Reader, Write};
use serde_json::json;

use crate::plan::{Action, Plan, create, merge, merge_this};
use crate::view::View;

pub use ending::{PAUSE, report};

/// The ConfigMap by which pods know the API.
pub const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";
const FINALIZER: &str = "kubernetes";
/// The most objects that one reconciliation deletes; the next one goes on.
const BURST: usize = 100;

/// Fills or empties one namespace.
pub fn reconcile(view: &View, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = view.namespaces.get("", name) else { return plan };
    if namespace.metadata.deletion_timestamp.is_some() {
        empty(view, namespace, name, now, &mut plan);
        return plan;
    }
    if view.service_accounts.get(name, "default").is_none() {
        let metadata = ObjectMeta {
            name: Some("default".into()),
            namespace: Some(name.into()),
            ..ObjectMeta::default()
        };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        plan.actions.extend(create(&account).map(Into::into));
    }
    plan.actions.extend(publish(view, name).map(Into::into));
    plan
}

/// Gives a namespace the certificate by which pods believe the API.
fn publish(view: &View, namespace: &str) -> Option<Write> {
    let data = BTreeMap::from([("ca.crt".to_owned(), view.root_certificate()?.to_owned())]);
    let Some(known) = Reader::<ConfigMap>::get(view.state(), namespace, ROOT_CERTIFICATE) else {
        let note = ("kubernetes.io/description".to_owned(), DESCRIPTION.to_owned());
        let metadata = ObjectMeta {
            name: Some(ROOT_CERTIFICATE.into()),
            namespace: Some(namespace.into()),
            annotations: Some(BTreeMap::from([note])),
            ..ObjectMeta::default()
        };
        return create(&ConfigMap { metadata, data: Some(data), ..ConfigMap::default() });
    };
    (known.data.as_ref() != Some(&data)).then(|| merge_this(&known, "", json!({ "data": data })))
}

fn empty(view: &View, namespace: &Arc<Namespace>, name: &str, now: Timestamp, plan: &mut Plan) {
    if !is_ours(namespace) {
        return;
    }
    let mut contents = view.graph.in_namespace(name).peekable();
    if contents.peek().is_none() {
        // What another server has in here only that server knows: while it doesn't answer, nobody can say that this
        // is all.
        if view.graph.kinds().unavailable().next().is_none() {
            let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
            let others: Vec<&String> = finalizers.filter(|finalizer| *finalizer != FINALIZER).collect();
            plan.write(merge(namespace.as_ref(), "finalize", json!({"spec": {"finalizers": others}})));
        }
        return;
    }
    for node in contents.filter(|node| !node.deleting).take(BURST) {
        let options = Delete {
            uid: Some(node.uid.clone()).filter(|uid| !uid.is_empty()),
            propagation: Some(Propagation::Background),
            ..Delete::default()
        };
        let delete = Action::from(Write::Delete { subject: node.subject(), options });
        plan.actions.push(delete.or_else(ending::refused(namespace, now)));
    }
}

/// Whether a namespace waits for its contents to go: others may keep it for reasons of their own.
fn is_ours(namespace: &Namespace) -> bool {
    let mut finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    finalizers.any(|finalizer| finalizer == FINALIZER)
}
