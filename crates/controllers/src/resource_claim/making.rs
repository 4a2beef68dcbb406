//! The claims of a pod that it has by a template: each is made once, and the pod's status says how it is called.

use k8s_openapi::api::core::v1::PodResourceClaimStatus;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use machinery::Object;
use objects::{Meta, Occurrence, Pod, Write};
use serde_json::json;

use crate::index::Owner;
use crate::plan::{Action, Plan, merge_this};
use crate::pod_writes::owner_reference;
use crate::pods;
use crate::view::View;

/// The annotation of a claim with the name that it has in its pod (`k8s.io/api/resource/v1`, `PodResourceClaimAnnotation`).
const NAMED: &str = "resource.kubernetes.io/pod-claim-name";
const FAILED: &str = "FailedResourceClaimCreation";

pub(super) fn reconcile(view: &View, pod: &Pod) -> Plan {
    let mut plan = Plan::default();
    if !pods::is_active(pod) {
        return plan;
    }
    let known = pod.status.as_ref().map(|status| status.resource_claim_statuses.to_vec()).unwrap_or_default();
    let mut made = known.clone();
    for (name, template) in templates(pod) {
        // None is needed.
        if pod.made_claim(name) == Some(None) {
            continue;
        }
        if let Some(claim) = own(view, pod, name) {
            let status = PodResourceClaimStatus {
                name: name.to_owned(),
                resource_claim_name: claim.metadata.name.clone(),
            };
            made.retain(|known| known.name != name);
            made.push(status);
        } else {
            create(view, pod, name, template, &mut plan);
        }
    }
    made.sort_by(|a, b| a.name.cmp(&b.name));
    let mut before = known;
    before.sort_by(|a, b| a.name.cmp(&b.name));
    if made != before {
        plan.write(merge_this(pod, "status", json!({"status": {"resourceClaimStatuses": made}})));
    }
    plan
}

/// The claim that was made for one of a pod's claims.
fn own<'a>(view: &'a View, pod: &Pod, name: &str) -> Option<&'a ResourceClaim> {
    let mut owned = view.by::<Owner<ResourceClaim>>(pod.metadata.uid().unwrap_or_default());
    let is_it = |claim: &ResourceClaim| {
        claim.metadata.annotations().and_then(|all| all.get(NAMED)).map(String::as_str) == Some(name)
    };
    owned.find(|claim| is_it(claim)).map(AsRef::as_ref)
}

fn create(view: &View, pod: &Pod, name: &str, template: &str, plan: &mut Plan) {
    let namespace = pod.metadata.namespace();
    let Some(template) = view.table::<ResourceClaimTemplate>().get(namespace, template) else {
        let why = format!(
            "PodResourceClaim {name}: resource claim template {template:?}: resourceclaimtemplate.resource.k8s.io \
             {template:?} not found"
        );
        plan.told.push(Occurrence::of(pod, true, FAILED, why));
        return;
    };
    let spec = &template.spec;
    let metadata = spec.metadata.as_ref();
    let mut annotations = metadata.and_then(|metadata| metadata.annotations.clone()).unwrap_or_default();
    annotations.insert(NAMED.to_owned(), name.to_owned());
    let claim = json!({
        "kind": "ResourceClaim", "apiVersion": "resource.k8s.io/v1",
        "metadata": {
            "generateName": format!("{}-{name}-", pod.metadata.name()), "namespace": namespace,
            "labels": metadata.and_then(|metadata| metadata.labels.clone()), "annotations": annotations,
            "ownerReferences": [owner_reference(pod)],
        },
        "spec": spec.spec,
    });
    let Some(claim) = Object::from_value(claim) else { return };
    let mut action = Action::from(Write::Create(claim));
    let why = format!("PodResourceClaim {name}: create ResourceClaim : {{}}");
    action.refused = Some(Occurrence::of(pod, true, FAILED, why));
    plan.actions.push(action);
}

/// The claims that a pod has by a template, each with the template.
pub(super) fn templates(pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
    let claims = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    claims.filter_map(|claim| Some((claim.name.as_str(), claim.resource_claim_template_name.as_deref()?)))
}

/// The names of the claims that a pod uses, as far as they are known.
pub(super) fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    let claims = pod.spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
    claims.filter_map(|claim| {
        claim.resource_claim_name.as_deref().or_else(|| pod.made_claim(&claim.name).flatten())
    })
}
