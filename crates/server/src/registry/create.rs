//! Creating an object.

use access::{Decided, UserInfo};
use bytes::Bytes;
use machinery::{Cause, Object, Status};
use objects::{Named, look};
use serde_json::Value;
use store::{Compare, Condition, Revision, State};

use super::read::Freshness;
use super::{Recorded, Registry, Written, definition};
use crate::admission::{self, AdmissionRequest, Operation, Outcome, Refused, quota, service_account};
use crate::clock::Edge;
use crate::http::warnings::warn;

/// How often a generated name is tried anew.
///
/// Upstream has the same number (`maxNameGenerationCreateAttempts`, KEP-4420).
const NAME_ATTEMPTS: usize = 8;
/// How often a write is tried again after something changed in between.
pub(super) const ATTEMPTS: usize = 32;

/// A request to create.
pub(crate) struct Create<'a> {
    pub(crate) who: &'a UserInfo,
    pub(crate) resource: &'a machinery::Resource,
    /// The namespace of the path, empty for cluster-scoped resources.
    pub(crate) namespace: &'a str,
    pub(crate) dry_run: bool,
    pub(crate) recorded: Recorded<'a>,
}

impl<'a> Create<'a> {
    fn request(&self, named: Named<'a>, state: &'a State, edge: &'a dyn Edge) -> AdmissionRequest<'a> {
        AdmissionRequest {
            who: self.who,
            named,
            subresource: "",
            operation: Operation::Create,
            dry_run: self.dry_run,
            options: self.recorded.options("CreateOptions", self.dry_run),
            state,
            edge,
        }
    }
}

impl Registry {
    /// Creates the object that `make` gives. The function is called again where something changed in between.
    pub(crate) async fn create(
        &self,
        create: &Create<'_>,
        make: &(dyn Fn() -> Result<Object, Status> + Send + Sync),
    ) -> Result<Written, Status> {
        let (mut names, mut turn) = (0, None);
        for attempt in 0..ATTEMPTS {
            let mut object = make()?;
            fit(create, &mut object)?;
            let generated = object.name().is_empty() && !generate_name(&object).is_empty();
            if attempt == 0 && (create.resource.group, create.resource.plural) == ("", "pods") {
                service_account::wait_for_default(&*self.store, create.namespace, &object).await;
            }
            // What this member knows is nearly always enough: the transaction compares.
            let freshness = if attempt == 0 { Freshness::Any } else { Freshness::Newest };
            // A create that was overtaken waits for a turn, where only one change at a time can be counted.
            // The first attempt may have failed for its old state alone, which is no sign of others: so only from the
            // third on.
            if attempt > 1 && turn.is_none() && quota::is_limited(create.namespace, &self.store.snapshot()) {
                turn = Some(self.turns.wait(create.namespace).await);
            }
            let state = self.state(freshness).await?;
            let resource = self.current(create.resource, &state)?;
            if !resource.has_verb("create") {
                return Err(Status::method_not_allowed().about("", "", ""));
            }
            let create = &Create { resource: &resource, ..*create };
            if generated {
                object.set_meta("name", self.edge.name(generate_name(&object)));
            } else if object.name().is_empty() && resource.names_itself() {
                object.set_meta("name", self.edge.uid());
            }
            let namespace = match self.check_namespace(create, &object, &state) {
                Ok(condition) => condition,
                Err(_) if attempt == 0 => continue,
                Err(status) => return Err(status),
            };
            let name = object.name().to_owned();
            let named = Named { resource: create.resource, namespace: create.namespace, name: &name };
            let request = create.request(named, &state, &*self.edge);
            match self.prepare(create, &request, &mut object).await {
                Ok(()) => {}
                // What is missing here may exist elsewhere already.
                Err(refused) if attempt == 0 && asks_others(&refused, create.resource) => continue,
                Err(refused) => return Err(refused.status),
            }
            let decided = Decided { named, subresource: "", new: &object, old: None };
            match self.authorizer().check_privilege(&state, create.who, &decided) {
                Err(_) if attempt == 0 => continue,
                checked => checked?,
            }
            if state.get(named.key().as_bytes()).is_some() {
                if generated && names < NAME_ATTEMPTS {
                    names += 1;
                    continue;
                }
                if generated {
                    return Err(named.no_free_name());
                }
                if attempt > 0 {
                    return Err(named.already_exists());
                }
                continue;
            }
            let changed = (&mut object, None);
            let mut claims = admission::allocate(
                &self.services,
                create.resource,
                changed,
                create.dry_run,
                &state,
                &*self.edge,
            )?;
            let outcome = Outcome { new: Some(&object), old: None };
            match self.admission.validate(&request, outcome, &mut claims).await {
                Ok(()) => {}
                Err(refused) if attempt == 0 && !refused.is_final && refused.status.code == 403 => continue,
                Err(refused) => return Err(refused.status),
            }
            if create.dry_run {
                return self.rehearse(&resource, object).await;
            }
            claims.conditions.extend(namespace);
            claims.conditions.extend(definition::unchanged(&resource));
            if let Some(written) = self.put(&named, Revision::ZERO, object, claims).await? {
                return Ok(written);
            }
        }
        Err(too_busy())
    }

    /// Defaults, those who may change the object, and validation.
    async fn prepare(
        &self,
        create: &Create<'_>,
        request: &AdmissionRequest<'_>,
        object: &mut Object,
    ) -> Result<(), Refused> {
        let resource = create.resource;
        object.set_meta("uid", self.edge.uid());
        object.set_meta("creationTimestamp", self.edge.time());
        machinery::set_defaults(resource, object)?;
        self.record(create.recorded, resource, "", None, object).await;
        self.tokens.fill(request.state, object);
        self.admission.mutate(request, object, None).await?;
        machinery::prepare_create(resource, object);
        let mut causes = machinery::validate_create(resource, object);
        causes.extend(self.endpoint_faults(resource, object));
        causes.extend(admission::admin_fault(request, object)?);
        if causes.is_empty() {
            machinery::warnings(resource, object, None).into_iter().for_each(warn);
            machinery::settle(resource, object);
            return Ok(());
        }
        Err(Status::invalid(resource.group, resource.kind, object.name(), causes).into())
    }

    /// The namespace must exist and not be going away, until the write is done.
    fn check_namespace(
        &self,
        create: &Create<'_>,
        object: &Object,
        state: &State,
    ) -> Result<Option<Condition>, Status> {
        if !create.resource.namespaced {
            return Ok(None);
        }
        let key = objects::key("", "namespaces", "", create.namespace);
        let kv =
            state.get(key.as_bytes()).ok_or_else(|| Status::not_found("", "namespaces", create.namespace))?;
        let namespace = look(kv)?;
        if namespace.deletion_timestamp().is_some() {
            let name = if object.name().is_empty() { generate_name(object) } else { object.name() };
            let named = Named { resource: create.resource, namespace: create.namespace, name };
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                create.namespace
            );
            let mut status = named.forbidden(&why);
            if let Some(details) = &mut status.details {
                details.causes.push(Cause {
                    reason: "NamespaceTerminating".into(),
                    message: format!("namespace {} is being terminated", create.namespace),
                    field: "metadata.namespace".into(),
                });
            }
            return Err(status);
        }
        Ok(Some(Condition::ModRevision(Bytes::from(key), Compare::Equal, kv.mod_revision)))
    }
}

/// Whether an attempt was refused for what isn't in the object: for what isn't there, or for the label of a namespace.
fn asks_others(refused: &Refused, resource: &machinery::Resource) -> bool {
    let of_devices = refused.status.code == 422 && resource.group == "resource.k8s.io";
    !refused.is_final && (refused.status.code == 403 || of_devices)
}

/// Makes the object fit the path that it was sent to.
fn fit(create: &Create<'_>, object: &mut Object) -> Result<(), Status> {
    if !object.resource_version().is_empty() {
        return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    fit_namespace(create.resource, create.namespace, object)
}

/// The namespace in the object must be the path's, or not there; what lives in none loses the one that it names
/// (`EnsureObjectNamespaceMatchesRequestNamespace`).
pub(crate) fn fit_namespace(
    resource: &machinery::Resource,
    namespace: &str,
    object: &mut Object,
) -> Result<(), Status> {
    let given = object.namespace();
    if !resource.namespaced {
        object.remove_meta("namespace");
    } else if given.is_empty() {
        object.set_meta("namespace", namespace);
    } else if given != namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Status::bad_request(message));
    }
    Ok(())
}

fn generate_name(object: &Object) -> &str {
    object.meta("generateName").and_then(Value::as_str).unwrap_or_default()
}

/// 409 after many attempts: somebody else always was faster.
pub(super) fn too_busy() -> Status {
    Status::new(409, "Conflict", "the object or what it needs kept changing; try again")
}
