//! Writing one object: compared with what was read, all or nothing.

use bytes::Bytes;
use machinery::{Object, Status};
use objects::{Named, encode, load};
use store::{Compare, Condition, Error, KeyRange, KeyValue, LeaseId, Op, Revision, Txn};

use super::Registry;
use crate::admission::Claims;
use crate::conversion;

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

/// The answer to a write that the store could not confirm: it may or may not have happened, so the answer
/// asks nobody to repeat it blindly.
pub(crate) fn write_failed(error: Error) -> Status {
    match error {
        Error::Unavailable => {
            Status::new(504, "Timeout", format!("{error}; the change may have happened or not"))
        }
        Error::Invalid(why) => Status::new(413, "RequestEntityTooLarge", why),
        error => Status::unavailable(error.to_string()),
    }
}

/// An object as it is once it was written.
#[derive(Debug)]
pub(crate) enum Written {
    /// It is served just as it lies in the store.
    Stored(KeyValue),
    /// It is served in another form, or was not stored.
    Shown(Object),
}

impl Written {
    /// The object's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Written::Stored(kv) => objects::parse(&kv.key).map_or("", |key| key.name),
            Written::Shown(object) => object.name(),
        }
    }

    /// The object itself.
    pub(crate) fn into_object(self) -> Result<Object, Status> {
        match self {
            Written::Stored(kv) => load(&kv),
            Written::Shown(object) => Ok(object),
        }
    }
}

impl From<Object> for Written {
    fn from(object: Object) -> Self {
        Written::Shown(object)
    }
}

impl Registry {
    /// Writes `object` if its key is still as of revision `read` ([`Revision::ZERO`]: absent); none if something changed in between.
    pub(crate) async fn put(
        &self,
        named: &Named<'_>,
        read: Revision,
        object: Object,
        claims: Claims,
    ) -> Result<Option<Written>, Status> {
        let (resource, key) = (named.resource, Bytes::from(named.key()));
        let is_converted = resource.is_converted();
        let value = match is_converted {
            true => encode(&self.converter.to_stored(resource, object.clone()).await?)?,
            false => encode(&object)?,
        };
        // Its memory is given back while it is at hand, not after a wait for the disk.
        let object = is_converted.then_some(object);
        let op = Op::put(key.clone(), value.clone());
        let Some(revision) = self.commit(&key, read, op, claims).await? else { return Ok(None) };
        let kv = KeyValue {
            key,
            value: value.into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: LeaseId::NONE,
        };
        let Some(mut object) = object.filter(|_| !conversion::is_as_served(resource, &kv)) else {
            return Ok(Some(Written::Stored(kv)));
        };
        match self.converter.read_back(resource, kv).await? {
            Some(shown) => object = shown,
            None => object.set_meta("resourceVersion", revision.to_string()),
        }
        Ok(Some(object.into()))
    }

    /// What a write that is no more than tried answers: the object as it would come back from the store. Of a kind that
    /// is stored in another version that is what the way there and back leaves of it, as upstream.
    pub(crate) async fn rehearse(
        &self,
        resource: &machinery::Resource,
        object: Object,
    ) -> Result<Written, Status> {
        let stored_as = resource.custom().map(machinery::Custom::storage_api_version);
        let (Some(custom), true) = (resource.custom(), stored_as.is_some_and(|v| v != object.api_version()))
        else {
            return Ok(object.into());
        };
        let (version, revision) = (object.api_version().to_owned(), object.resource_version().to_owned());
        let stored = self.converter.to_stored(resource, object).await?;
        let shown = self.converter.convert(custom.definition(), vec![stored], &version).await?;
        let shown = shown.into_iter().next();
        let mut shown = shown.ok_or_else(|| Status::internal("a conversion came to nothing"))?;
        if !revision.is_empty() {
            shown.set_meta("resourceVersion", revision);
        }
        Ok(shown.into())
    }

    /// Takes an object away if its key is still as of revision `read`; the answer is the revision that did, or none
    /// if something changed in between.
    pub(crate) async fn remove(
        &self,
        named: &Named<'_>,
        read: Revision,
        claims: Claims,
    ) -> Result<Option<Revision>, Status> {
        let key = Bytes::from(named.key());
        let op = Op::Delete(KeyRange::key(key.clone()));
        self.commit(&key, read, op, claims).await
    }

    /// Carries `op` out if `key` is still as of revision `read`; the answer is the revision that did, or none if something
    /// changed in between.
    pub(super) async fn commit(
        &self,
        key: &Bytes,
        read: Revision,
        op: Op,
        claims: Claims,
    ) -> Result<Option<Revision>, Status> {
        let mut txn = Txn { conditions: claims.conditions, success: claims.ops, failure: Vec::new() };
        txn.conditions.push(Condition::ModRevision(key.clone(), Compare::Equal, read));
        txn.success.push(op);
        let response = self.store.txn(txn).await.map_err(write_failed)?;
        Ok(response.succeeded.then_some(response.revision))
    }
}
