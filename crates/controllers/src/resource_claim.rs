//! Claims of devices: those that pods have by a template are made, and devices are given back once no pod uses them.
//!
//! Follows `pkg/controller/resourceclaim`. Which devices a claim gets is the scheduler's business.

mod making;

use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use objects::{Change, DEVICES_FINALIZER, Meta, Pod};
use serde_json::json;

use crate::controller::{Controller, Due, Moment, Urgency, both, latest};
use crate::index::{By, Group, Owner};
use crate::key::Key;
use crate::plan::{Plan, delete, merge_this};
use crate::pods;
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::{View, controller_of};

const COMPONENT: &str = "resource_claim";

/// Makes the claims that pods have by a template.
pub(crate) struct PodClaims;

impl Controller for PodClaims {
    fn name(&self) -> &'static str {
        "pod-claims"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Workload
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<ResourceClaimTemplate>();
        watches.index::<By<Owner<ResourceClaim>>>();
        watches.index::<By<OfTemplate>>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<Pod>().iter().filter(|pod| making::templates(pod).next().is_some()));
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        if let Some(Change { new: Some(pod), .. }) = change.of::<Pod>()
            && making::templates(pod).next().is_some()
        {
            due.object(pod.as_ref());
        }
        for claim in change.of::<ResourceClaim>().into_iter().flat_map(both) {
            if let Some(owner) = controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod") {
                due.now(claim.metadata.namespace(), &owner.name);
            }
        }
        if let Some(template) = change.of::<ResourceClaimTemplate>().and_then(latest) {
            let place = format!("{}/{}", template.metadata.namespace(), template.metadata.name());
            due.objects(view.by::<OfTemplate>(&place));
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let pod = view.table::<Pod>().get(key.namespace(), key.name());
        pod.map(|pod| making::reconcile(view, pod)).unwrap_or_default()
    }
}

/// Pods by the templates of their claims, `NAMESPACE/NAME`.
struct OfTemplate;

impl Group for OfTemplate {
    type Of = Pod;

    fn values(pod: &Pod, each: &mut dyn FnMut(&str)) {
        let namespace = pod.metadata.namespace();
        making::templates(pod).for_each(|(_, template)| each(&format!("{namespace}/{template}")));
    }
}

/// Takes devices from claims that no pod uses any more.
pub(crate) struct UsedClaims;

impl Controller for UsedClaims {
    fn name(&self) -> &'static str {
        "used-claims"
    }

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<Pod>();
        watches.table::<ResourceClaim>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<ResourceClaim>().iter());
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<ResourceClaim>(change);
        let Some(Change { old, new, .. }) = change.of::<Pod>() else { return };
        // Only its end matters, and that it is another pod now.
        let ended = new.as_ref().is_none_or(|pod| is_done(pod));
        let replaced =
            old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| old.metadata.uid != new.metadata.uid);
        if ended || replaced {
            for pod in [old, new].into_iter().flatten() {
                making::names(pod).for_each(|name| due.now(pod.metadata.namespace(), name));
            }
        }
    }

    fn reconcile(&self, view: &View, key: &Key, _: &Moment<'_>) -> Plan {
        let claim = view.table::<ResourceClaim>().get(key.namespace(), key.name());
        claim.map(|claim| reconcile_claim(view, claim)).unwrap_or_default()
    }
}

/// Whether a pod uses no devices any more, or never will.
fn is_done(pod: &Pod) -> bool {
    pods::is_finished(pod) || (pod.metadata.deletion_timestamp.is_some() && pod.node().is_none())
}

fn reconcile_claim(view: &View, claim: &ResourceClaim) -> Plan {
    let mut plan = Plan::default();
    let namespace = claim.metadata.namespace();
    let pod = |name: &str, uid: &str| {
        view.table::<Pod>().get(namespace, name).filter(|pod| pod.metadata.uid() == Some(uid))
    };
    let status = claim.status.as_ref();
    let reserved = status.and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
    // Other users enter themselves in the claim, and remove that themselves.
    let is_used = |user: &&ResourceClaimConsumerReference| {
        let ResourceClaimConsumerReference { api_group, resource, name, uid } = *user;
        let is_pod = api_group.as_deref().unwrap_or_default().is_empty() && resource == "pods";
        !is_pod || pod(name, uid).is_some_and(|pod| !is_done(pod))
    };
    let used: Vec<_> = reserved.iter().filter(is_used).collect();
    let is_kept = claim.metadata.finalizers().iter().any(|known| known == DEVICES_FINALIZER);
    let is_going = claim.metadata.deletion_timestamp.is_some();
    let has_devices = status.is_some_and(|status| status.allocation.is_some());
    if used.len() < reserved.len() || (is_going && is_kept && used.is_empty() && has_devices) {
        let mut status = json!({"reservedFor": if used.is_empty() { json!(null) } else { json!(used) }});
        // What another controller allocated, that one takes back.
        if used.is_empty() && is_kept {
            status["allocation"] = json!(null);
        }
        plan.write(merge_this(claim, "status", json!({"status": status})));
    } else if is_going && is_kept && !has_devices {
        // Not earlier: the scheduler may just have put it there, for what it is about to allocate.
        let others: Vec<_> =
            claim.metadata.finalizers().iter().filter(|known| *known != DEVICES_FINALIZER).collect();
        plan.write(merge_this(claim, "", json!({"metadata": {"finalizers": others}})));
    } else if !is_going && used.is_empty() {
        let owner = controller_of(&claim.metadata).filter(|owner| owner.kind == "Pod");
        if owner.and_then(|owner| pod(&owner.name, &owner.uid)).is_some_and(|pod| is_done(pod)) {
            plan.write(delete(claim));
        }
    }
    plan
}
