//! What the writer of a valid object should hear: upstream's `WarningsOnCreate` and `WarningsOnUpdate`.

use std::collections::HashSet;

use crate::metadata::is_domain_qualified;
use crate::name::qualified_faults;
use crate::object::Object;
use crate::resource::Resource;

/// Warnings about an object that is written, and replaces `old` if there is one.
pub fn warnings(resource: &Resource, object: &Object, old: Option<&Object>) -> Vec<String> {
    match resource.custom() {
        Some(_) => of_finalizers(object, old),
        None => resource.rules.warnings(object, old),
    }
}

/// Kinds that come from definitions may call their finalizers as they like, and should not.
fn of_finalizers(object: &Object, old: Option<&Object>) -> Vec<String> {
    let before: HashSet<&str> = old.map(Object::finalizers).unwrap_or_default().into_iter().collect();
    let mut new = object.finalizers();
    new.retain(|finalizer| !before.contains(finalizer));
    new.sort_unstable();
    new.dedup();
    let mut said = Vec::new();
    for finalizer in new {
        let mut say = |why: &str| said.push(format!("metadata.finalizers: {finalizer:?}: {why}"));
        qualified_faults(finalizer).for_each(&mut say);
        if !is_domain_qualified(finalizer) {
            let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
            say(&format!(
                "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
            ));
        }
    }
    said
}
