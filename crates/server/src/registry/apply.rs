//! Server-side apply: makes an object, or changes the fields that its applier wants.

use machinery::{Conversions, FieldManager, Object, Patch, Status};

use super::create::{ATTEMPTS, too_busy};
use super::recorded::manager;
use super::{Create, Recorded, Registry, Update, Written};

/// A request to apply.
pub(crate) struct Apply<'a> {
    /// Which object, and by whom.
    pub(crate) change: Update<'a>,
    /// The applier's name.
    pub(crate) manager: &'a str,
    /// Whether it takes fields from others.
    pub(crate) force: bool,
}

/// What became of it.
pub(crate) struct Applied {
    pub(crate) written: Written,
    /// Whether the object is new.
    pub(crate) created: bool,
}

impl Registry {
    /// Applies `patch`; `finish` makes an object that fits its kind of what comes out.
    pub(crate) async fn apply(
        &self,
        request: &Apply<'_>,
        patch: &Object,
        finish: &(dyn Fn(Object) -> Result<Object, Status> + Send + Sync),
    ) -> Result<Applied, Status> {
        let Update { who, named, subresource, dry_run, .. } = request.change;
        let (version, now) = (named.resource.api_version(), self.edge.time());
        let conversions = Conversions::default();
        let manager = FieldManager {
            conversions: Some(&conversions),
            ..manager(request.manager, named.resource, &version, subresource, &now)
        };
        let patch_of = Patch { object: patch, force: request.force };
        let change = Update { recorded: Recorded::Already, ..request.change };
        for _ in 0..ATTEMPTS {
            let merged = |old: &Object| {
                // The patch itself decides which version it is for.
                finish(manager.apply(Some(old), &patch_of)?)
            };
            let changed = self.change(&change, &merged).await;
            if let (true, Some(custom)) = (conversions.lacks_some(), named.resource.custom()) {
                self.converter.make(custom, &conversions).await?;
                continue;
            }
            match changed {
                Err(status)
                    if status.code == 404 && status.reason == "NotFound" && subresource.is_empty() => {}
                changed => return Ok(Applied { written: changed?, created: false }),
            }
            self.check_may_create(who, &named)?;
            check_new(&change, patch)?;
            let create = Create {
                who,
                resource: named.resource,
                namespace: named.namespace,
                dry_run,
                recorded: Recorded::Already,
            };
            match self.create(&create, &|| finish(manager.apply(None, &patch_of)?)).await {
                // Somebody made it in between: then it is changed.
                Err(status) if status.reason == "AlreadyExists" => {}
                created => return Ok(Applied { written: created?, created: true }),
            }
        }
        Err(too_busy())
    }
}

/// An applier that names the very object that it means doesn't mean a new one.
fn check_new(change: &Update<'_>, patch: &Object) -> Result<(), Status> {
    if !patch.uid().is_empty() {
        return Err(change.named.conflict(&format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            patch.uid()
        )));
    }
    if patch.name().is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            change.named.name
        )));
    }
    if !patch.resource_version().is_empty() {
        let why = "the provided object specified a resourceVersion, and no existing object was found";
        return Err(change.named.conflict(why));
    }
    Ok(())
}
