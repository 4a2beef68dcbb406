//! Fields that an applier may not change without force.

use super::entry::{Entry, Operation};
use super::field_set::FieldSet;
use super::fields_v1::path_text;
use super::versions::Differences;
use crate::status::{Cause, Details, Status};

/// One manager's fields that an applier would change.
#[derive(Debug)]
pub(super) struct Conflict {
    /// The manager as people read it.
    manager: String,
    fields: FieldSet,
}

impl Conflict {
    /// The conflict with an entry, if the change touches its fields.
    pub fn with(entry: &Entry<'_>, differences: &Differences) -> Option<Self> {
        let difference = differences.in_version(&entry.api_version)?;
        let fields = entry.fields.clone().set().intersection(&difference.changed);
        (!fields.is_empty()).then(|| Conflict { manager: in_words(entry), fields })
    }

    /// What is left of the conflict where these fields are none.
    pub fn without(self, allowed: &FieldSet) -> Option<Self> {
        let fields = self.fields.difference(allowed);
        (!fields.is_empty()).then_some(Conflict { fields, ..self })
    }
}

fn in_words(entry: &Entry<'_>) -> String {
    let mut text = format!("{:?}", entry.manager);
    if !entry.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", entry.subresource));
    }
    if entry.operation == Operation::Update {
        text.push_str(&format!(" using {}", entry.api_version));
    }
    text
}

/// 409 with a cause for each field.
pub(super) fn apply_conflict(mut conflicts: Vec<Conflict>) -> Status {
    conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for conflict in &conflicts {
        lines.push(format!("conflicts with {}:", conflict.manager));
        for path in conflict.fields.paths() {
            let field = path_text(&path);
            lines.push(format!("- {field}"));
            let message = format!("conflict with {}", conflict.manager);
            causes.push(Cause { reason: "FieldManagerConflict".into(), message, field });
        }
    }
    let message = match causes.as_slice() {
        [only] => format!("Apply failed with 1 conflict: {}: {}", only.message, only.field),
        _ => format!("Apply failed with {} conflicts: {}", causes.len(), lines.join("\n")),
    };
    let mut status = Status::new(409, "Conflict", message);
    status.details = Some(Box::new(Details { causes, ..Details::default() }));
    status
}
