//! `ServiceAccount`.

use machinery::Object;
use machinery::rules::Rules;
use serde_json::Value;

pub(crate) struct ServiceAccount;

impl Rules for ServiceAccount {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Object) {
        keep_names(object);
    }

    fn prepare_update(&self, _subresource: &str, object: &mut Object, _old: &Object) {
        keep_names(object);
    }
}

/// Secrets of an account lie where it does: only their names count.
fn keep_names(object: &mut Object) {
    for secret in object.0.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(secret) = secret {
            secret.retain(|field, _| field == "name");
        }
    }
}
