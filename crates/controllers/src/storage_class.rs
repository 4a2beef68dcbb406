//! The class of volumes that every cluster has: folders of the pods' hosts.

use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use objects::LOCAL_PATH;

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::key::Key;
use crate::plan::{Plan, create};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// Its name.
const NAME: &str = "local-path";

/// Keeps the class of folders. What a person changes of it stays: a class that is no default any more is none.
pub(crate) struct FolderClass;

impl Controller for FolderClass {
    fn name(&self) -> &'static str {
        "storage-class"
    }

    fn component(&self) -> &'static str {
        LOCAL_PATH
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn stays(&self) -> bool {
        true
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<StorageClass>();
    }

    fn all(&self, _: &View, due: &mut Due<'_>) {
        due.now("", NAME);
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<StorageClass>(change);
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        if key.name() == NAME && view.table::<StorageClass>().get("", NAME).is_none() {
            create(&class()).into_iter().for_each(|write| plan.write(write));
        }
        plan
    }
}

fn class() -> StorageClass {
    StorageClass {
        metadata: ObjectMeta {
            name: Some(NAME.into()),
            annotations: Some(
                [("storageclass.kubernetes.io/is-default-class".to_owned(), "true".to_owned())].into(),
            ),
            ..ObjectMeta::default()
        },
        provisioner: LOCAL_PATH.into(),
        reclaim_policy: Some("Delete".into()),
        // A folder is on one host: the first pod's.
        volume_binding_mode: Some("WaitForFirstConsumer".into()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    }
}
