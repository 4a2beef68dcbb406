//! One object of one resource, named.

use api::{Resource, Status};

/// Which object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) resource: &'a Resource,
    /// Empty for cluster-scoped resources.
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

impl Named<'_> {
    pub(crate) fn key(&self) -> String {
        let (group, plural) = self.resource.stored_under();
        objects::key(group, plural, self.namespace, self.name)
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(self.resource.group, self.resource.plural, self.name)
    }

    pub(crate) fn already_exists(&self) -> Status {
        Status::already_exists(self.resource.group, self.resource.plural, self.name)
    }

    /// 409: every name that was generated is taken; another try may find a free one.
    pub(crate) fn no_free_name(&self) -> Status {
        let mut status = self.already_exists();
        status.message.push_str(", the server was not able to generate a unique name for the object");
        if let Some(details) = &mut status.details {
            details.retry_after_seconds = 1;
        }
        status
    }

    pub(crate) fn conflict(&self, why: &str) -> Status {
        Status::conflict(self.resource.group, self.resource.plural, self.name, why)
    }

    /// 409: a precondition of a delete does not hold; upstream names the kind here, not the resource.
    pub(crate) fn precondition_failed(&self, why: &str) -> Status {
        let status = self.conflict(&format!("Precondition failed: {why}"));
        status.about(self.resource.group, self.resource.kind, self.name)
    }

    pub(crate) fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(self.resource.group, self.resource.plural, self.name, why)
    }
}
