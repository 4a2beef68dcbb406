//! Requests that change something.

use access::{Stamp, TokenRequest, asked_token, reviewed};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use machinery::{Object, PatchType, Status};
use objects::{Named, rfc3339};
use serde_json::{Value, json};
use values::JsonError;

use super::objects::{list, list_options, listing_of, object};
use super::{Objects, apply};
use crate::http::beside::LARGE;
use crate::http::negotiate::{Accepted, Shape, accepted_for, content_type, unsupported};
use crate::http::options::WriteOptions;
use crate::http::response::{Created, JSON, bytes};
use crate::http::warnings::warn;
use crate::http::{Asked, Body, body};
use crate::registry::{
    Apply, Binding, Create, DeleteOptions, Freshness, Recorded, Registry, Update, Written, fit_namespace,
    propagation,
};

const PATCHES: &str = "application/json-patch+json, application/merge-patch+json, \
     application/strategic-merge-patch+json, application/apply-patch+yaml, application/apply-patch+cbor";

/// Of kinds that come from definitions.
const CUSTOM_PATCHES: &str = "application/json-patch+json, application/merge-patch+json, \
     application/apply-patch+yaml, application/apply-patch+cbor";

/// What upstream says to a delete of a job that doesn't say what shall become of its pods.
const PODS_ARE_LEFT: &str = "child pods are preserved by default when jobs are deleted; \
    set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";

/// Answers create, update, patch, delete and deletecollection.
pub(crate) async fn write(
    with: &Objects,
    asked: &Asked<'_>,
    request: Request<Body>,
) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let accepted = accepted_for(&parts.headers, asked.target.resource)?;
    let is_apply =
        asked.verb == "patch" && matches!(content_type(&parts.headers).as_str(), apply::YAML | apply::CBOR);
    let options = WriteOptions::parse(asked.query, &parts.headers, asked.verb, is_apply)?;
    let (registry, headers) = (&*with.registry, &parts.headers);
    let write = Writing { with, registry, asked, headers, accepted, options, is_apply };
    let body = body::read(body, &with.beside).await?;
    let large = body.len().max(write.stored_bytes());
    let _room = with.beside.room(large)?;
    if large <= LARGE {
        return write.answer_to(body).await;
    }
    with.beside.change(write.answer_to(body)).await
}

struct Writing<'a> {
    with: &'a Objects,
    registry: &'a Registry,
    asked: &'a Asked<'a>,
    headers: &'a HeaderMap,
    accepted: Accepted,
    options: WriteOptions,
    is_apply: bool,
}

impl<'a> Writing<'a> {
    async fn answer_to(&self, body: Bytes) -> Result<Response<Body>, Status> {
        match (self.asked.target.subresource.as_str(), self.asked.verb) {
            ("", "create") if self.asked.target.resource.kind == "Binding" => self.bind(body).await,
            ("", "create") => self.create(body).await,
            ("", "delete") => self.delete(body).await,
            ("", "deletecollection") => self.delete_collection(body).await,
            ("binding", "create") => self.bind(body).await,
            ("eviction", "create") => self.evict(body).await,
            ("token", "create") => self.token(body).await,
            (_, "update") => self.update(body).await,
            (_, "patch") if self.is_apply => self.apply(body).await,
            (_, "patch") => self.patch(body).await,
            _ => Err(Status::method_not_allowed().about("", "", "")),
        }
    }

    /// How large the object is that is changed: a patch of a few bytes may change a large one.
    fn stored_bytes(&self) -> usize {
        let state = self.registry.store().snapshot();
        state.get(self.named().key().as_bytes()).map_or(0, |kv| kv.value.len())
    }

    fn named(&self) -> Named<'a> {
        let target = self.asked.target;
        Named { resource: target.resource, namespace: &target.namespace, name: &target.name }
    }

    fn change(&self) -> Update<'_> {
        Update {
            who: self.asked.who,
            named: self.named(),
            subresource: self.asked.target.subresource.as_str(),
            dry_run: self.options.dry_run,
            recorded: Recorded::Update(&self.options.manager),
        }
    }

    fn creation(&self) -> Create<'_> {
        Create {
            who: self.asked.who,
            resource: self.asked.target.resource,
            namespace: &self.asked.target.namespace,
            dry_run: self.options.dry_run,
            recorded: Recorded::Update(&self.options.manager),
        }
    }

    fn answer(&self, code: u16, written: impl Into<Written>) -> Result<Response<Body>, Status> {
        let is_scale = self.asked.target.subresource == "scale";
        let shape = if is_scale { Shape::Plain } else { self.accepted.shape };
        let (accepted, now) = (Accepted { shape, ..self.accepted }, self.registry.edge().second());
        match written.into() {
            Written::Stored(kv) if accepted.is_plain_json() => Ok(bytes(code, JSON, objects::stamped(&kv))),
            other => {
                let (resource, query) = (self.asked.target.resource, self.asked.query);
                object(resource, code, other.into_object()?, accepted, query, now)
            }
        }
    }

    async fn create(&self, body: Bytes) -> Result<Response<Body>, Status> {
        let target = self.asked.target;
        let read = || body::object(target.resource, self.headers, self.options.validation, body.clone());
        if is_question(target.resource) {
            return self.answer(201, self.review(read()?).await?);
        }
        let written = self.registry.create(&self.creation(), &read).await?;
        let created = Created(written.name().to_owned());
        let mut answer = self.answer(201, written)?;
        answer.extensions_mut().insert(created);
        Ok(answer)
    }

    async fn token(&self, body: Bytes) -> Result<Response<Body>, Status> {
        let (target, registry, edge) = (self.asked.target, self.registry, self.registry.edge());
        let question = body::value(self.headers, body)?.and_then(Object::from_value);
        let question = question.filter(|question| question.kind() == "TokenRequest");
        let mut question = question.ok_or_else(|| {
            Status::bad_request("the body must be a TokenRequest of authentication.k8s.io/v1")
        })?;
        question.0.remove("status");
        let version = question.api_version().to_owned();
        let fields = question.0.get("spec").cloned().unwrap_or_default();
        let request = TokenRequest::parse(&target.namespace, &target.name, &fields)?;
        let state = registry.state(Freshness::Newest).await?;
        let stamp = Stamp { now: edge.second(), uid: edge.uid() };
        let issued = registry.tokens().issue(&state, self.asked.who, &request, &stamp)?;
        let stamp = Stamp { uid: edge.uid(), ..stamp };
        let mut answer = request.answer(&issued, question, &stamp);
        let now = rfc3339(stamp.now);
        answer.set_meta("managedFields", recorded_fields(&fields, &self.options.manager, &version, &now));
        self.accepted.encoding.answer(201, &answer.into_value())
    }

    async fn review(&self, mut question: Object) -> Result<Object, Status> {
        let (target, registry, edge) = (self.asked.target, self.registry, self.registry.edge());
        fit_namespace(target.resource, &target.namespace, &mut question)?;
        Recorded::Update(&self.options.manager).update(
            target.resource,
            "",
            None,
            &mut question,
            &edge.time(),
        );
        if target.resource.plural == "tokenreviews" {
            let (token, audiences) = asked_token(&question)?;
            return Ok(reviewed(question, self.with.whose(&token, &audiences, None).await));
        }
        let state = registry.store().snapshot();
        registry.authorizer().review(&state, self.asked.who, target.resource, question, edge.second())
    }

    async fn update(&self, body: Bytes) -> Result<Response<Body>, Status> {
        let (target, registry) = (self.asked.target, self.registry);
        if target.subresource == "scale" {
            let scale = scale_object(body::value(self.headers, body)?)?;
            let updated = registry.change_scale(&self.change(), &|_| Ok(scale.clone())).await?;
            return self.answer(200, updated);
        }
        let object = body::object(target.resource, self.headers, self.options.validation, body)?;
        if !object.name().is_empty() && object.name() != target.name {
            let (given, asked) = (object.name(), &target.name);
            return Err(Status::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({asked})"
            )));
        }
        let change = |_: &Object| match object.resource_version() {
            "" if target.resource.demands_version() => Err(version_missing(&self.named())),
            _ => Ok(object.clone()),
        };
        match registry.change(&self.change(), &change).await {
            Err(status)
                if status.code == 404
                    && target.subresource.is_empty()
                    && target.resource.creates_on_update() =>
            {
                registry.check_may_create(self.asked.who, &self.named())?;
                let created = registry.create(&self.creation(), &|| Ok(object.clone())).await?;
                self.answer(201, created)
            }
            updated => self.answer(200, updated?),
        }
    }

    async fn patch(&self, body: Bytes) -> Result<Response<Body>, Status> {
        let target = self.asked.target;
        let kind = match content_type(self.headers).as_str() {
            "application/json-patch+json" => PatchType::Json,
            "application/merge-patch+json" => PatchType::Merge,
            // Lists of kinds that come from definitions say nothing of how they would be merged.
            "application/strategic-merge-patch+json" if target.resource.custom().is_none() => {
                PatchType::Strategic
            }
            other if target.resource.custom().is_some() => {
                return Err(unsupported(other, CUSTOM_PATCHES));
            }
            other => return Err(unsupported(other, PATCHES).about("", "", "")),
        };
        let (patch, duplicates) = values::json_and_duplicates(&body).map_err(|error| match error {
            JsonError::TooLarge(exceeded) => Status::too_large(exceeded),
            JsonError::Broken(error) => Status::bad_request(format!("the patch is not valid JSON: {error}")),
        })?;
        let resource = target.resource;
        let registry = self.registry;
        if target.subresource == "scale" {
            // A scale's fields are those of its object, as far as types go.
            let change = |scale: &Object| machinery::patch(resource, kind, scale, &patch);
            self.options.validation.judge_patch(duplicates)?;
            return self.answer(200, registry.change_scale(&self.change(), &change).await?);
        }
        let change = |old: &Object| {
            let mut patched = machinery::patch(resource, kind, old, &patch)?;
            let mut faults = duplicates.clone();
            faults.extend(machinery::check(resource, &mut patched)?);
            self.options.validation.judge_patch(faults)?;
            Ok(patched)
        };
        self.answer(200, registry.change(&self.change(), &change).await?)
    }

    async fn apply(&self, body: Bytes) -> Result<Response<Body>, Status> {
        let (resource, registry) = (self.asked.target.resource, self.registry);
        let patch = apply::patch(&self.named(), &self.options, &content_type(self.headers), &body)?;
        let request =
            Apply { change: self.change(), manager: &self.options.manager, force: self.options.force };
        if self.asked.target.subresource == "scale" {
            return self.answer(200, registry.apply_scale(&request, &patch).await?);
        }
        let finish = |mut object: Object| {
            machinery::check_applied(resource, &mut object)?;
            Ok(object)
        };
        let applied = registry.apply(&request, &patch, &finish).await?;
        self.answer(if applied.created { 201 } else { 200 }, applied.written)
    }

    fn delete_options(&self, body: Bytes) -> Result<DeleteOptions, Status> {
        let query = self.asked.query;
        let mut options = DeleteOptions { dry_run: self.options.dry_run, ..DeleteOptions::default() };
        if let Some(seconds) = query.get("gracePeriodSeconds") {
            let seconds = seconds.parse().map_err(|_| {
                Status::bad_request(format!("gracePeriodSeconds={seconds}: must be a whole number"))
            })?;
            options.grace_seconds = Some(seconds);
        }
        if let Some(policy) = query.get("propagationPolicy") {
            options.propagation = Some(propagation(policy)?);
        }
        if let Some(orphan) = query.choice("orphanDependents") {
            options.orphan_dependents(orphan)?;
        }
        if let Some(value) = body::value(self.headers, body)? {
            options.parse(&value)?;
        }
        Ok(options)
    }

    async fn delete(&self, body: Bytes) -> Result<Response<Body>, Status> {
        let named = self.named();
        let options = self.delete_options(body)?;
        let deleted = self.registry.delete(self.asked.who, &named, &options).await?;
        let is_job = (named.resource.group, named.resource.plural) == ("batch", "jobs");
        let leaves_pods = is_job && options.propagation.is_none();
        if !deleted.gone || answers_deleted_object(named.resource) {
            if leaves_pods {
                warn(PODS_ARE_LEFT);
            }
            return self.answer(200, deleted.object);
        }
        let mut details =
            json!({"name": named.name, "kind": named.resource.plural, "uid": deleted.object.uid()});
        if !named.resource.group.is_empty() {
            details["group"] = json!(named.resource.group);
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        self.accepted.encoding.answer(200, &status)
    }

    async fn delete_collection(&self, body: Bytes) -> Result<Response<Body>, Status> {
        let options = self.delete_options(body)?;
        let which = list_options(self.asked)?;
        let (items, revision) = self.registry.delete_collection(self.asked.who, &which, &options).await?;
        let now = self.registry.edge().second();
        list(self.asked.target.resource, &listing_of(items, revision), self.accepted, self.asked.query, now)
    }

    /// 201 for a subresource that is created but isn't an object.
    fn done(&self) -> Result<Response<Body>, Status> {
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        self.accepted.encoding.answer(201, &status)
    }

    async fn bind(&self, body: Bytes) -> Result<Response<Body>, Status> {
        let value = body::value(self.headers, body)?.unwrap_or_default();
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty());
        // A pod's own path names it; the one for all bindings leaves that to the binding.
        let pod = match self.asked.target.name.as_str() {
            "" => text("/metadata/name").unwrap_or_default(),
            name => name,
        };
        let required = |field: &str| {
            Status::invalid("", "Binding", pod, vec![machinery::Cause::required(field, "name is required")])
        };
        if pod.is_empty() {
            return Err(required("metadata.name"));
        }
        let Some(node) = text("/target/name") else { return Err(required("target.name")) };
        if text("/target/kind").is_some_and(|kind| kind != "Node") {
            return Err(Status::bad_request("the target of a binding must be a Node"));
        }
        let binding = Binding {
            namespace: &self.asked.target.namespace,
            pod,
            uid: text("/metadata/uid"),
            node,
            dry_run: self.options.dry_run,
        };
        self.registry.bind(self.asked.who, &binding).await?;
        self.done()
    }

    async fn evict(&self, body: Bytes) -> Result<Response<Body>, Status> {
        let value = body::value(self.headers, body)?.unwrap_or_default();
        let mut options = DeleteOptions { dry_run: self.options.dry_run, ..DeleteOptions::default() };
        if let Some(given) = value.get("deleteOptions").filter(|given| given.is_object()) {
            options.parse(given)?;
        }
        let given = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && given != self.asked.target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        self.registry.evict(self.asked.who, &self.named(), &options).await?;
        self.done()
    }
}

/// The managed fields of a `TokenRequest`: its client asked for those of its spec.
fn recorded_fields(spec: &Value, manager: &str, version: &str, now: &str) -> Value {
    let asked = spec.as_object().into_iter().flatten().map(|(field, _)| (format!("f:{field}"), json!({})));
    let fields: serde_json::Map<String, Value> = asked.collect();
    let manager = if manager.is_empty() { "unknown" } else { manager };
    json!([{
        "manager": manager, "operation": "Update", "apiVersion": version, "time": now,
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields}, "subresource": "token",
    }])
}

/// Whether objects of the resource are questions, which are answered and not kept.
fn is_question(resource: &machinery::Resource) -> bool {
    matches!(resource.group, "authentication.k8s.io" | "authorization.k8s.io")
}

fn scale_object(value: Option<Value>) -> Result<Object, Status> {
    let scale = value.and_then(Object::from_value).filter(|scale| scale.kind() == "Scale");
    scale.ok_or_else(|| Status::bad_request("the body must be a Scale of autoscaling/v1"))
}

/// The resources whose delete answers with the object: upstream's `ReturnDeletedObject`.
fn answers_deleted_object(resource: &machinery::Resource) -> bool {
    resource.answers_deleted_object() || resource.plural == "namespaces" && resource.group.is_empty()
}

fn version_missing(named: &Named<'_>) -> Status {
    let why = "must be specified for an update";
    let cause = machinery::Cause::invalid("metadata.resourceVersion", &json!(0), why);
    // As upstream: by the name of the resource, not of the kind.
    Status::invalid(named.resource.group, named.resource.plural, named.name, vec![cause])
}
