//! A request as others see it: `AdmissionRequest` of admission.k8s.io/v1.

use machinery::{Object, Resource, Status};
use serde_json::{Value, json};

use super::Outside;
use super::matching::operation;
use crate::admission::{AdmissionRequest, Outcome};

/// The request as `resource`, without the objects.
pub(super) fn request_value(request: &AdmissionRequest<'_>, resource: &Resource) -> Value {
    let own = request.named.resource;
    let subresource = request.subresource;
    let mut value = json!({
        "kind": kind(resource, subresource),
        "resource": {"group": resource.group, "version": resource.version, "resource": resource.plural},
        "requestKind": kind(own, subresource),
        "requestResource": {"group": own.group, "version": own.version, "resource": own.plural},
        "name": request.named.name,
        "operation": operation(request),
        "userInfo": request.who.user_info(),
        "dryRun": request.dry_run,
        "options": request.options,
    });
    if !subresource.is_empty() {
        value["subResource"] = json!(subresource);
        value["requestSubResource"] = json!(subresource);
    }
    let is_namespace = (own.group, own.plural) == ("", "namespaces");
    let namespace = if is_namespace { request.named.name } else { request.named.namespace };
    if !namespace.is_empty() {
        value["namespace"] = json!(namespace);
    }
    value
}

fn kind(resource: &Resource, subresource: &str) -> Value {
    let (group, version, kind) = match resource.subresource(subresource) {
        Some(part) if !part.version.is_empty() => (part.group, part.version, part.kind),
        Some(part) => (resource.group, resource.version, part.kind),
        None => (resource.group, resource.version, resource.kind),
    };
    json!({"group": group, "version": version, "kind": kind})
}

/// What a request changes, in the form of `resource`.
pub(super) struct Shown {
    pub(super) new: Option<Object>,
    pub(super) old: Option<Object>,
}

impl Outside {
    /// What a request changes, as it is shown to a policy or a webhook that wants to see it as `resource`.
    pub(super) async fn show(
        &self,
        request: &AdmissionRequest<'_>,
        outcome: Outcome<'_>,
        resource: &Resource,
    ) -> Result<Shown, Status> {
        let own = request.named.resource;
        if let Some(custom) = own.custom().filter(|_| request.subresource != "scale" && *own != *resource) {
            let objects = outcome.new.into_iter().chain(outcome.old).cloned().collect();
            let wanted = resource.api_version();
            let shown =
                self.converter.convert(custom.definition(), objects, &wanted).await.map_err(internal)?;
            let mut shown = shown.into_iter();
            let new = outcome.new.and_then(|_| shown.next());
            return Ok(Shown { new, old: shown.next() });
        }
        let show = |object: &Object| shown(request, object, resource);
        Ok(Shown { new: outcome.new.map(show), old: outcome.old.map(show) })
    }

    /// The object that was shown, brought back into the request's own form; `object` is what it was there.
    pub(super) async fn take_back(
        &self,
        request: &AdmissionRequest<'_>,
        mut changed: Object,
        object: &Object,
        resource: &Resource,
    ) -> Result<Object, Status> {
        let own = request.named.resource;
        if request.subresource == "scale" {
            let mut whole = object.clone();
            machinery::apply_scale(own, &mut whole, &changed)?;
            return Ok(whole);
        }
        if *own == *resource {
            return Ok(changed);
        }
        if let Some(custom) = own.custom() {
            let (definition, wanted) = (custom.definition(), own.api_version());
            let back = self.converter.convert(definition, vec![changed], &wanted).await.map_err(internal)?;
            return back.into_iter().next().ok_or_else(|| Status::internal("a conversion came to nothing"));
        }
        machinery::to_stored(resource, &mut changed);
        machinery::from_stored(own, &mut changed);
        Ok(changed)
    }
}

fn internal(status: Status) -> Status {
    Status::internal(status.message)
}

/// An object of the program's own kinds in the form of `resource`; of a scale, the scale.
fn shown(request: &AdmissionRequest<'_>, object: &Object, resource: &Resource) -> Object {
    let own = request.named.resource;
    if request.subresource == "scale" {
        return machinery::scale_of(own, object).unwrap_or_else(|| object.clone());
    }
    let mut object = object.clone();
    if *own != *resource {
        machinery::to_stored(own, &mut object);
        machinery::from_stored(resource, &mut object);
    }
    object
}
