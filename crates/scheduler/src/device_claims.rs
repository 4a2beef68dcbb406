//! A pod's claims of devices: where those that have theirs can be used, and which devices the others get.
//!
//! Follows `plugins/dynamicresources` upstream. What a claim gets with a pod's node is promised to it until the state shows it, and
//! written before the pod is bound: the allocation, for whom it is, and a finalizer that keeps the claim as long as it has devices.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use devices::{Ask, Inventory, Place};
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, ResourceClaim, ResourceClaimConsumerReference, ResourceSlice,
};
use objects::{Change, DEVICES_FINALIZER, Meta, Pod, Table, TypedRef, Write};
use serde_json::{Value, json};
use store::{Event, State};

use crate::cluster::key;
use crate::node::Node;
use crate::storage::{Refusal, is_in};
use crate::unschedulable::{Hope, Reason, Unschedulable};

/// The most pods that one claim's devices are for (`ResourceClaimReservedForMaxSize`).
const MOST_USERS: usize = 256;

/// The devices that a claim has are used elsewhere.
const NOT_HERE: &str = "resourceclaim not available on the node";

/// Claims, classes and devices.
#[derive(Debug, Default)]
pub(crate) struct DeviceClaims {
    claims: Table<ResourceClaim>,
    classes: Table<DeviceClass>,
    slices: Table<ResourceSlice>,
    /// What there is, and what of it claims have or are promised.
    inventory: Arc<Inventory>,
    /// What claims get, `NAMESPACE/NAME`, of which the state may say nothing yet.
    promised: HashMap<String, AllocationResult>,
    /// For which pod that was promised, with its claims.
    pods: HashMap<Bytes, Vec<String>>,
}

/// What a pod's claims of devices ask of its node.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeviceNeed {
    /// Where the devices are used that claims have.
    places: Vec<Arc<NodeSelector>>,
    /// What the other claims ask for.
    asks: Vec<Arc<Ask>>,
    /// Of what they get it.
    inventory: Arc<Inventory>,
}

impl PartialEq for DeviceNeed {
    // An inventory that others hold is copied before it is changed: the same place is the same content.
    fn eq(&self, other: &Self) -> bool {
        self.places == other.places
            && self.asks == other.asks
            && (self.asks.is_empty() || Arc::ptr_eq(&self.inventory, &other.inventory))
    }
}

impl DeviceNeed {
    /// What stands against a node because of devices.
    pub fn against(&self, node: &Node) -> Option<Reason> {
        let reason = |text: &str| Some(Reason::new(text, Hope::NODES | Hope::VOLUMES));
        if !self.places.iter().all(|place| is_in(node, Some(place))) {
            return reason(NOT_HERE);
        }
        if self.asks.is_empty() {
            return None;
        }
        match devices::allocate(&self.asks, place_of(node), &self.inventory) {
            Ok(Some(_)) => None,
            Ok(None) => reason("cannot allocate all claims"),
            Err(why) => reason(&why),
        }
    }
}

fn place_of(node: &Node) -> Place<'_> {
    Place { name: node.name(), labels: node.metadata.labels() }
}

impl DeviceClaims {
    /// Takes in all of a state.
    pub fn load(state: &State) -> Self {
        let mut all = DeviceClaims {
            claims: Table::load(state),
            classes: Table::load(state),
            slices: Table::load(state),
            ..DeviceClaims::default()
        };
        let inventory = Arc::make_mut(&mut all.inventory);
        all.slices.iter().for_each(|slice| inventory.set_slice(None, Some(slice)));
        all.claims
            .iter()
            .filter_map(|claim| allocation(claim))
            .for_each(|has| inventory.set_taken(has, true));
        all
    }

    /// Takes one change in. False if it is of something else.
    pub fn apply(&mut self, event: &Event) -> bool {
        if let Some(Change { old, new, .. }) = self.slices.apply(event) {
            Arc::make_mut(&mut self.inventory).set_slice(old.as_ref(), new.as_ref());
            return true;
        }
        if let Some(Change { old, new, .. }) = self.claims.apply(event) {
            let had = old.as_deref().and_then(allocation);
            let has = new.as_deref().and_then(allocation);
            if had != has {
                let inventory = Arc::make_mut(&mut self.inventory);
                had.into_iter().for_each(|had| inventory.set_taken(had, false));
                has.into_iter().for_each(|has| inventory.set_taken(has, true));
            }
            return true;
        }
        self.classes.apply(event).is_some()
    }

    /// What a pod's claims of devices ask of its node.
    ///
    /// # Errors
    /// [`Refusal`] if they keep it from every node.
    pub fn need(&self, pod: &Pod) -> Result<DeviceNeed, Refusal> {
        let mut need = DeviceNeed::default();
        for claim in self.claims_of(pod)? {
            match allocation(claim) {
                Some(allocation) => {
                    let users = reserved(claim);
                    if !is_reserved(claim, pod) && users.len() >= MOST_USERS {
                        return Err(Refusal::Pod("resourceclaim in use".to_owned()));
                    }
                    need.places.extend(allocation.node_selector.clone().map(Arc::new));
                }
                // Two pods that write one claim at the same time would write over each other.
                None if self.promised.contains_key(&place(claim)) => {
                    let name = claim.metadata.name();
                    return Err(Refusal::Pod(format!(
                        "resourceclaim {name:?} is being allocated for another pod"
                    )));
                }
                None => need.asks.push(Arc::new(self.ask(claim)?)),
            }
        }
        if !need.asks.is_empty() {
            need.inventory = self.inventory.clone();
        }
        Ok(need)
    }

    fn ask(&self, claim: &ResourceClaim) -> Result<Ask, Refusal> {
        let class = |name: &str| self.classes.get("", name).cloned();
        Ask::of(&claim.spec, class).map_err(|why| {
            Refusal::Pod(format!("claim {}: {why}", claim.metadata.name.as_deref().unwrap_or_default()))
        })
    }

    /// A pod's claims.
    fn claims_of(&self, pod: &Pod) -> Result<Vec<&ResourceClaim>, Refusal> {
        let spec = pod.spec.as_ref();
        let named = spec.iter().flat_map(|spec| spec.resource_claims.iter().flatten());
        let mut claims = Vec::new();
        for wanted in named {
            let (name, is_own) = match (&wanted.resource_claim_name, pod.made_claim(&wanted.name)) {
                (Some(name), _) => (name.as_str(), false),
                // None is needed.
                (None, Some(None)) => continue,
                (None, Some(Some(name))) => (name, true),
                (None, None) => {
                    let (namespace, pod) = (pod.metadata.namespace(), pod.metadata.name());
                    let why = format!("pod \"{namespace}/{pod}\": ResourceClaim not created yet");
                    return Err(Refusal::Pod(why));
                }
            };
            claims.push(self.claim(pod, name, is_own)?);
        }
        Ok(claims)
    }

    fn claim(&self, pod: &Pod, name: &str, is_own: bool) -> Result<&ResourceClaim, Refusal> {
        let refused = |why: String| Err(Refusal::Pod(why));
        let Some(claim) = self.claims.get(pod.metadata.namespace(), name) else {
            return refused(format!("resourceclaim.resource.k8s.io {name:?} not found"));
        };
        let owners = claim.metadata.owners();
        if is_own && !owners.iter().any(|owner| Some(owner.uid.as_str()) == pod.metadata.uid()) {
            let (namespace, pod) = (pod.metadata.namespace(), pod.metadata.name());
            return refused(format!(
                "ResourceClaim {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
            ));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return refused(format!("resourceclaim {name:?} is being deleted"));
        }
        Ok(claim)
    }

    /// What has to be written before a pod is bound to a node; nothing if its claims have all that they need. Until
    /// [`DeviceClaims::release`] nobody else gets what its claims get.
    pub fn promise(&mut self, pod: &Pod, node: &Node) -> Option<Vec<Write>> {
        let claims: Vec<ResourceClaim> = self.claims_of(pod).ok()?.into_iter().cloned().collect();
        let open: Vec<&ResourceClaim> = claims.iter().filter(|claim| allocation(claim).is_none()).collect();
        let asks: Vec<_> = open.iter().filter_map(|claim| self.ask(claim).ok().map(Arc::new)).collect();
        let found = match asks.is_empty() {
            true => Vec::new(),
            false => devices::allocate(&asks, place_of(node), &self.inventory).ok()??,
        };
        for (claim, allocation) in open.iter().zip(found) {
            Arc::make_mut(&mut self.inventory).set_taken(&allocation, true);
            self.promised.insert(place(claim), allocation);
            self.pods.entry(key(pod)).or_default().push(place(claim));
        }
        let step = |claim: &ResourceClaim| {
            let new = self.promised.get(&place(claim)).filter(|_| allocation(claim).is_none());
            steps(claim, pod, new)
        };
        let writes: Vec<Write> = claims.iter().flat_map(step).collect();
        (!writes.is_empty()).then_some(writes)
    }

    /// What was promised for a pod is shown by the state, or it gets none of it. True if something was.
    pub fn release(&mut self, pod: &Bytes) -> bool {
        let Some(claims) = self.pods.remove(pod) else { return false };
        for allocation in claims.iter().filter_map(|claim| self.promised.remove(claim)) {
            Arc::make_mut(&mut self.inventory).set_taken(&allocation, false);
        }
        true
    }

    /// What gives devices back that keep a pod from nodes, and that nobody else uses (`PostFilter` upstream).
    pub fn give_back(&self, pod: &Pod, why: &Unschedulable) -> Vec<Write> {
        if !why.reasons.contains_key(NOT_HERE) {
            return Vec::new();
        }
        let claims = self.claims_of(pod).unwrap_or_default();
        let own = |user: &ResourceClaimConsumerReference| Some(user.uid.as_str()) == pod.metadata.uid();
        let idle = claims.into_iter().filter(|claim| {
            allocation(claim).is_some_and(|has| has.node_selector.is_some())
                && !self.promised.contains_key(&place(claim))
                && reserved(claim).iter().all(own)
        });
        let nothing = json!({"status": {"allocation": null, "reservedFor": null}});
        idle.map(|claim| of_version(claim, "status", nothing.clone())).collect()
    }
}

/// What gives a claim its devices, if it has none yet, and a pod the use of them.
fn steps(claim: &ResourceClaim, pod: &Pod, new: Option<&AllocationResult>) -> Vec<Write> {
    if new.is_none() && is_reserved(claim, pod) {
        return Vec::new();
    }
    let user = ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod.metadata.name().to_owned(),
        uid: pod.metadata.uid().unwrap_or_default().to_owned(),
    };
    let users: Vec<_> = reserved(claim).iter().filter(|other| other.uid != user.uid).chain([&user]).collect();
    let mut status = json!({"status": {"reservedFor": users}});
    let Some(allocation) = new else { return vec![of_version(claim, "status", status)] };
    status["status"]["allocation"] = json!(allocation);
    let finalizers = claim.metadata.finalizers();
    if finalizers.iter().any(|known| known == DEVICES_FINALIZER) {
        return vec![of_version(claim, "status", status)];
    }
    let kept: Vec<&str> = finalizers.iter().map(String::as_str).chain([DEVICES_FINALIZER]).collect();
    let keep = of_version(claim, "", json!({"metadata": {"finalizers": kept}}));
    // The first one holds for this version alone, and so does what follows it.
    vec![keep, Write::Merge { subject: TypedRef::of(claim), subresource: "status", patch: status }]
}

fn of_version(claim: &ResourceClaim, subresource: &'static str, mut patch: Value) -> Write {
    patch["metadata"]["resourceVersion"] = claim.metadata.resource_version().into();
    Write::Merge { subject: TypedRef::of(claim), subresource, patch }
}

fn allocation(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

fn reserved(claim: &ResourceClaim) -> &[ResourceClaimConsumerReference] {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default()
}

fn is_reserved(claim: &ResourceClaim, pod: &Pod) -> bool {
    reserved(claim).iter().any(|user| Some(user.uid.as_str()) == pod.metadata.uid())
}

fn place(claim: &ResourceClaim) -> String {
    format!("{}/{}", claim.metadata.namespace(), claim.metadata.name())
}
