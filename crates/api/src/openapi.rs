//! The OpenAPI v3 documents, as `kubectl` reads them for `explain`, `apply` and `diff`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

/// Path below `/openapi/v3/`, and document. `schemas/select.py` makes them.
pub(crate) const DOCUMENTS: [(&str, &str); 5] = [
    ("api/v1", include_str!("../schemas/api__v1.json")),
    ("apis/apps/v1", include_str!("../schemas/apis__apps__v1.json")),
    ("apis/coordination.k8s.io/v1", include_str!("../schemas/apis__coordination.k8s.io__v1.json")),
    ("apis/discovery.k8s.io/v1", include_str!("../schemas/apis__discovery.k8s.io__v1.json")),
    ("apis/node.k8s.io/v1", include_str!("../schemas/apis__node.k8s.io__v1.json")),
];

/// What `GET /openapi/v3` answers: where each document is, with a hash so that clients may keep it.
pub fn openapi_v3_index() -> Value {
    static HASHES: OnceLock<[u64; DOCUMENTS.len()]> = OnceLock::new();
    let hashes = HASHES.get_or_init(|| {
        DOCUMENTS.map(|(_, document)| {
            let mut hasher = DefaultHasher::new();
            document.hash(&mut hasher);
            hasher.finish()
        })
    });
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .zip(hashes)
        .map(|((path, _), hash)| {
            let url = format!("/openapi/v3/{path}?hash={hash:016X}");
            ((*path).to_owned(), json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

/// The document at `path`, such as `api/v1` or `apis/apps/v1`.
pub fn openapi_v3(path: &str) -> Option<&'static [u8]> {
    DOCUMENTS.iter().find(|(known, _)| *known == path).map(|(_, document)| document.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources;

    #[test]
    fn every_served_group_and_version_has_a_document_with_its_kinds() {
        let index = openapi_v3_index();
        for resource in resources() {
            let prefix = if resource.group.is_empty() { "api/" } else { "apis/" };
            let path = format!("{prefix}{}", resource.api_version());
            assert!(index["paths"][&path]["serverRelativeURL"].is_string(), "{path}");
            let document: Value = serde_json::from_slice(openapi_v3(&path).unwrap()).unwrap();
            let kinds =
                &document["components"]["schemas"][resource.schema]["x-kubernetes-group-version-kind"];
            assert_eq!(kinds[0]["kind"], resource.kind);
            let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
            let one = &document["paths"][format!("/{path}{scope}/{}/{{name}}", resource.plural)];
            assert_eq!(one["patch"]["x-kubernetes-group-version-kind"]["kind"], resource.kind);
        }
    }
}
