//! Who is asked about a change, and in which order: as upstream, all who may change the object, then all who
//! only judge it, and quotas last, once nothing else can refuse.

use api::{Object, Status};

use super::request::{Operation, Outcome, Request};
use super::{
    certificate, default_class, limit_ranger, node, pod_security, priority, priority_class, runtime_class,
    service_account, storage, toleration,
};
use crate::registry::{Claims, Refused};

/// Everybody who is asked.
pub(crate) struct Admission;

impl Admission {
    /// Those who may change an object that is to be created or changed, before it is validated.
    pub(crate) async fn mutate(
        &self,
        request: &Request<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), Refused> {
        complete(request, object, old)?;
        Ok(())
    }

    /// Those who judge a change of a valid object. What they count is claimed together with the change.
    pub(crate) async fn validate(
        &self,
        request: &Request<'_>,
        outcome: Outcome<'_>,
        claims: &mut Claims,
    ) -> Result<(), Refused> {
        let _ = claims;
        judge(request, outcome)?;
        Ok(())
    }
}

/// The plugins that change objects, in upstream's order.
fn complete(request: &Request<'_>, object: &mut Object, old: Option<&Object>) -> Result<(), Status> {
    let (named, state) = (&request.named, request.state);
    if let (Operation::Create, Some(node)) = (request.operation, request.who.node()) {
        node::check(node, named, object)?;
    }
    match (named.resource.group, named.resource.plural, old) {
        ("", "pods", None) => complete_pod(request, object),
        ("", "nodes", None) => {
            toleration::taint(object);
            Ok(())
        }
        ("", "persistentvolumeclaims", None) => {
            storage::set_default_class(request, object);
            storage::protect(object, "kubernetes.io/pvc-protection");
            Ok(())
        }
        ("", "persistentvolumes", None) => {
            storage::protect(object, "kubernetes.io/pv-protection");
            Ok(())
        }
        ("networking.k8s.io", "ingresses", None) => {
            default_class::set_for_ingress(request, object);
            Ok(())
        }
        ("certificates.k8s.io", "certificatesigningrequests", None) => {
            certificate::on_create(request.who, object);
            Ok(())
        }
        ("certificates.k8s.io", "certificatesigningrequests", Some(old)) => {
            certificate::on_update(object, old);
            Ok(())
        }
        ("scheduling.k8s.io", "priorityclasses", _) => priority_class::check(named, object, state),
        _ => Ok(()),
    }
}

/// What a new pod gets.
fn complete_pod(request: &Request<'_>, pod: &mut Object) -> Result<(), Status> {
    limit_ranger::complete(request, pod);
    service_account::complete(request, pod)?;
    priority::complete(request, pod)?;
    toleration::tolerate(pod);
    runtime_class::complete(request, pod)
}

/// The plugins that only judge, in upstream's order.
fn judge(request: &Request<'_>, outcome: Outcome<'_>) -> Result<(), Status> {
    let named = &request.named;
    match (named.resource.group, named.resource.plural, outcome) {
        ("", "pods", Outcome { new: Some(pod), old }) => {
            limit_ranger::check(request, pod)?;
            service_account::check(request, pod)?;
            pod_security::check_pod(request, pod, old)
        }
        ("", "namespaces", Outcome { new: Some(namespace), old }) => {
            pod_security::check_namespace(request, namespace, old)
        }
        ("", "replicationcontrollers" | "podtemplates", Outcome { new: Some(object), .. })
        | ("apps" | "batch", _, Outcome { new: Some(object), .. }) => {
            pod_security::check_template(request, object);
            Ok(())
        }
        ("", "persistentvolumeclaims", Outcome { new: Some(claim), old }) => {
            limit_ranger::check(request, claim)?;
            old.map_or(Ok(()), |old| storage::check_growth(request, claim, old))
        }
        ("scheduling.k8s.io", "priorityclasses", Outcome { new: None, .. }) => {
            priority_class::on_delete(named)
        }
        _ => Ok(()),
    }
}
