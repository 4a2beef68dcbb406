//! The scale of whatever has one, custom resources too.

use std::sync::Arc;

use api::resource_of_kind;
use machinery::{Definition, Object, Resource, scale_of};
use objects::{TypedRef, key, parse};
use store::State;

use crate::view::View;

/// The scale of an object.
///
/// # Errors
/// Why there is none.
pub(crate) fn of(view: &View, subject: &TypedRef) -> Result<Object, String> {
    let TypedRef { api_version, kind, namespace, name } = subject;
    let lies = view.graph.kinds().find(api_version, kind);
    let lies = lies.ok_or_else(|| format!("no matches for kind {kind:?} in version {api_version:?}"))?;
    let group = if lies.group.is_empty() { String::new() } else { format!(".{}", lies.group) };
    let place = key(lies.group, lies.plural, namespace, name);
    let object =
        stored(view, place.as_bytes()).ok_or_else(|| format!("{}{group} {name:?} not found", lies.plural))?;
    let scale = of_stored(view, api_version, kind, place.as_bytes(), &object);
    scale.ok_or_else(|| "the server could not find the requested resource".to_owned())
}

/// An object as it is stored, with the version that it has there.
pub(crate) fn stored(view: &View, place: &[u8]) -> Option<Object> {
    objects::load(view.state().get(place)?).ok()
}

/// The scale of a stored object; nothing if its kind has none.
pub(crate) fn of_stored(
    view: &View,
    api_version: &str,
    kind: &str,
    place: &[u8],
    object: &Object,
) -> Option<Object> {
    match resource_of_kind(api_version, kind) {
        Some(resource) => scale_of(resource, object),
        None => custom(view.state(), api_version, place).and_then(|resource| scale_of(&resource, object)),
    }
}

/// The resource of a kind that a CustomResourceDefinition defines, in this version, or else in the one that objects are stored in.
fn custom(state: &State, api_version: &str, place: &[u8]) -> Option<Arc<Resource>> {
    let place = parse(place)?;
    let name = format!("{}.{}", place.resource, place.group);
    let stored = state.get(key("apiextensions.k8s.io", "customresourcedefinitions", "", &name).as_bytes())?;
    let definition = Arc::new(Definition::parse(stored.value.bytes(), stored.mod_revision.0, None).ok()?);
    let same = |resource: &Arc<Resource>| resource.api_version() == api_version;
    definition.resources().into_iter().find(same).or_else(|| definition.storage_resource().map(Arc::new))
}
