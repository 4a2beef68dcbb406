//! Objects in the version in which they are wanted, where a webhook has to be asked for it.
//!
//! Nothing is served or stored that only looks converted: what can't be had is an error.

use std::sync::Arc;

use bytes::Bytes;
use machinery::{Conversion, ConversionReview, Conversions, Custom, Definition, Object, Resource, Status};
use objects::{encode, load};
use serde_json::Map;
use store::{KeyValue, Revision};

use super::converted::{Converted, Found, Key};
use super::served::{self, is_as_served};
use crate::clock::Edge;
use crate::webhook::WebhookClient;

/// How many objects a webhook gets at once, and how many bytes of them, so that its answer is not too large to be read.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// How long a webhook has, as upstream.
const TIMEOUT_SECONDS: u64 = 30;

/// Brings objects into other versions of their definition.
pub(crate) struct Converter {
    client: Arc<WebhookClient>,
    converted: Converted,
    edge: Arc<dyn Edge>,
}

/// The definition of a resource that a webhook converts.
pub(crate) fn by_webhook(resource: &Resource) -> Option<&Custom> {
    resource.custom().filter(|custom| matches!(custom.definition().conversion(), Conversion::Webhook { .. }))
}

/// Whether a stored value can be served only by a webhook's help.
pub(crate) fn needs_webhook(resource: &Resource, kv: &KeyValue) -> bool {
    by_webhook(resource).is_some_and(|custom| custom.is_other_version(&kv.value.bytes()))
}

impl Converter {
    pub(crate) fn new(client: Arc<WebhookClient>, edge: Arc<dyn Edge>) -> Arc<Self> {
        Arc::new(Converter { client, converted: Converted::default(), edge })
    }

    /// A stored value as `resource` serves it.
    pub(crate) async fn served(
        &self,
        resource: &Resource,
        kv: &Arc<KeyValue>,
    ) -> Result<Arc<KeyValue>, Status> {
        if !needs_webhook(resource, kv) {
            return served::served(resource, kv);
        }
        let mut served = self.all_served(resource, vec![kv.clone()]).await?;
        served.pop().ok_or_else(|| Status::internal("a conversion came to nothing"))
    }

    /// The object in a stored value as `resource` serves it, with its resourceVersion.
    pub(crate) async fn load(&self, resource: &Resource, kv: &Arc<KeyValue>) -> Result<Object, Status> {
        if !needs_webhook(resource, kv) {
            return served::load_as(resource, kv);
        }
        load(&*self.served(resource, kv).await?)
    }

    /// Stored values as `resource` serves them.
    pub(crate) async fn all_served(
        &self,
        resource: &Resource,
        mut values: Vec<Arc<KeyValue>>,
    ) -> Result<Vec<Arc<KeyValue>>, Status> {
        let mut left: Vec<usize> = Vec::new();
        for (index, kv) in values.iter_mut().enumerate() {
            if needs_webhook(resource, kv) {
                left.push(index);
            } else if !is_as_served(resource, kv) {
                *kv = served::served(resource, kv)?;
            }
        }
        let Some(custom) = by_webhook(resource) else { return Ok(values) };
        let mut left = left.into_iter().peekable();
        while left.peek().is_some() {
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while let Some(index) = left.next_if(|_| batch.len() < BATCH && bytes < BATCH_BYTES) {
                bytes += values[index].value.len();
                batch.push(index);
            }
            self.serve(custom, resource, &mut values, batch).await?;
        }
        Ok(values)
    }

    /// Brings those values that `batch` names into the version of `resource`.
    async fn serve(
        &self,
        custom: &Custom,
        resource: &Resource,
        values: &mut [Arc<KeyValue>],
        mut batch: Vec<usize>,
    ) -> Result<(), Status> {
        let revision = Revision(custom.definition().revision());
        let key = |kv: &KeyValue| -> Key { (revision, resource.version, kv.key.clone(), kv.mod_revision) };
        while !batch.is_empty() {
            let mut claim = self.converted.claim();
            let (mut mine, mut others) = (Vec::new(), Vec::new());
            for index in std::mem::take(&mut batch) {
                match claim.take(key(&values[index])) {
                    Found::Kept(value) => put(&mut values[index], value),
                    Found::Mine => mine.push(index),
                    Found::Asked(asked) => others.push((index, asked)),
                }
            }
            if !mine.is_empty() {
                let stored = mine.iter().map(|index| values[*index].as_ref());
                let converted = match self.convert_stored(custom, resource, stored.collect()).await {
                    Ok(converted) => converted,
                    Err(status) => {
                        claim.fail(&status);
                        return Err(status);
                    }
                };
                for (index, value) in mine.into_iter().zip(converted) {
                    claim.keep(key(&values[index]), value.clone());
                    put(&mut values[index], value);
                }
            }
            // Others may wait for these as this does for theirs.
            drop(claim);
            for (index, mut asked) in others {
                let failed = asked.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
                match failed {
                    Some(status) => return Err(status),
                    None => batch.push(index),
                }
            }
        }
        Ok(())
    }

    async fn convert_stored(
        &self,
        custom: &Custom,
        resource: &Resource,
        stored: Vec<&KeyValue>,
    ) -> Result<Vec<Bytes>, Status> {
        let definition = custom.definition();
        let mut objects = Vec::with_capacity(stored.len());
        for kv in stored {
            let mut object = load(kv)?;
            object.remove_meta("resourceVersion");
            definition.refresh(&mut object);
            objects.push(object);
        }
        let converted = self.convert(definition, objects, &resource.api_version()).await?;
        converted.iter().map(encode).collect()
    }

    /// An object of `resource` in the form in which it is stored.
    pub(crate) async fn to_stored(&self, resource: &Resource, mut object: Object) -> Result<Object, Status> {
        let Some(custom) = by_webhook(resource) else {
            machinery::to_stored(resource, &mut object);
            return Ok(object);
        };
        object.remove_meta("resourceVersion");
        let wanted = custom.storage_api_version();
        let converted = self.convert(custom.definition(), vec![object], &wanted).await?;
        let first = converted.into_iter().next();
        let mut object = first.ok_or_else(|| Status::internal("a conversion came to nothing"))?;
        // As it lies it is served in that version.
        custom.definition().refresh(&mut object);
        Ok(object)
    }

    /// Objects of a definition in the version `wanted`, in their order.
    pub(crate) async fn convert(
        &self,
        definition: &Definition,
        mut objects: Vec<Object>,
        wanted: &str,
    ) -> Result<Vec<Object>, Status> {
        let (client, known) = match definition.conversion() {
            Conversion::None => {
                objects.iter_mut().for_each(|object| definition.relabel(object, wanted));
                return Ok(objects);
            }
            Conversion::Webhook { client, review_versions } => (client, review_versions),
        };
        let is_other = |object: &&mut Object| object.api_version() != wanted;
        let nothing = || Object(Map::new());
        let taken = |place: &mut Object| std::mem::replace(place, nothing());
        let asked: Vec<Object> = objects.iter_mut().filter(is_other).map(taken).collect();
        if asked.is_empty() {
            return Ok(objects);
        }
        let failed = |why: String| Status::new(500, "", why);
        let review = ConversionReview::new(known, asked, wanted.to_owned(), self.edge.uid());
        let answer = self.client.post(client, &review.body(), TIMEOUT_SECONDS).await;
        let answer = answer.map_err(|error| failed(review.failed(&error.to_string())))?;
        let mut converted = review.read(answer).map_err(failed)?.into_iter();
        for place in objects.iter_mut().filter(|place| place.0.is_empty()) {
            let mut object = converted.next().unwrap_or_else(nothing);
            definition.prune(&mut object);
            *place = object;
        }
        Ok(objects)
    }

    /// Makes the objects that a write lacks in other versions, so that the owners of its fields can be worked out.
    pub(crate) async fn make(&self, custom: &Custom, conversions: &Conversions) -> Result<(), Status> {
        let missing = conversions.take_missing();
        if missing.is_empty() {
            return Err(Status::internal("a write lacks an object that it doesn't name"));
        }
        for (version, objects) in missing {
            let made = self.convert(custom.definition(), objects.clone(), &version).await?;
            conversions.add(objects, made);
        }
        Ok(())
    }

    /// What a read shows of an object of `resource` that was just stored; nothing if that is what its writer had.
    pub(crate) async fn read_back(
        &self,
        resource: &Resource,
        kv: KeyValue,
    ) -> Result<Option<Object>, Status> {
        if resource.custom().is_none_or(|custom| !custom.is_other_version(&kv.value.bytes())) {
            return Ok(None);
        }
        self.load(resource, &Arc::new(kv)).await.map(Some)
    }
}

fn put(place: &mut Arc<KeyValue>, value: Bytes) {
    *place = Arc::new(KeyValue { value: value.into(), ..(**place).clone() });
}
