//! The subresource `scale`: a resource's replicas in a form that is the same for all resources.

use machinery::{FieldManager, Object, Patch, Status, Typing};
use objects::{Named, load};
use serde_json::{Value, json};

use super::read::Freshness;
use super::{Apply, Recorded, Registry, Update};

/// Stands for a number of replicas that nobody has set: what is left of it in a scale that is written is an error.
const NOT_SET: i64 = i32::MIN as i64;

fn no_scale(named: &Named<'_>) -> Status {
    Status::not_found(named.resource.group, named.resource.plural, "scale")
}

impl Registry {
    /// The scale of an object.
    pub(crate) async fn scale(&self, named: &Named<'_>, freshness: Freshness) -> Result<Object, Status> {
        let object = load(&*self.get(named, freshness).await?)?;
        if let Some(path) = machinery::missing_replicas(named.resource, &object) {
            return Err(Status::internal(format!("the spec replicas field {path:?} does not exist")));
        }
        machinery::scale_of(named.resource, &object).ok_or_else(|| no_scale(named))
    }

    /// Changes the scale of an object by `change`, which gets the scale with its managed fields; the answer is
    /// the scale.
    pub(crate) async fn change_scale(
        &self,
        request: &Update<'_>,
        change: &(dyn Fn(&Object) -> Result<Object, Status> + Send + Sync),
    ) -> Result<Object, Status> {
        let named = &request.named;
        let now = self.edge.time();
        let change_object = |object: &Object| {
            let mut old = machinery::scale_of(named.resource, object).ok_or_else(|| no_scale(named))?;
            let missing = machinery::missing_replicas(named.resource, object);
            if missing.is_some() {
                old.0.insert("spec".into(), json!({ "replicas": NOT_SET }));
            }
            let recorded = object.meta("managedFields");
            if let Some(managed) = machinery::managed_of_scale(named.resource, recorded) {
                old.set_meta("managedFields", managed);
            }
            let mut new = change(&old)?;
            if new.name() != named.name {
                let message = "the name of the scale does not match the name on the URL";
                return Err(Status::bad_request(message));
            }
            let asked = new.pointer("/spec/replicas").and_then(Value::as_i64);
            if let Some(path) = missing.filter(|_| asked == Some(NOT_SET)) {
                return Err(Status::bad_request(format!("the spec replicas field {path:?} cannot be empty")));
            }
            if !new.uid().is_empty() && new.uid() != object.uid() {
                let (given, found) = (new.uid(), object.uid());
                let why = format!("UID in precondition: {given}, UID in object meta: {found}");
                return Err(named.precondition_failed(&why));
            }
            if let Recorded::Update(name) = request.recorded {
                scale_manager(name, &now).update(Some(&old), &mut new)?;
            }
            let mut object = object.clone();
            machinery::apply_scale(named.resource, &mut object, &new)?;
            match machinery::managed_of_object(named.resource, recorded, new.meta("managedFields")) {
                Some(managed) => object.set_meta("managedFields", managed),
                None => {
                    object.remove_meta("managedFields");
                }
            }
            if !new.resource_version().is_empty() {
                object.set_meta("resourceVersion", new.resource_version());
            }
            Ok(object)
        };
        let plain = Update { subresource: "scale", recorded: Recorded::Already, ..*request };
        let written = self.change(&plain, &change_object).await?;
        machinery::scale_of(named.resource, &written.into_object()?).ok_or_else(|| no_scale(named))
    }

    /// Applies a scale.
    pub(crate) async fn apply_scale(&self, request: &Apply<'_>, patch: &Object) -> Result<Object, Status> {
        let now = self.edge.time();
        let patch = Patch { object: patch, force: request.force };
        let change = Update { recorded: Recorded::Already, ..request.change };
        let manager = scale_manager(request.manager, &now);
        self.change_scale(&change, &|old| manager.apply(Some(old), &patch)).await
    }
}

fn scale_manager<'a>(name: &'a str, now: &'a str) -> FieldManager<'a> {
    FieldManager {
        name,
        api_version: "autoscaling/v1",
        subresource: "scale",
        typing: Typing::Published(api::SCALE),
        has_status: false,
        now,
        conversions: None,
    }
}
