//! Who is asked about a change, and in which order: as upstream, all who may change the object, then all who
//! only judge it, and quotas last, once nothing else can refuse.

use api::{Object, Status};

use super::request::{Operation, Outcome, Request};
use super::{certificate, node, pod, priority_class};
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
        ("", "pods", None) => pod::on_create(named, object, state),
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

/// The plugins that only judge, in upstream's order.
fn judge(request: &Request<'_>, _outcome: Outcome<'_>) -> Result<(), Status> {
    let named = &request.named;
    match (named.resource.group, named.resource.plural, request.operation) {
        ("scheduling.k8s.io", "priorityclasses", Operation::Delete) => priority_class::on_delete(named),
        _ => Ok(()),
    }
}
