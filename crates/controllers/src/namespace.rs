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

use crate::controller::{Controller, Due, Moment, Urgency, latest};
use crate::graph::Vertex;
use crate::key::Key;
use crate::plan::{Action, Plan, create, merge, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

use ending::{PAUSE, report};

/// The ConfigMap by which pods know the API.
pub const ROOT_CERTIFICATE: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";
const FINALIZER: &str = "kubernetes";
/// The most objects that one reconciliation deletes; the next one goes on. More than are deleted at the same time (64), and few
/// enough that what the garbage collector deletes meanwhile is seldom asked for twice.
const BURST: usize = 100;

/// Fills and empties namespaces.
pub(crate) struct Namespaces;

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn component(&self) -> &'static str {
        "namespace-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Namespace>();
        watches.table::<ServiceAccount>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Namespace>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<Namespace>(change);
        let account = change.of::<ServiceAccount>().and_then(latest);
        account.into_iter().for_each(|a| due.now("", a.metadata.namespace.as_deref().unwrap_or_default()));
        // Somebody may have taken it away, or changed it.
        let published = |node: &&Vertex| &*node.kind == "ConfigMap" && node.name() == ROOT_CERTIFICATE;
        change.owned().latest().filter(published).into_iter().for_each(|node| due.now("", &node.namespace));
        ending::closing(view, change, |namespace| due.now("", namespace));
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.name(), moment.now.wall)
    }
}

/// Says why namespaces that are being deleted are still there.
pub(crate) struct EndingNamespaces;

impl Controller for EndingNamespaces {
    fn name(&self) -> &'static str {
        "ending-namespace"
    }

    fn component(&self) -> &'static str {
        "namespace-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Namespace>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        ending::all(view).for_each(|namespace| due.later("", namespace, PAUSE));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        let namespace = change.of::<Namespace>().and_then(latest);
        for namespace in
            namespace.into_iter().filter(|namespace| namespace.metadata.deletion_timestamp.is_some())
        {
            due.later("", namespace.metadata.name.as_deref().unwrap_or_default(), PAUSE);
        }
        ending::closing(view, change, |namespace| due.later("", namespace, PAUSE));
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        report(view, key.name(), moment.now.wall)
    }
}

/// Fills or empties one namespace.
fn reconcile(view: &View, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = view.table::<Namespace>().get("", name) else { return plan };
    if namespace.metadata.deletion_timestamp.is_some() {
        empty(view, namespace, name, now, &mut plan);
        return plan;
    }
    if view.table::<ServiceAccount>().get(name, "default").is_none() {
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
    if view.graph.in_namespace(name).next().is_none() {
        // What another server has in here only that server knows: while it doesn't answer, nobody can say that this
        // is all.
        if view.graph.kinds().unavailable().next().is_none() {
            let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
            let others: Vec<&String> = finalizers.filter(|finalizer| *finalizer != FINALIZER).collect();
            plan.write(merge(namespace.as_ref(), "finalize", json!({"spec": {"finalizers": others}})));
        }
        return;
    }
    for node in view.graph.staying_in(name).take(BURST) {
        let options = Delete {
            uid: Some(node.uid.to_string()).filter(|uid| !uid.is_empty()),
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
