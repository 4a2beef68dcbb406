//! What is asked about changes because a user configured it: policies and webhooks.

mod configured;
mod guard;
mod matching;
mod mutating_policy;
mod parameters;
mod review;
mod validating_policy;
mod webhooks;

use std::sync::Arc;

use access::Authorizer;
use machinery::{Object, Status};

use self::configured::Configured;
use self::matching::is_exempt;
use super::Refused;
use crate::admission::{AdmissionRequest, Outcome};
use crate::catalog::Known;
use crate::conversion::Converter;
use crate::webhook::WebhookClient;

/// Everything that is configured, and the way to webhooks.
pub(crate) struct Outside {
    configured: Configured,
    authorizer: Arc<Authorizer>,
    client: Arc<WebhookClient>,
    converter: Arc<Converter>,
    definitions: Arc<Known>,
}

impl Outside {
    pub(crate) fn new(
        authorizer: Arc<Authorizer>,
        client: Arc<WebhookClient>,
        converter: Arc<Converter>,
        definitions: Arc<Known>,
    ) -> Self {
        Outside { configured: Configured::default(), authorizer, client, converter, definitions }
    }
}

/// Which policies and webhooks are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    /// All of them.
    First,
    /// Those that want to see what others made of the object (`reinvocationPolicy`).
    Again,
}

impl Outside {
    /// Whether anybody is there who might change the object.
    pub(crate) fn may_change(&self, request: &AdmissionRequest<'_>) -> bool {
        !is_exempt(request) && Configured::has_mutating(request.state)
    }

    /// Lets them change the object: policies, then webhooks. The answer is whether any did.
    pub(crate) async fn mutate(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut Object,
        old: Option<&Object>,
        round: Round,
    ) -> Result<bool, Refused> {
        if is_exempt(request) {
            return Ok(false);
        }
        let mut changed = self.apply_policies(request, object, old, round).await.map_err(Refused::finally)?;
        changed |= self.call_mutating(request, object, old, round).await.map_err(Refused::finally)?;
        Ok(changed)
    }

    /// Webhooks that may change objects, asked about a delete, where there is nothing to change.
    pub(crate) async fn before_delete(
        &self,
        request: &AdmissionRequest<'_>,
        old: &Object,
    ) -> Result<(), Refused> {
        if is_exempt(request) {
            return Ok(());
        }
        self.call_before_delete(request, old).await.map_err(Refused::finally)
    }

    /// Makes an object that others changed one of its kind again; what is the server's stays as it was before.
    pub(crate) fn settle(
        &self,
        request: &AdmissionRequest<'_>,
        object: &mut Object,
        before: &Object,
        old: Option<&Object>,
    ) -> Result<(), Status> {
        let resource = request.named.resource;
        for field in ["name", "namespace", "uid", "creationTimestamp", "managedFields", "resourceVersion"] {
            match before.meta(field) {
                Some(value) => object.set_meta(field, value.clone()),
                None => {
                    object.remove_meta(field);
                }
            }
        }
        machinery::check(resource, object)?;
        machinery::set_defaults(resource, object)?;
        match old {
            Some(old) => machinery::prepare_update(resource, part(request.subresource), object, old),
            None => machinery::prepare_create(resource, object),
        }
        Ok(())
    }

    /// Those who judge: policies, then webhooks.
    pub(crate) async fn validate(
        &self,
        request: &AdmissionRequest<'_>,
        outcome: Outcome<'_>,
    ) -> Result<(), Refused> {
        if is_exempt(request) {
            return Ok(());
        }
        self.ask_policies(request, outcome).await.map_err(Refused::finally)?;
        self.call_validating(request, outcome).await.map_err(Refused::finally)
    }
}

/// The part of the object that is written: a scale is a view of all of it.
pub(crate) fn part(subresource: &str) -> &str {
    if subresource == "scale" { "" } else { subresource }
}
