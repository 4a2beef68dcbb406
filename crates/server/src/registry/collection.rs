//! Deleting all objects of a list.

use std::sync::Arc;

use access::UserInfo;
use machinery::Status;
use objects::Named;
use store::{KeyValue, Revision};

use super::{DeleteOptions, ListOptions, Registry};

impl Registry {
    /// Deletes what the list holds; the answer is the objects as they were.
    pub(crate) async fn delete_collection(
        &self,
        who: &UserInfo,
        list: &ListOptions<'_>,
        options: &DeleteOptions,
    ) -> Result<(Vec<Arc<KeyValue>>, Revision), Status> {
        let listing = self.list(list).await?;
        for kv in &listing.items {
            let Some(place) = objects::parse(&kv.key) else { continue };
            let named = Named { resource: list.resource, namespace: place.namespace, name: place.name };
            match self.delete(who, &named, options).await {
                Ok(_) => {}
                // Somebody else was faster.
                Err(status) if status.code == 404 => {}
                Err(status) => return Err(status),
            }
        }
        Ok((listing.items, listing.revision))
    }
}
