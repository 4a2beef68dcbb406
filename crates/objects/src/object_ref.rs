//! What tells objects apart.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Kind, Meta};

/// Which object of a kind: its namespace, empty for cluster-scoped ones, and its name. The object there may be another one
/// tomorrow: that is what its [`Uid`] tells.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// The namespace.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
}

impl ObjectRef {
    /// The object of a name in a namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        ObjectRef { namespace: namespace.into(), name: name.into() }
    }

    /// Where an object lies.
    pub fn of<T: Kind>(object: &T) -> Self {
        let metadata = object.metadata();
        ObjectRef::new(metadata.namespace(), metadata.name())
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// The uid of an object, which no other object has, before or after it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(Box<str>);

impl Uid {
    /// The uid of an object; none for one that was never stored.
    pub fn of<T: Kind>(object: &T) -> Option<Self> {
        object.metadata().uid().map(Uid::from)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is none: what was never stored has an empty one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Uid(text.into())
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Self {
        Uid(text.into())
    }
}

impl Borrow<str> for Uid {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_named_as_people_write_it() {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"namespace": "a", "name": "b", "uid": "u"}})).unwrap();
        assert_eq!((ObjectRef::of(&map).to_string(), Uid::of(&map)), ("a/b".to_owned(), Some("u".into())));
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
        assert_eq!((ObjectRef::of(&namespace).to_string(), Uid::of(&namespace)), ("a".to_owned(), None));
    }

    #[test]
    fn a_uid_is_found_by_its_text() {
        let uids = ["a", "b"].map(Uid::from);
        assert!(HashSet::from(uids.clone()).contains("b"));
        assert!(BTreeSet::from(uids).contains("a"));
        assert_eq!(serde_json::to_value(Uid::from("a")).unwrap(), json!("a"));
    }
}
