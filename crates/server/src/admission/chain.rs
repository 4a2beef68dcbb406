//! What is asked about a change, and in which order: as upstream, all that may change the object, then all that
//! only judge it, and quotas last, once nothing else can refuse.

use machinery::{Object, Status};

use super::outside::{Outside, Round};
use super::request::{AdmissionRequest, Operation, Outcome};
use super::{
    Claims, Refused, certificate, default_class, idle, limit_ranger, node, pod_security, priority,
    priority_class, quota, runtime_class, service_account, storage, toleration,
};

/// Everybody who is asked.
pub(crate) struct Admission {
    outside: Outside,
}

impl Admission {
    /// The chain, with the policies and webhooks that are configured.
    pub(crate) fn new(outside: Outside) -> Self {
        Admission { outside }
    }

    /// Those who may change an object that is to be created or changed, before it is validated.
    pub(crate) async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut Object,
        old: Option<&Object>,
    ) -> Result<(), Refused> {
        complete(request, object, old)?;
        if !self.outside.may_change(request) {
            return Ok(());
        }
        let before = object.clone();
        if self.outside.mutate(request, object, old, Round::First).await? {
            // What others put in gets what the plugins give, and those that want to see it again do.
            self.outside.settle(request, object, &before, old)?;
            complete(request, object, old)?;
            if self.outside.mutate(request, object, old, Round::Again).await? {
                self.outside.settle(request, object, &before, old)?;
            }
        }
        Ok(())
    }

    /// Those outside who judge what is done to an object through a subresource that isn't a part of it.
    pub(crate) async fn validate_action(
        &self,
        request: &AdmissionRequest<'_>,
        action: &Object,
    ) -> Result<(), Status> {
        let outcome = Outcome { new: Some(action), old: None };
        self.outside.validate(request, outcome).await.map_err(|refused| refused.status)
    }

    /// Those outside who are asked about a stream or a proxy: the answer is its options as they made them.
    pub(crate) async fn connect(
        &self,
        request: &AdmissionRequest<'_>,
        mut options: Object,
    ) -> Result<Object, Refused> {
        if self.outside.mutate(request, &mut options, None, Round::First).await? {
            self.outside.mutate(request, &mut options, None, Round::Again).await?;
        }
        self.outside.validate(request, Outcome { new: Some(&options), old: None }).await?;
        Ok(options)
    }

    /// Those who judge the placing of a pod, as others know it: a binding that is created. Of the plugins, only the one for
    /// agents of hosts has something to say to it.
    pub(crate) async fn judge_binding(
        &self,
        request: &AdmissionRequest<'_>,
        binding: &Object,
    ) -> Result<(), Refused> {
        node::check_change(request, binding)?;
        self.outside.validate(request, Outcome { new: Some(binding), old: None }).await
    }

    /// Those who judge a change of a valid object. What they count is claimed together with the change.
    pub(crate) async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        outcome: Outcome<'_>,
        claims: &mut Claims,
    ) -> Result<(), Refused> {
        if let (Operation::Delete, Some(old)) = (request.operation, outcome.old) {
            self.outside.before_delete(request, old).await?;
        }
        judge(request, outcome)?;
        self.outside.validate(request, outcome).await?;
        quota::charge(request, outcome, claims)?;
        if let Some(new) = outcome.new {
            idle::tell(request, new);
        }
        Ok(())
    }
}

/// The plugins that change objects, in upstream's order.
fn complete(request: &AdmissionRequest<'_>, object: &mut Object, old: Option<&Object>) -> Result<(), Status> {
    let (named, state) = (&request.named, request.state);
    if request.operation == Operation::Create {
        node::check_create(request, object)?;
    }
    match (named.resource.group, named.resource.plural, old) {
        ("", "pods", None) => complete_pod(request, object),
        ("", "pods", Some(old)) => {
            priority::keep(object, old);
            Ok(())
        }
        ("storage.k8s.io", "volumeattributesclasses", None) => {
            storage::protect(object, "kubernetes.io/vac-protection");
            Ok(())
        }
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
            certificate::on_update(object, old, &request.edge.time());
            Ok(())
        }
        ("scheduling.k8s.io", "priorityclasses", _) => priority_class::check(named, object, state),
        _ => Ok(()),
    }
}

/// What a new pod gets.
fn complete_pod(request: &AdmissionRequest<'_>, pod: &mut Object) -> Result<(), Status> {
    limit_ranger::complete(request, pod);
    service_account::complete(request, pod)?;
    priority::complete(request, pod)?;
    toleration::tolerate(pod);
    runtime_class::complete(request, pod)
}

/// The plugins that only judge, in upstream's order.
fn judge(request: &AdmissionRequest<'_>, outcome: Outcome<'_>) -> Result<(), Status> {
    let named = &request.named;
    if let Some(new) = outcome.new {
        node::check_outcome(request, new, outcome.old)?;
    }
    match (named.resource.group, named.resource.plural, outcome) {
        ("", "pods", Outcome { new: Some(pod), old }) => {
            limit_ranger::check(request, pod)?;
            service_account::check(request, pod)?;
            runtime_class::check(request, pod)?;
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
        ("certificates.k8s.io", "certificatesigningrequests", Outcome { new: Some(asked), .. }) => {
            certificate::check(request, asked)
        }
        ("scheduling.k8s.io", "priorityclasses", Outcome { new: None, .. }) => {
            priority_class::on_delete(named)
        }
        _ => Ok(()),
    }
}
