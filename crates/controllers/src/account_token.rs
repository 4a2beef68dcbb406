//! Secrets with a service account's token go with the account: `pkg/controller/serviceaccount/tokens_controller.go`.

use k8s_openapi::api::core::v1::Secret;
use objects::Reader;

use crate::plan::{Plan, delete};
use crate::view::View;

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// Deletes the token Secrets of an account that is not there any more.
pub fn reconcile(view: &View, namespace: &str, name: &str) -> Plan {
    let mut plan = Plan::default();
    let account = view.service_accounts.get(namespace, name).and_then(|account| account.metadata.uid.clone());
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
