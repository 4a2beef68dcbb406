//! How lists merge, read from the schemas that the server publishes (OpenAPI v3).

use crate::{Client, Error, Resource};
use serde_json::Value;

/// The published schemas of one group and version.
pub(crate) struct Schemas {
    document: Value,
}

/// One schema in them.
#[derive(Clone, Copy)]
pub(crate) struct Schema<'a> {
    document: &'a Value,
    /// The field as its parent names it, with the merge strategy.
    field: &'a Value,
}

impl Schemas {
    /// Asks the server; none where it publishes none for the resource's group.
    pub(crate) async fn ask(client: &Client, resource: &Resource) -> Result<Option<Self>, Error> {
        let path = match resource.group.as_str() {
            "" => format!("/openapi/v3/api/{}", resource.version),
            group => format!("/openapi/v3/apis/{group}/{}", resource.version),
        };
        match client.get(&path).await {
            Ok(document) => Ok(Some(Schemas { document })),
            Err(Error::Server(status)) if matches!(status.code, 403 | 404 | 406) => Ok(None),
            Err(error) => Err(error),
        }
    }

    #[cfg(test)]
    pub(crate) fn new(document: Value) -> Self {
        Schemas { document }
    }

    /// The schema of a kind that understands strategic merge: one of which anything says how its lists merge.
    pub(crate) fn of(&self, resource: &Resource) -> Option<Schema<'_>> {
        let schemas = self.document.pointer("/components/schemas")?.as_object()?;
        let is_kind = |entry: &Value| {
            ["group", "version", "kind"].map(|f| entry.get(f).and_then(Value::as_str).unwrap_or_default())
                == [resource.group.as_str(), &resource.version, &resource.kind]
        };
        let (name, field) = schemas.iter().find(|(_, schema)| {
            let kinds = schema.get("x-kubernetes-group-version-kind").and_then(Value::as_array);
            kinds.is_some_and(|kinds| kinds.iter().any(is_kind))
        })?;
        // Custom resources are published under the reversed name of their group and merge as plain JSON.
        name.starts_with("io.k8s.").then_some(Schema { document: &self.document, field })
    }
}

impl<'a> Schema<'a> {
    /// The schema itself, through `$ref` and a single `allOf`.
    fn body(self) -> &'a Value {
        let mut at = self.field;
        // A published reference is one step; a loop of them must not hang a client.
        for _ in 0..8 {
            let reference = at.get("$ref").or_else(|| at.pointer("/allOf/0/$ref")).and_then(Value::as_str);
            let Some(pointer) = reference.and_then(|r| r.strip_prefix('#')) else { break };
            match self.document.pointer(pointer) {
                Some(found) => at = found,
                None => break,
            }
        }
        at
    }

    /// The schema of a field of an object, or of any value of a map.
    pub(crate) fn field(self, name: &str) -> Option<Schema<'a>> {
        let body = self.body();
        let field =
            body.get("properties").and_then(|p| p.get(name)).or_else(|| body.get("additionalProperties"))?;
        Some(Schema { document: self.document, field })
    }

    /// The schema of a list's items.
    pub(crate) fn item(self) -> Option<Schema<'a>> {
        self.body().get("items").map(|field| Schema { document: self.document, field })
    }

    fn has_strategy(self, strategy: &str) -> bool {
        let all = self.field.get("x-kubernetes-patch-strategy").and_then(Value::as_str).unwrap_or_default();
        all.split(',').any(|s| s == strategy)
    }

    /// Lists of it merge item by item and are not replaced.
    pub(crate) fn merges(self) -> bool {
        self.has_strategy("merge")
    }

    /// A patch of it names all fields that stay.
    pub(crate) fn retains_keys(self) -> bool {
        self.has_strategy("retainKeys")
    }

    /// A patch of it replaces it whole.
    pub(crate) fn replaces(self) -> bool {
        self.has_strategy("replace")
    }

    /// The field by which items of the list are the same.
    pub(crate) fn merge_key(self) -> Option<&'a str> {
        self.field.get("x-kubernetes-patch-merge-key").and_then(Value::as_str)
    }
}
