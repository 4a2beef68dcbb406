//! Placing a pod on a node: its node's name and the condition PodScheduled go into the stored bytes, which are not read as
//! a whole. Nothing else of the pod changes, and it was valid.

mod splice;

use access::UserInfo;
use machinery::{Object, Status};
use objects::Named;
use serde_json::{Map, json};
use store::Op;

use super::attempts::{freshness_of, settled};
use super::create::{ATTEMPTS, too_busy};
use super::read::Freshness;
use super::{Recorded, Registry};
use crate::admission::{AdmissionRequest, Claims, Operation, Refused};

/// The subresource through which a pod gets its node.
const BINDING: &str = "binding";

/// A request to place a pod.
pub(crate) struct Binding<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
    /// The pod must be this one, if it is given.
    pub(crate) uid: Option<&'a str>,
    pub(crate) node: &'a str,
    pub(crate) dry_run: bool,
}

impl Registry {
    /// Places a pod that has no node yet; the answer is the binding.
    pub(crate) async fn bind(&self, who: &UserInfo, binding: &Binding<'_>) -> Result<Object, Status> {
        for attempt in 0..ATTEMPTS {
            let freshness = freshness_of(attempt);
            if let Some(answer) = settled(self.try_bind(who, binding, freshness).await, freshness) {
                return answer;
            }
        }
        Err(too_busy())
    }

    /// One attempt; nothing if the pod changed in between.
    async fn try_bind(
        &self,
        who: &UserInfo,
        binding: &Binding<'_>,
        freshness: Freshness,
    ) -> Result<Option<Object>, Refused> {
        let state = self.state(freshness).await?;
        let resource =
            api::resource("", "v1", "pods").ok_or_else(|| Status::internal("pods are not served"))?;
        let named = Named { resource, namespace: binding.namespace, name: binding.pod };
        let kv = state.get(named.key().as_bytes()).ok_or_else(|| named.not_found())?;
        let (uid, value) = splice::placed(&kv.value.bytes(), binding, &self.edge.time())?;
        // As upstream: nobody owns a pod's node by placing it.
        let object = binding.object(&uid);
        let asked = AdmissionRequest {
            who,
            named,
            subresource: BINDING,
            operation: Operation::Create,
            dry_run: binding.dry_run,
            options: Recorded::Already.options("CreateOptions", binding.dry_run),
            state: &state,
            edge: &*self.edge,
        };
        self.admission.judge_binding(&asked, &object).await?;
        if binding.dry_run {
            return Ok(Some(object));
        }
        let op = Op::put(kv.key.clone(), value);
        let revision = self.commit(&kv.key, kv.mod_revision, op, Claims::default()).await?;
        Ok(revision.map(|_| object))
    }
}

impl Binding<'_> {
    fn object(&self, uid: &str) -> Object {
        let mut object = Object(Map::new());
        object.0.insert("kind".into(), "Binding".into());
        object.0.insert("apiVersion".into(), "v1".into());
        object
            .0
            .insert("metadata".into(), json!({"name": self.pod, "namespace": self.namespace, "uid": uid}));
        object.0.insert("target".into(), json!({"kind": "Node", "name": self.node}));
        object
    }
}
