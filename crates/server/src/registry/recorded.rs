//! Under whose name the fields of a write are recorded in `metadata.managedFields`.

use machinery::{Conversions, FieldManager, Object, Resource, Typing};
use serde_json::{Value, json};

use super::Registry;
use crate::conversion::by_webhook;

/// The writer, for the record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Recorded<'a> {
    /// A create, an update or a patch by the field manager of that name.
    Update(&'a str),
    /// The object has its managed fields already.
    Already,
}

impl Recorded<'_> {
    /// Records at the time `now` in `new`, which has its defaults and nothing else of the server's yet, what it changes of
    /// `old`. What others own in versions that only a webhook can make stays theirs.
    pub(crate) fn update(
        self,
        resource: &Resource,
        subresource: &str,
        old: Option<&Object>,
        new: &mut Object,
        now: &str,
    ) {
        if let Recorded::Update(name) = self {
            let version = resource.api_version();
            let recorded = manager(name, resource, &version, subresource, now).update(old, new);
            debug_assert_eq!(recorded, Ok(()), "nothing is missing where nobody is asked");
        }
    }
}

impl Registry {
    /// Likewise, in all versions. When the webhook fails, the write goes on: a manager that owned something in another
    /// version may then own more than is right, so that appliers may see too many conflicts, but never too few.
    pub(super) async fn record(
        &self,
        recorded: Recorded<'_>,
        resource: &Resource,
        subresource: &str,
        old: Option<&Object>,
        new: &mut Object,
    ) {
        let now = self.edge.time();
        let (Recorded::Update(name), Some(custom)) = (recorded, by_webhook(resource)) else {
            return recorded.update(resource, subresource, old, new, &now);
        };
        let version = resource.api_version();
        let conversions = Conversions::default();
        let manager = FieldManager {
            conversions: Some(&conversions),
            ..manager(name, resource, &version, subresource, &now)
        };
        loop {
            let mut told = new.clone();
            if manager.update(old, &mut told).is_ok() {
                *new = told;
                return;
            }
            if let Err(status) = self.converter.make(custom, &conversions).await {
                let object = new.name();
                tracing::warn!(%status, object, "the owners of its fields in other versions can't be brought up to date");
                return recorded.update(resource, subresource, old, new, &now);
            }
        }
    }
}

impl Recorded<'_> {
    /// The options of a write of that kind, as admission sees them.
    pub(super) fn options(self, kind: &str, dry_run: bool) -> Value {
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if let Recorded::Update(name) = self {
            options["fieldManager"] = json!(name);
        }
        options
    }
}

/// The field manager of that name, for an object of `resource`.
pub(super) fn manager<'a>(
    name: &'a str,
    resource: &'a Resource,
    api_version: &'a str,
    subresource: &'a str,
    now: &'a str,
) -> FieldManager<'a> {
    let has_status = resource.subresource("status").is_some();
    let typing = Typing::Resource(resource);
    FieldManager { name, api_version, subresource, typing, has_status, now, conversions: None }
}

/// The field manager's name of a part of the cluster that writes as `user`: that of upstream's program for it.
pub(super) fn name_of_user(user: &str) -> &str {
    match user {
        "system:apiserver" => "kube-apiserver",
        user if user.starts_with("system:node:") => "kubelet",
        user => user.strip_prefix("system:").unwrap_or(user),
    }
}

/// A write that changes nothing but when a manager wrote changes nothing.
pub(super) fn keep_times(new: &mut Object, old: &Object) {
    let (ours, theirs) = (new.meta("managedFields"), old.meta("managedFields"));
    if ours == theirs || !machinery::same_but_times(ours, theirs) {
        return;
    }
    let (Some(ours), Some(theirs)) = (ours.cloned(), theirs.cloned()) else { return };
    new.set_meta("managedFields", theirs);
    if new != old {
        new.set_meta("managedFields", ours);
    }
}
