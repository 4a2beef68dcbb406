//! Changing an object: read, change, compare and write, again where somebody else was faster.

use access::{Decided, UserInfo};
use machinery::{Object, Status};
use objects::Named;
use serde_json::Value;
use store::State;

use super::attempts::{freshness_of, settled};
use super::create::{ATTEMPTS, fit_namespace, too_busy};
use super::read::Freshness;
use super::{Recorded, Registry, Written, definition, recorded};
use crate::admission::{self, AdmissionRequest, Operation, Outcome, Refused};
use crate::clock::Edge;
use crate::conversion;
use crate::http::warnings::warn;

const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// A request to change one object or a subresource of it.
#[derive(Clone, Copy)]
pub(crate) struct Update<'a> {
    pub(crate) who: &'a UserInfo,
    pub(crate) named: Named<'a>,
    /// Such as `status`, or empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) dry_run: bool,
    pub(crate) recorded: Recorded<'a>,
}

impl<'a> Update<'a> {
    fn asked(&self, state: &'a State, edge: &'a dyn Edge) -> AdmissionRequest<'a> {
        AdmissionRequest {
            who: self.who,
            named: self.named,
            subresource: self.subresource,
            operation: Operation::Update,
            dry_run: self.dry_run,
            options: self.recorded.options("UpdateOptions", self.dry_run),
            state,
            edge,
        }
    }
}

impl Registry {
    /// Changes an object by `change`, a function from what it is to what it shall be. A resourceVersion in
    /// the result other than the current one is a conflict. The function is called again when the object
    /// changed in between.
    pub(crate) async fn change(
        &self,
        request: &Update<'_>,
        change: &(dyn Fn(&Object) -> Result<Object, Status> + Send + Sync),
    ) -> Result<Written, Status> {
        for attempt in 0..ATTEMPTS {
            let freshness = freshness_of(attempt);
            if let Some(answer) = settled(self.attempt(request, change, freshness).await, freshness) {
                return answer;
            }
        }
        Err(too_busy())
    }

    /// One attempt; nothing if the object changed in between, or may have.
    async fn attempt(
        &self,
        request: &Update<'_>,
        change: &(dyn Fn(&Object) -> Result<Object, Status> + Send + Sync),
        freshness: Freshness,
    ) -> Result<Option<Written>, Refused> {
        let state = self.state(freshness).await?;
        let current = self.current(request.named.resource, &state)?;
        let request = &Update { named: Named { resource: &current, ..request.named }, ..*request };
        let (named, resource) = (&request.named, &*current);
        let kv = state.get(named.key().as_bytes()).ok_or_else(|| named.not_found())?;
        let old = self.converter.load(named.resource, kv).await?;
        let mut new = change(&old)?;
        check_identity(named, &mut new, &old)?;

        let asked = request.asked(&state, &*self.edge);
        admission::on_change(&asked, &old)?;
        let part = admission::part(request.subresource);
        machinery::set_defaults(resource, &mut new)?;
        // Nobody owns what the server takes back: of a status update that is all but the status, and some of
        // the metadata as the kind says. Otherwise upstream records first what the client asks for.
        let is_status = part == "status";
        if is_status {
            machinery::prepare_update(resource, part, &mut new, &old);
        }
        self.record(request.recorded, resource, part, Some(&old), &mut new).await;
        if !is_status {
            machinery::prepare_update(resource, part, &mut new, &old);
        }
        self.tokens.fill(&state, &mut new);
        self.admission.mutate(&asked, &mut new, Some(&old)).await?;
        let decided = Decided { named: *named, subresource: part, new: &new, old: Some(&old) };
        self.authorizer().check_privilege(&state, request.who, &decided)?;
        let mut causes = machinery::validate_update(resource, part, &new, &old);
        causes.extend(self.endpoint_faults(resource, &new));
        if !causes.is_empty() {
            return Err(Status::invalid(resource.group, resource.kind, named.name, causes).into());
        }
        if part.is_empty() {
            machinery::warnings(resource, &new, Some(&old)).into_iter().for_each(warn);
        }
        machinery::settle(resource, &mut new);
        let mut claims = admission::allocate(
            &self.services,
            resource,
            (&mut new, Some(&old)),
            request.dry_run,
            &state,
            &*self.edge,
        )?;
        let outcome = Outcome { new: Some(&new), old: Some(&old) };
        self.admission.validate(&asked, outcome, &mut claims).await?;

        new.set_meta("resourceVersion", old.resource_version());
        recorded::keep_times(&mut new, &old);
        if request.dry_run {
            return Ok(Some(self.rehearse(resource, new).await?));
        }
        let ends = is_finished(&new);
        if !ends && new == old && conversion::is_in_place(resource, kv) {
            // Nothing to write, if that is still what the object is.
            return Ok((freshness != Freshness::Any).then(|| new.into()));
        }
        let mut claims = if ends { admission::release(resource, &old) } else { claims };
        claims.conditions.extend(definition::unchanged(resource));
        if !ends {
            return Ok(self.put(named, kv.mod_revision, new, claims).await?);
        }
        let revision = self.remove(named, kv.mod_revision, claims).await?;
        Ok(revision.map(|revision| {
            new.set_meta("resourceVersion", revision.to_string());
            new.into()
        }))
    }
}

/// The object must still be the one that was read.
fn check_identity(named: &Named<'_>, new: &mut Object, old: &Object) -> Result<(), Status> {
    let version = new.resource_version();
    if !version.is_empty() && version != old.resource_version() {
        return Err(named.conflict(MODIFIED));
    }
    if !new.uid().is_empty() && new.uid() != old.uid() {
        let why = format!("UID in precondition: {}, UID in object meta: {}", new.uid(), old.uid());
        return Err(named.conflict(&format!("Precondition failed: {why}")));
    }
    if !new.name().is_empty() && new.name() != named.name {
        let message = format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            new.name(),
            named.name
        );
        return Err(Status::bad_request(message));
    }
    fit_namespace(named.resource, named.namespace, new)?;
    Ok(())
}

/// Whether nothing keeps a deleted object any more.
pub(super) fn is_finished(object: &Object) -> bool {
    let grace = object.meta("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    object.deletion_timestamp().is_some()
        && object.finalizers().is_empty()
        && grace == 0
        && super::namespace::is_empty(object)
}
