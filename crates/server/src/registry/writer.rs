//! The same write path for the parts of this process: controllers, scheduler, agent.

use access::{Attributes, Bound, Stamp, TokenRequest, UserInfo, Wanted};
use futures::future::BoxFuture;
use machinery::{Object, PatchType, Resource, Status};
use objects::{Delete, Named, ObjectRef, TypedRef, Uid, Write, Writer};
use serde_json::json;

use super::recorded::name_of_user;
use super::{Binding, Create, DeleteOptions, Freshness, Recorded, Registry, Update};

impl Writer for Registry {
    fn write<'a>(&'a self, user: &'a str, write: Write) -> BoxFuture<'a, Result<Object, Status>> {
        Box::pin(async move {
            let who = UserInfo::in_process(user);
            match write {
                Write::Create(object) => self.write_create(&who, object).await,
                Write::Update(object) => self.write_update(&who, object, "").await,
                Write::UpdateStatus(object) => self.write_update(&who, object, "status").await,
                Write::Merge { subject, subresource, patch } => {
                    let resource = &self.resource_of(&subject.api_version, &subject.kind)?;
                    self.allow(&who, "patch", resource, subresource, &subject.namespace, &subject.name)?;
                    let recorded = Recorded::Update(name_of_user(user));
                    let named = name(resource, &subject);
                    let change = Update { who: &who, named, subresource, dry_run: false, recorded };
                    if subresource == "scale" {
                        let merge =
                            |scale: &Object| machinery::patch(resource, PatchType::Merge, scale, &patch);
                        return self.change_scale(&change, &merge).await;
                    }
                    let merge = |old: &Object| {
                        let mut merged = machinery::patch(resource, PatchType::Merge, old, &patch)?;
                        machinery::check(resource, &mut merged)?;
                        Ok(merged)
                    };
                    self.change(&change, &merge).await?.into_object()
                }
                Write::Delete { subject, options } => self.write_delete(&who, &subject, options).await,
                Write::Evict { pod, uid } => self.write_evict(&who, &pod, &uid).await,
                Write::Bind { pod: ObjectRef { namespace, name: pod }, uid, node } => {
                    let resource = &self.resource_of("v1", "Pod")?;
                    self.allow(&who, "create", resource, "binding", &namespace, &pod)?;
                    let binding = Binding {
                        namespace: &namespace,
                        pod: &pod,
                        uid: Some(uid.as_str()),
                        node: &node,
                        dry_run: false,
                    };
                    self.bind(&who, &binding).await
                }
            }
        })
    }

    fn token<'a>(
        &'a self,
        user: &'a str,
        request: objects::TokenRequest,
    ) -> BoxFuture<'a, Result<String, Status>> {
        Box::pin(async move {
            let who = UserInfo::in_process(user);
            let resource = &self.resource_of("v1", "ServiceAccount")?;
            let state = self.state(Freshness::Newest).await?;
            let objects::TokenRequest { namespace, account, audience, seconds, pod, pod_uid } = request;
            self.allow(&who, "create", resource, "token", &namespace, &account)?;
            let wanted = TokenRequest {
                namespace: &namespace,
                account: &account,
                audiences: Some(audience).filter(|audience| !audience.is_empty()).into_iter().collect(),
                seconds,
                bound: Some(Bound { kind: "v1/Pod".into(), name: pod, uid: pod_uid }),
            };
            let stamp = Stamp { now: self.edge.second(), uid: self.edge.uid() };
            Ok(self.tokens.issue(&state, &who, &wanted, &stamp)?.token)
        })
    }
}

impl Registry {
    fn allow(
        &self,
        who: &UserInfo,
        verb: &str,
        resource: &Resource,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        let Resource { group, plural, .. } = *resource;
        let wanted = Attributes { verb, group, resource: plural, subresource, namespace, name, fields: "" };
        self.check_allowed(who, &Wanted::Object(wanted))
    }

    async fn write_create(&self, who: &UserInfo, mut object: Object) -> Result<Object, Status> {
        let resource = &self.resource_of(object.api_version(), object.kind())?;
        let namespace = object.namespace().to_owned();
        self.allow(who, "create", resource, "", &namespace, object.name())?;
        machinery::check(resource, &mut object)?;
        let recorded = Recorded::Update(name_of_user(&who.user));
        let create = Create { who, resource, namespace: &namespace, dry_run: false, recorded };
        self.create(&create, &|| Ok(object.clone())).await?.into_object()
    }

    async fn write_update(
        &self,
        who: &UserInfo,
        mut object: Object,
        subresource: &str,
    ) -> Result<Object, Status> {
        let resource = &self.resource_of(object.api_version(), object.kind())?;
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        self.allow(who, "update", resource, subresource, &namespace, &name)?;
        machinery::check(resource, &mut object)?;
        let named = Named { resource, namespace: &namespace, name: &name };
        let recorded = Recorded::Update(name_of_user(&who.user));
        let change = Update { who, named, subresource, dry_run: false, recorded };
        self.change(&change, &|_| Ok(object.clone())).await?.into_object()
    }

    async fn write_evict(&self, who: &UserInfo, pod: &ObjectRef, uid: &Uid) -> Result<Object, Status> {
        let resource = &self.resource_of("v1", "Pod")?;
        let ObjectRef { namespace, name } = pod;
        self.allow(who, "create", resource, "eviction", namespace, name)?;
        let options = DeleteOptions { uid: Some(uid.as_str().to_owned()), ..DeleteOptions::default() };
        self.evict(who, &Named { resource, namespace, name }, &options).await?;
        let metadata = json!({"namespace": namespace, "name": name});
        let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": metadata});
        Object::from_value(eviction).ok_or_else(|| Status::internal("an eviction is no object"))
    }

    async fn write_delete(
        &self,
        who: &UserInfo,
        subject: &TypedRef,
        options: Delete,
    ) -> Result<Object, Status> {
        let resource = &self.resource_of(&subject.api_version, &subject.kind)?;
        self.allow(who, "delete", resource, "", &subject.namespace, &subject.name)?;
        let options = DeleteOptions {
            uid: options.uid,
            resource_version: options.resource_version,
            grace_seconds: options.grace_seconds.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX)),
            propagation: options.propagation,
            dry_run: false,
        };
        Ok(self.delete(who, &name(resource, subject), &options).await?.object)
    }
}

fn name<'a>(resource: &'a Resource, subject: &'a TypedRef) -> Named<'a> {
    Named { resource, namespace: &subject.namespace, name: &subject.name }
}
