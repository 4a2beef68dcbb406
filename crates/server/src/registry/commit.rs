//! Writing one object: compared with what was read, all or nothing.

use api::{Object, Status};
use bytes::Bytes;
use store::{Compare, Condition, Error, KeyRange, Op, Revision, Txn};

use super::{Named, Registry, stored};

/// What else a write claims and frees, and on which conditions.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) ops: Vec<Op>,
}

impl Claims {
    /// Takes a key that nobody may have.
    pub(crate) fn take(&mut self, key: String, owner: &str) {
        let key = Bytes::from(key);
        self.conditions.push(Condition::CreateRevision(key.clone(), Compare::Equal, 0));
        self.ops.push(Op::Put { key, value: Bytes::copy_from_slice(owner.as_bytes()), lease: 0 });
    }

    /// Adds what another part of the change claims and frees.
    pub(crate) fn add(&mut self, other: Claims) {
        self.conditions.extend(other.conditions);
        self.ops.extend(other.ops);
    }

    /// Gives a key back.
    pub(crate) fn free(&mut self, key: String) {
        self.ops.push(Op::Delete(KeyRange::key(key)));
    }
}

/// The answer to a read that the store could not serve: nothing happened, try again.
pub(crate) fn read_failed(error: Error) -> Status {
    match error {
        Error::Compacted { asked, oldest } => {
            Status::expired(format!("too old resource version: {asked} ({oldest})"))
        }
        Error::Invalid(why) => Status::bad_request(why),
        error => {
            let mut status = Status::unavailable(error.to_string()).about("", "", "");
            if let Some(details) = &mut status.details {
                details.retry_after_seconds = 1;
            }
            status
        }
    }
}

/// The answer to a write that the store could not confirm: it may or may not have happened, so that nobody
/// is told to repeat it blindly.
pub(crate) fn write_failed(error: Error) -> Status {
    match error {
        Error::Unavailable => {
            Status::new(504, "Timeout", format!("{error}; the change may have happened or not"))
        }
        Error::Invalid(why) => Status::new(413, "RequestEntityTooLarge", why),
        error => Status::unavailable(error.to_string()),
    }
}

impl Registry {
    /// Writes `object` (none: deletes it) if its key is still as of revision `read` (0: absent); the answer
    /// is the new revision, or none if something changed in between. The object becomes what a read shows of it now.
    pub(crate) async fn commit(
        &self,
        named: &Named<'_>,
        read: Revision,
        object: Option<&mut Object>,
        claims: Claims,
    ) -> Result<Option<Revision>, Status> {
        let key = Bytes::from(named.key());
        let value = match &object {
            Some(object) if named.resource.is_converted() => {
                Some(stored::encode(&self.converter.to_stored(named.resource, (**object).clone()).await?)?)
            }
            Some(object) => Some(stored::encode(object)?),
            None => None,
        };
        let op = match value.clone() {
            Some(value) => Op::Put { key: key.clone(), value, lease: 0 },
            None => Op::Delete(KeyRange::key(key.clone())),
        };
        let mut txn = Txn { conditions: claims.conditions, success: claims.ops, failure: Vec::new() };
        txn.conditions.push(Condition::ModRevision(key.clone(), Compare::Equal, read));
        txn.success.push(op);
        let response = self.store.txn(txn).await.map_err(write_failed)?;
        if !response.succeeded {
            return Ok(None);
        }
        if let (Some(object), Some(value)) = (object, value) {
            let shown = self.converter.read_back(named.resource, key, value, response.revision).await?;
            match shown {
                Some(shown) => *object = shown,
                None => object.set_meta("resourceVersion", response.revision.to_string()),
            }
        }
        Ok(Some(response.revision))
    }
}
