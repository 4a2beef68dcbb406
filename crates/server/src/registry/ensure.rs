//! Making many objects at once, those of them that are missing.

use bytes::Bytes;
use machinery::{Object, Status};
use objects::{Named, encode};
use store::{Compare, Condition, Op, Revision, State, Txn};

use super::commit::write_failed;
use super::create::{ATTEMPTS, too_busy};
use super::read::Freshness;
use super::{Recorded, Registry};
use crate::admission;

/// How many objects are written in one transaction: an etcd takes 128 operations in one, and an object may
/// claim something beside itself.
const MOST: usize = 60;

impl Registry {
    /// Creates the objects that are not there yet, the server's own; each is whole or not there at all. What
    /// they say of their status is believed.
    ///
    /// # Errors
    /// If one is not valid, or the store doesn't answer.
    pub(crate) async fn ensure(&self, objects: Vec<Object>) -> Result<(), Status> {
        for objects in objects.chunks(MOST) {
            self.ensure_together(objects).await?;
        }
        Ok(())
    }

    async fn ensure_together(&self, objects: &[Object]) -> Result<(), Status> {
        for attempt in 0..ATTEMPTS {
            let freshness = if attempt == 0 { Freshness::Any } else { Freshness::Newest };
            let state = self.state(freshness).await?;
            let mut txn = Txn { conditions: Vec::new(), success: Vec::new(), failure: Vec::new() };
            for object in objects {
                self.add_missing(object, &state, &mut txn)?;
            }
            if txn.success.is_empty() || self.store.txn(txn).await.map_err(write_failed)?.succeeded {
                return Ok(());
            }
        }
        Err(too_busy())
    }

    fn add_missing(&self, object: &Object, state: &State, txn: &mut Txn) -> Result<(), Status> {
        let (kind, version) = (object.kind(), object.api_version());
        let resource = &self.resource_of(version, kind)?;
        let named = Named { resource, namespace: object.namespace(), name: object.name() };
        let key = Bytes::from(named.key());
        if state.get(&key).is_some() {
            return Ok(());
        }
        let mut object = object.clone();
        let status = object.0.get("status").cloned();
        object.set_meta("uid", self.edge.uid());
        object.set_meta("creationTimestamp", self.edge.time());
        machinery::set_defaults(resource, &mut object)?;
        let manager = match resource.group {
            "flowcontrol.apiserver.k8s.io" => "api-priority-and-fairness-config-producer-v1",
            _ => "kube-apiserver",
        };
        Recorded::Update(manager).update(resource, "", None, &mut object, &self.edge.time());
        machinery::prepare_create(resource, &mut object);
        let causes = machinery::validate_create(resource, &object);
        if !causes.is_empty() {
            return Err(Status::invalid(resource.group, resource.kind, object.name(), causes));
        }
        machinery::settle(resource, &mut object);
        if let Some(status) = status {
            object.0.insert("status".into(), status);
        }
        let claims =
            admission::allocate(&self.services, resource, (&mut object, None), false, state, &*self.edge)?;
        txn.conditions.extend(claims.conditions);
        txn.success.extend(claims.ops);
        txn.conditions.push(Condition::ModRevision(key.clone(), Compare::Equal, Revision::ZERO));
        txn.success.push(Op::put(key, encode(&object)?));
        Ok(())
    }
}
