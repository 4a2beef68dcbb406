//! One object of one resource, named.

use machinery::{Resource, Status};

/// Which object.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Its resource.
    pub resource: &'a Resource,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

impl Named<'_> {
    /// Where it lies in the store.
    pub fn key(&self) -> String {
        let (group, plural) = self.resource.stored_under();
        crate::key(group, plural, self.namespace, self.name)
    }

    /// 404: it isn't there.
    pub fn not_found(&self) -> Status {
        Status::not_found(self.resource.group, self.resource.plural, self.name)
    }

    /// 409: it is there already.
    pub fn already_exists(&self) -> Status {
        Status::already_exists(self.resource.group, self.resource.plural, self.name)
    }

    /// 409: every name that was generated is taken; another try may find a free one.
    pub fn no_free_name(&self) -> Status {
        let mut status = self.already_exists();
        status.message.push_str(", the server was not able to generate a unique name for the object");
        if let Some(details) = &mut status.details {
            details.retry_after_seconds = 1;
        }
        status
    }

    /// 409: it is not as somebody thought.
    pub fn conflict(&self, why: &str) -> Status {
        Status::conflict(self.resource.group, self.resource.plural, self.name, why)
    }

    /// 409: a precondition of a delete does not hold; upstream names the kind here, not the resource.
    pub fn precondition_failed(&self, why: &str) -> Status {
        let status = self.conflict(&format!("Precondition failed: {why}"));
        status.about(self.resource.group, self.resource.kind, self.name)
    }

    /// 403: that may not be done with it.
    pub fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(self.resource.group, self.resource.plural, self.name, why)
    }
}
