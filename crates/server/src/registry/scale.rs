//! The subresource `scale`: a resource's replicas in a form that is the same for all resources.

use api::{Object, Status};

use super::read::Freshness;
use super::{Change, Named, Registry, load};

fn no_scale(named: &Named<'_>) -> Status {
    Status::not_found(named.resource.group, named.resource.plural, "scale")
}

impl Registry {
    /// The scale of an object.
    pub(crate) async fn scale(&self, named: &Named<'_>, freshness: Freshness) -> Result<Object, Status> {
        let object = load(&*self.get(named, freshness).await?)?;
        api::scale_of(named.resource, &object).ok_or_else(|| no_scale(named))
    }

    /// Changes the scale of an object by `change`; the answer is the scale.
    pub(crate) async fn change_scale(
        &self,
        request: &Change<'_>,
        change: &(dyn Fn(&Object) -> Result<Object, Status> + Send + Sync),
    ) -> Result<Object, Status> {
        let named = &request.named;
        let change_object = |object: &Object| {
            let old = api::scale_of(named.resource, object).ok_or_else(|| no_scale(named))?;
            let new = change(&old)?;
            if new.name() != named.name {
                let message = "the name of the scale does not match the name on the URL";
                return Err(Status::bad_request(message));
            }
            let mut object = object.clone();
            api::apply_scale(named.resource, &mut object, &new)?;
            if !new.resource_version().is_empty() {
                object.set_meta("resourceVersion", new.resource_version());
            }
            Ok(object)
        };
        let plain = Change { subresource: "", ..*request };
        let object = self.change(&plain, &change_object).await?;
        api::scale_of(named.resource, &object).ok_or_else(|| no_scale(named))
    }
}
