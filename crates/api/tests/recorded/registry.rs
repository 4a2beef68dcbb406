//! The least server that can replay a recording: objects in a map, the crate's functions in upstream's order.

use std::collections::BTreeMap;

use api::resource;
use machinery::{
    FieldSelector, Include, LabelSelector, Object, PatchType, Resource, Status, apply_scale, check, decode,
    partial_metadata, patch, prepare_create, prepare_update, scale_of, set_defaults, table, validate_create,
    validate_update,
};
use serde_json::{Value, json};

const NOW: &str = "2026-01-31T12:00:00Z";
/// The uid of every object.
pub const UID: &str = "7f0c2b1e-0000-4000-8000-000000000000";
const NOW_SECONDS: i64 = 1_769_860_800;

#[derive(Default)]
pub struct Registry {
    objects: BTreeMap<(String, String, String), Object>,
    revision: u64,
}

struct Target {
    resource: &'static Resource,
    namespace: String,
    name: String,
    subresource: String,
    query: BTreeMap<String, String>,
}

fn target(path: &str) -> Option<Target> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let group = if parts.remove(0) == "api" { "" } else { parts.remove(0) };
    let version = parts.remove(0);
    let mut namespace = "";
    if parts[0] == "namespaces" && parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
        namespace = parts[1];
        parts.drain(..2);
    }
    let query = query.split('&').filter(|q| !q.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key.to_owned(), unescape(value))
    });
    Some(Target {
        resource: resource(group, version, parts[0])?,
        namespace: namespace.to_owned(),
        name: parts.get(1).unwrap_or(&"").to_string(),
        subresource: parts.get(2).unwrap_or(&"").to_string(),
        query: query.collect(),
    })
}

fn unescape(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first == b'%' {
            out.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
            rest = &tail[2..];
        } else {
            out.push(*first);
        }
    }
    String::from_utf8(out).unwrap()
}

impl Registry {
    /// Code and body, or nothing where the step is not about this crate.
    pub fn answer(&mut self, step: &Value) -> Option<(u64, Value)> {
        let target = target(step["path"].as_str()?)?;
        let method = step["method"].as_str()?;
        let header = |name: &str| step["headers"][name].as_str().unwrap_or_default().to_owned();
        // Media types, absent namespaces, preconditions, paging and allocation are the server's.
        let foreign = header("Content-Type").contains("yaml")
            || header("Content-Type") == "text/plain"
            || (method == "PATCH" && header("Content-Type") == "application/json")
            || header("Accept").contains("yaml")
            || header("Accept").contains("image")
            || matches!(
                target.subresource.as_str(),
                "binding" | "eviction" | "token" | "ephemeralcontainers" | "log"
            )
            || target.namespace == "absent"
            // What those who serve definitions and class requests say of them in their status is not this crate's.
            || (matches!(target.resource.kind, "CustomResourceDefinition" | "FlowSchema")
                && method == "GET"
                && header("Accept").is_empty())
            || target.query.contains_key("continue")
            || target.query.contains_key("limit")
            || target.query.keys().any(|key| key.starts_with("resourceVersion"))
            || (method == "PUT" && target.name.is_empty())
            || step["body"]["metadata"]["resourceVersion"].is_string()
            || step["body"]["metadata"]["namespace"] == "other"
            || (method == "DELETE" && target.name.is_empty())
            || step["body"]["preconditions"].is_object()
            || (step["body"]["spec"]["clusterIP"].as_str().is_some_and(|ip| ip != "None"));
        if foreign {
            self.follow(&target, step);
            return None;
        }
        let result = match method {
            "POST" => self.create(&target, step).map(|body| (201, body)),
            "GET" => self.read(&target, &header("Accept")).map(|body| (200, body)),
            "PUT" => self.update(&target, step).map(|body| (200, body)),
            "PATCH" => self.patch(&target, step, &header("Content-Type")).map(|body| (200, body)),
            "DELETE" => {
                // The form of the answer is the server's, and whether the object stays for a while.
                self.objects.remove(&key(&target, &target.name));
                let body = &step["answer"]["body"];
                if body["metadata"]["finalizers"].is_array() {
                    let object = Object::from_value(body.clone()).unwrap();
                    self.objects.insert(key(&target, &target.name), object);
                }
                return None;
            }
            _ => return None,
        };
        Some(result.unwrap_or_else(|status| (status.code.into(), status.to_value())))
    }

    /// Takes over what a foreign step made.
    fn follow(&mut self, target: &Target, step: &Value) {
        let body = &step["answer"]["body"];
        if step["method"] == "DELETE" && target.name.is_empty() {
            let selector = target.query.get("labelSelector").map(String::as_str).unwrap_or_default();
            let selector = LabelSelector::parse(selector).unwrap();
            let of_kind = |plural: &str, namespace: &str| {
                plural == target.resource.plural && namespace == target.namespace
            };
            self.objects.retain(|(plural, namespace, _), object| {
                !(of_kind(plural, namespace) && selector.matches(object))
            });
        }
        if target.subresource == "binding" && step["answer"]["code"] == 201 {
            let pod = self.objects.get_mut(&key(target, &target.name)).unwrap();
            pod.0["spec"]["nodeName"] = step["body"]["target"]["name"].clone();
            pod.0["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": NOW}]);
        }
        if step["method"] == "POST" && body["kind"] == target.resource.kind && target.subresource.is_empty() {
            let object = Object::from_value(body.clone()).unwrap();
            self.objects.insert(key(target, object.name()), object);
        }
    }

    fn get(&self, target: &Target) -> Result<Object, Status> {
        let (group, plural) = (target.resource.group, target.resource.plural);
        let found = self.objects.get(&key(target, &target.name)).cloned();
        found.ok_or_else(|| Status::not_found(group, plural, &target.name))
    }

    fn create(&mut self, target: &Target, step: &Value) -> Result<Value, Status> {
        let resource = target.resource;
        let decoded = decode(resource, &body_of(step))?;
        if target.query.get("fieldValidation").is_some_and(|v| v == "Strict") && !decoded.faults.is_empty() {
            return Err(Status::bad_request(decoded.faults.join(", ")));
        }
        let mut object = decoded.object;
        if resource.namespaced {
            object.set_meta("namespace", target.namespace.as_str());
        }
        object.set_meta("uid", UID);
        object.set_meta("creationTimestamp", NOW);
        set_defaults(resource, &mut object).unwrap();
        prepare_create(resource, &mut object);
        let faults = validate_create(resource, &object);
        if !faults.is_empty() {
            return Err(Status::invalid(resource.group, resource.kind, object.name(), faults));
        }
        if self.objects.contains_key(&key(target, object.name())) {
            return Err(Status::already_exists(resource.group, resource.plural, object.name()));
        }
        allocate(&mut object);
        Ok(self.store(target, object))
    }

    fn store(&mut self, target: &Target, mut object: Object) -> Value {
        self.revision += 1;
        object.set_meta("resourceVersion", self.revision.to_string());
        if !target.query.contains_key("dryRun") {
            self.objects.insert(key(target, object.name()), object.clone());
        }
        object.into_value()
    }

    fn read(&self, target: &Target, accept: &str) -> Result<Value, Status> {
        if target.subresource == "scale" {
            return Ok(scale_of(target.resource, &self.get(target)?).unwrap().into_value());
        }
        if !target.name.is_empty() {
            let object = self.get(target)?;
            return Ok(match accept.contains("PartialObjectMetadata") {
                true => partial_metadata(target.resource, &object),
                false => object.into_value(),
            });
        }
        let of_query = |name: &str| target.query.get(name).map(String::as_str).unwrap_or_default();
        let labels = LabelSelector::parse(of_query("labelSelector"))?;
        let fields = FieldSelector::parse(target.resource, of_query("fieldSelector"))?;
        let meta = json!({"resourceVersion": self.revision.to_string()});
        let of_kind = self.objects.iter().filter(|((plural, namespace, _), _)| {
            plural == target.resource.plural
                && (target.namespace.is_empty() || *namespace == target.namespace)
        });
        let selected: Vec<Object> =
            of_kind.map(|(_, o)| o.clone()).filter(|o| labels.matches(o) && fields.matches(o)).collect();
        if accept.contains("as=Table") {
            let include = match of_query("includeObject") {
                "None" => Include::None,
                "Object" => Include::Object,
                _ => Include::Metadata,
            };
            return Ok(table(target.resource, &selected, &meta, include, NOW_SECONDS));
        }
        let partial = accept.contains("PartialObjectMetadataList");
        let items = selected.into_iter().map(|object| match partial {
            true => partial_metadata(target.resource, &object),
            false => {
                let mut object = object;
                object.0.remove("kind");
                object.0.remove("apiVersion");
                object.into_value()
            }
        });
        let (kind, version) = match partial {
            true => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
            false => (format!("{}List", target.resource.kind), target.resource.api_version()),
        };
        Ok(json!({"kind": kind, "apiVersion": version, "metadata": meta, "items": items.collect::<Value>()}))
    }

    fn update(&mut self, target: &Target, step: &Value) -> Result<Value, Status> {
        if target.subresource == "scale" {
            let scale = Object::from_value(step["body"].clone()).unwrap();
            return self.scale(target, &scale);
        }
        let decoded = decode(target.resource, &body_of(step))?;
        if decoded.object.name() != target.name {
            return Err(Status::bad_request("the name of the object does not match the name on the URL"));
        }
        let old = self.get(target)?;
        self.replace(target, decoded.object, old)
    }

    fn scale(&mut self, target: &Target, scale: &Object) -> Result<Value, Status> {
        let old = self.get(target)?;
        let mut object = old.clone();
        apply_scale(target.resource, &mut object, scale)?;
        self.replace(target, object, old)?;
        Ok(scale_of(target.resource, &self.get(target)?).unwrap().into_value())
    }

    fn patch(&mut self, target: &Target, step: &Value, kind: &str) -> Result<Value, Status> {
        let old = self.get(target)?;
        let kind = match kind {
            "application/json-patch+json" => PatchType::Json,
            "application/merge-patch+json" => PatchType::Merge,
            _ => PatchType::Strategic,
        };
        if target.subresource == "scale" {
            let mut scale = scale_of(target.resource, &old).unwrap().into_value();
            scale["spec"]["replicas"] = step["body"]["spec"]["replicas"].clone();
            return self.scale(target, &Object::from_value(scale).unwrap());
        }
        let mut object = patch(target.resource, kind, &old, &step["body"])?;
        check(target.resource, &mut object)?;
        if object.name() != target.name {
            return Err(Status::bad_request("the name of the object does not match the name on the URL"));
        }
        self.replace(target, object, old)
    }

    fn replace(&mut self, target: &Target, mut object: Object, old: Object) -> Result<Value, Status> {
        let (resource, subresource) = (target.resource, target.subresource.as_str());
        set_defaults(resource, &mut object).unwrap();
        prepare_update(resource, subresource, &mut object, &old);
        let faults = validate_update(resource, subresource, &object, &old);
        if !faults.is_empty() {
            return Err(Status::invalid(resource.group, resource.kind, object.name(), faults));
        }
        Ok(self.store(target, object))
    }
}

/// What the server's allocators give a service, as placeholders.
fn allocate(object: &mut Object) {
    let spec = match object.0.get_mut("spec") {
        Some(Value::Object(spec))
            if spec.contains_key("sessionAffinity") && spec["type"] != "ExternalName" =>
        {
            spec
        }
        _ => return,
    };
    if !spec.contains_key("clusterIP") {
        spec.insert("clusterIP".into(), "<ip>".into());
        spec.insert("clusterIPs".into(), json!(["<ip>"]));
    }
    if spec["type"] != "ClusterIP" {
        for port in spec["ports"].as_array_mut().unwrap() {
            port["nodePort"] = 31_000.into();
        }
    }
}

fn body_of(step: &Value) -> Vec<u8> {
    match &step["raw"] {
        Value::String(raw) => raw.clone().into_bytes(),
        _ => step["body"].to_string().into_bytes(),
    }
}

fn key(target: &Target, name: &str) -> (String, String, String) {
    (target.resource.plural.to_owned(), target.namespace.clone(), name.to_owned())
}
