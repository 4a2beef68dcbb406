//! The revisions of DaemonSets and StatefulSets: each template that one has had, as a ControllerRevision.
//!
//! Follows `pkg/controller/history`: names, hashes and data are upstream's, and so is what `kubectl rollout history` and
//! `undo` read: the data is a strategic merge patch that puts the template back.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use objects::{Kind, Meta, Write};
use serde_json::{Map, Value, json};

use crate::kept::ControllerRevision;
use crate::plan::merge;
use crate::pod_writes::owner_reference;
use crate::selectors::Labels;
use crate::template::encode;
use crate::view::View;

/// The label that says of which revision a pod is.
pub(crate) const POD_LABEL: &str = "controller-revision-hash";
/// The longest part of an owner's name that its revisions' names begin with, in bytes, as upstream (`ControllerRevisionName`).
const LONGEST_PREFIX: usize = 223;
/// How many names are tried for a revision, until one is free: each try changes the hash.
const TRIES: i32 = 100;

/// What a revision of a template has as data.
pub(crate) fn data(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(template) = template.as_object_mut() {
        template.insert("$patch".to_owned(), "replace".into());
    }
    json!({"spec": {"template": template}})
}

/// The template in a revision's data, if it has one.
pub(crate) fn template(data: &Value) -> Option<Value> {
    let mut template = data.pointer("/spec/template")?.as_object()?.clone();
    template.remove("$patch");
    Some(template.into())
}

/// The oldest first.
pub(crate) fn sort(revisions: &mut [&Arc<ControllerRevision>]) {
    let age = |revision: &ControllerRevision| -> (i64, Option<Time>, Option<String>) {
        let metadata = &revision.metadata;
        (revision.revision, metadata.creation_timestamp.clone(), metadata.name.clone())
    };
    revisions.sort_by_cached_key(|revision| age(revision));
}

/// A new revision of an owner's template, or what it takes to find its name.
pub(crate) struct Named {
    /// Its name, which no other revision has.
    pub name: String,
    /// The hash in its name.
    pub hash: String,
    /// Its data.
    data: Value,
    /// How often the names of others were met on the way, those of before among them.
    pub collisions: i32,
}

impl Named {
    /// The name for a revision with a template, where there were `collisions` before.
    pub fn find<O: Kind>(view: &View, owner: &O, template: &Value, collisions: i32) -> Self {
        let metadata = owner.metadata();
        let (namespace, prefix) = (metadata.namespace(), metadata.name());
        let data = data(template);
        let mut found = Named { name: String::new(), hash: String::new(), data, collisions };
        for _ in 0..TRIES {
            found.hash = hash(&found.data, found.collisions);
            found.name = name(prefix, &found.hash);
            if view.table::<ControllerRevision>().get(namespace, &found.name).is_none() {
                break;
            }
            found.collisions = found.collisions.wrapping_add(1);
        }
        found
    }

    /// The creation of the revision, with the labels of its template's pods and one that has its hash.
    pub fn create<O: Kind>(self, owner: &O, labels: &Labels, label: &str, revision: i64) -> Option<Write> {
        let metadata = owner.metadata();
        let mut labels: Map<String, Value> =
            labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        labels.insert(label.to_owned(), self.hash.into());
        let object = json!({
            "kind": "ControllerRevision", "apiVersion": "apps/v1",
            "metadata": {
                "name": self.name,
                "namespace": metadata.namespace(),
                "labels": labels,
                "annotations": metadata.annotations(),
                "ownerReferences": [owner_reference(owner)],
            },
            "data": self.data,
            "revision": revision,
        });
        machinery::Object::from_value(object).map(Write::Create)
    }
}

/// Puts a revision at another place of the history.
pub(crate) fn renumber(revision: &ControllerRevision, number: i64) -> Write {
    merge(revision, "", json!({"revision": number}))
}

fn name(owner: &str, hash: &str) -> String {
    format!("{}-{hash}", &owner[..owner.floor_char_boundary(LONGEST_PREFIX)])
}

/// FNV-1 (32 bits) of the data as Go writes it, and of the number of collisions (`HashControllerRevision`).
fn hash(data: &Value, collisions: i32) -> String {
    let text = data.to_string() + &collisions.to_string();
    let mut hash: u32 = 0x811c_9dc5;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte);
        }
    };
    for char in text.chars() {
        match char {
            // Go's JSON may stand within HTML.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                take(format!("\\u{:04x}", u32::from(char)).as_bytes())
            }
            char => take(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    encode(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams() -> Value {
        json!({
            "metadata": {"labels": {"app": "foo"}, "annotations": {"test": "value"}},
            "spec": {
                "containers": [{
                    "name": "test", "image": "test", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30,
            },
        })
    }

    #[test]
    fn a_revision_has_the_name_that_kubernetes_gives_it() {
        // The revision of this template in the test data of Kubernetes 1.34.
        let hash = hash(&data(&upstreams()), 0);
        assert_eq!(name("test", &hash), "test-776999688b");
        assert_ne!(hash, super::hash(&data(&upstreams()), 1), "a collision gives another name");
        let long = "a".repeat(250);
        assert_eq!(name(&long, "x"), format!("{}-x", "a".repeat(223)));
    }

    #[test]
    fn a_template_comes_back_out_of_its_revision() {
        let data = data(&upstreams());
        assert_eq!(data.pointer("/spec/template/$patch"), Some(&json!("replace")));
        assert_eq!(template(&data), Some(upstreams()));
        assert_eq!(template(&json!({"other": 1})), None);
    }
}
