//! Secrets with a service account's token go with the account: `pkg/controller/serviceaccount/tokens_controller.go`.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use objects::{Change, Reader};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::key::Key;
use crate::plan::{Plan, delete};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Deletes the token Secrets of accounts that went.
pub(crate) struct AccountTokens;

impl Controller for AccountTokens {
    fn name(&self) -> &'static str {
        "account-token"
    }

    fn component(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<ServiceAccount>();
    }

    fn all(&self, _: &View, _: &mut Due<'_>) {
        // Which accounts went while nobody looked, nothing says.
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        let Some(Change { old: Some(old), new, .. }) = change.of::<ServiceAccount>() else { return };
        if new.as_ref().and_then(|new| new.metadata.uid.as_ref()) != old.metadata.uid.as_ref() {
            due.object(old.as_ref());
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        reconcile(view, key.namespace(), key.name())
    }
}

/// Deletes the token Secrets of an account that is not there any more.
fn reconcile(view: &View, namespace: &str, name: &str) -> Plan {
    let mut plan = Plan::default();
    let account =
        view.table::<ServiceAccount>().get(namespace, name).and_then(|account| account.metadata.uid.clone());
    for secret in Reader::<Secret>::list_in(view.state(), namespace) {
        let annotation = |key: &str| secret.metadata.annotations.as_ref().and_then(|a| a.get(key));
        let of_name = secret.type_.as_deref() == Some(TYPE) && annotation(NAME).is_some_and(|n| n == name);
        // A Secret without a uid was never filled in: it waits for whatever account of that name.
        let of_another = annotation(UID).is_some_and(|uid| account.as_ref() != Some(uid));
        if of_name && of_another && secret.metadata.deletion_timestamp.is_none() {
            plan.write(delete(&secret));
        }
    }
    plan
}
