//! The API as an agent sees it, over a store in memory.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::{BoxFuture, FutureExt, ready};
use machinery::{Object, Status};
use objects::{TokenRequest, TypedRef, Write, Writer};
use serde_json::{Value, json};
use store::{Condition, KeyRange, Memory, Op, Store, Txn};

/// Writes to the store as the API would, as far as an agent can tell.
pub struct TestWriter {
    pub store: Arc<Memory>,
    /// Refuses everything, as without a quorum.
    pub broken: Mutex<bool>,
    /// The names of the objects that merges were asked for.
    pub merges: Mutex<Vec<String>>,
    /// How many pods were made.
    pub made: AtomicU8,
    /// How many tokens were asked for.
    pub tokens: AtomicU8,
}

fn place(subject: &TypedRef) -> String {
    let resource = format!("{}s", subject.kind.to_lowercase());
    let group = subject.api_version.split_once('/').map_or("", |(group, _)| group);
    objects::key(group, &resource, &subject.namespace, &subject.name)
}

pub fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(key)),
            value => merge(&mut into[key], value),
        }
    }
}

impl TestWriter {
    pub fn put(&self, object: &Value) {
        let subject = TypedRef {
            api_version: object["apiVersion"].as_str().unwrap_or("v1").into(),
            kind: object["kind"].as_str().unwrap().into(),
            namespace: object["metadata"]["namespace"].as_str().unwrap_or_default().into(),
            name: object["metadata"]["name"].as_str().unwrap().into(),
        };
        let txn = Txn::put(place(&subject), object.to_string());
        self.store.txn(txn).now_or_never().unwrap().unwrap();
    }

    /// Takes an object away, as if nobody had been here.
    pub fn remove(&self, kind: &str, namespace: &str, name: &str) {
        let delete = Op::Delete(KeyRange::key(objects::key("", kind, namespace, name)));
        let txn = Txn { success: vec![delete], ..Txn::default() };
        self.store.txn(txn).now_or_never().unwrap().unwrap();
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        self.get_of("", kind, namespace, name)
    }

    pub fn get_of(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let state = self.store.snapshot();
        let kv = state.get(objects::key(group, kind, namespace, name).as_bytes())?.clone();
        Some(serde_json::from_slice(&kv.value.bytes()).unwrap())
    }

    fn apply(&self, write: Write) -> Result<Object, Status> {
        if *self.broken.lock().unwrap() {
            return Err(Status::unavailable("no quorum"));
        }
        let run = |txn| self.store.txn(txn).now_or_never().unwrap().unwrap();
        match write {
            Write::Create(mut object) => {
                if object.kind() == "Pod" && object.uid().is_empty() {
                    let made = self.made.fetch_add(1, Ordering::Relaxed);
                    object.set_meta("uid", format!("made-{made}"));
                }
                let value = object.clone().into_value();
                let subject = TypedRef {
                    api_version: object.api_version().into(),
                    kind: object.kind().into(),
                    namespace: object.namespace().into(),
                    name: object.name().into(),
                };
                let key = place(&subject);
                if self.store.snapshot().get(key.as_bytes()).is_some() {
                    return Err(Status::already_exists("", &subject.kind, &subject.name));
                }
                run(Txn::put(key, value.to_string()));
                Ok(object)
            }
            Write::Merge { subject, patch, .. } => {
                let key = place(&subject);
                loop {
                    let state = self.store.snapshot();
                    let Some(kv) = state.get(key.as_bytes()) else {
                        return Err(Status::not_found("", &subject.kind, &subject.name));
                    };
                    let mut value: Value = serde_json::from_slice(&kv.value.bytes()).unwrap();
                    let uid = patch["metadata"]["uid"].as_str();
                    if uid.is_some_and(|uid| value["metadata"]["uid"] != uid) {
                        return Err(Status::conflict("", &subject.kind, &subject.name, "another uid"));
                    }
                    merge(&mut value, &patch);
                    // The API fills this in.
                    for condition in value["status"]["conditions"].as_array_mut().into_iter().flatten() {
                        condition["lastProbeTime"] = Value::Null;
                    }
                    self.merges.lock().unwrap().push(subject.name.clone());
                    let key = kv.key.clone();
                    let same = Condition::ModRevision(key.clone(), store::Compare::Equal, kv.mod_revision);
                    let put = Op::put(key, value.to_string());
                    if run(Txn { conditions: vec![same], success: vec![put], failure: vec![] }).succeeded {
                        return Ok(Object::from_value(value).unwrap());
                    }
                }
            }
            Write::Delete { subject, options } => {
                let key = place(&subject);
                let value = self.get("pods", &subject.namespace, &subject.name);
                let Some(value) = value else {
                    return Err(Status::not_found("", &subject.kind, &subject.name));
                };
                assert_eq!(options.grace_seconds, Some(0));
                if options.uid.is_some_and(|uid| value["metadata"]["uid"] != *uid) {
                    return Err(Status::conflict("", &subject.kind, &subject.name, "another uid"));
                }
                let delete = Op::Delete(KeyRange::key(key));
                run(Txn { success: vec![delete], ..Txn::default() });
                Ok(Object::from_value(value).unwrap())
            }
            other => panic!("the agent does not write this: {other:?}"),
        }
    }
}

impl Writer for TestWriter {
    fn write<'a>(&'a self, user: &'a str, write: Write) -> BoxFuture<'a, Result<Object, Status>> {
        assert_eq!(user, "system:node:n1");
        ready(self.apply(write)).boxed()
    }

    fn token<'a>(&'a self, user: &'a str, request: TokenRequest) -> BoxFuture<'a, Result<String, Status>> {
        assert_eq!(user, "system:node:n1");
        let TokenRequest { namespace, account, audience, seconds, pod, .. } = request;
        // Each is another one.
        let again = match self.tokens.fetch_add(1, Ordering::Relaxed) {
            0 => String::new(),
            before => format!(" again {before}"),
        };
        ready(Ok(format!("{namespace}/{account} {pod} {audience} {seconds}{again}"))).boxed()
    }
}
