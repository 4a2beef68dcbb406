//! The versions of a CustomResourceDefinition.

use std::collections::HashSet;

use machinery::{Cause, Faults, name};
use serde_json::{Value, json};

use super::same::all_share;
use super::structural::validate_schema;
use crate::kinds::field::{self, items, paths, text};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MOST_SELECTABLE: usize = 8;
const WITHOUT_DOT: &str = "must be a simple json path starting with .";
const LONGEST_WARNING: usize = 256;

/// The parts of versions: their names, what each is called where all versions share it, and what is asked of it.
static PARTS: [(&str, &str, Check); 4] = [
    ("schema", "spec.validation", |schema, version, path, faults| {
        let status = has_status(version);
        validate_schema(&schema["openAPIV3Schema"], &format!("{path}.openAPIV3Schema"), status, faults);
    }),
    ("subresources", "spec.subresources", |part, _, path, faults| validate_subresources(part, path, faults)),
    ("additionalPrinterColumns", "spec.additionalPrinterColumns", |part, _, path, faults| {
        validate_columns(part, path, faults);
    }),
    ("selectableFields", "spec.selectableFields", validate_selectable),
];

/// What is asked of a part of a version.
type Check = fn(&Value, &Value, &str, &mut Faults);

fn has_status(version: &Value) -> bool {
    !version["subresources"]["status"].is_null()
}

/// What each version says for itself.
pub(super) fn validate_versions(spec: &Value, faults: &mut Faults) {
    let versions = &spec["versions"];
    for (path, version) in paths(versions, "spec.versions") {
        let schema = format!("{path}.schema.openAPIV3Schema");
        field::require(&version["schema"]["openAPIV3Schema"], schema, "", faults);
    }
    let shares_schema = all_share(items(versions), "schema");
    let own: Vec<_> = PARTS.iter().filter(|(part, ..)| !all_share(items(versions), part)).collect();
    for (path, version) in paths(versions, "spec.versions") {
        field::named(&version["name"], format!("{path}.name"), name::label_1035_fault, faults);
        validate_warning(version, &path, faults);
        for (part, _, check) in &own {
            let path = format!("{path}.{part}");
            // Fields are looked for in a schema that stands where they do.
            if *part == "selectableFields" && !items(&version[*part]).is_empty() && shares_schema {
                let why = "may only be set when `version.schema.openAPIV3Schema` is not included";
                faults.push(Cause::invalid(path, &"".into(), why));
            } else {
                check(&version[*part], version, &path, faults);
            }
        }
    }
    let mut names = HashSet::new();
    if !items(versions).iter().all(|version| names.insert(text(version, "name"))) {
        faults.push(Cause::invalid("spec.versions", versions, "must contain unique version names"));
    }
    if items(versions).iter().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        faults.push(Cause::invalid("spec.versions", versions, why));
    }
    // The first version's name has a field of its own upstream.
    let first = text(&versions[0], "name");
    if let Some(why) = name::label_1035_fault(first).filter(|_| !first.is_empty()) {
        faults.push(Cause::invalid("spec.version", &versions[0]["name"], why));
    }
}

/// What all versions share: upstream names it once, as if it stood beside them.
pub(super) fn validate_shared(spec: &Value, faults: &mut Faults) {
    let versions = items(&spec["versions"]);
    let Some(first) = versions.first() else { return };
    let shares_schema = all_share(versions, "schema");
    for (part, path, check) in PARTS.iter().filter(|(part, ..)| all_share(versions, part)) {
        if *part == "selectableFields" && !items(&first[*part]).is_empty() && !shares_schema {
            let why = "may only be set when validations.schema is included";
            faults.push(Cause::invalid(*path, &"".into(), why));
        } else {
            // Where one of them has a status, a schema that all share is one beside a status.
            let version = versions.iter().find(|version| has_status(version)).unwrap_or(first);
            check(&first[*part], version, path, faults);
        }
    }
}

fn validate_warning(version: &Value, path: &str, faults: &mut Faults) {
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    let path = format!("{path}.deprecationWarning");
    let value = json!(warning);
    if version["deprecated"] != true {
        return faults.push(Cause::invalid(&path, &value, "can only be set for deprecated versions"));
    }
    if warning.len() > LONGEST_WARNING {
        let why = format!("must be <= {LONGEST_WARNING} characters long");
        faults.push(Cause::invalid(&path, &value, &why));
    }
    if warning.is_empty() {
        faults.push(Cause::invalid(&path, &value, "must not be an empty string"));
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        );
        faults.push(Cause::invalid(path, &value, &why));
    }
}

fn validate_subresources(subresources: &Value, path: &str, faults: &mut Faults) {
    let scale = &subresources["scale"];
    if scale.is_null() {
        return;
    }
    let fields: [(&str, &[&str], &str); 3] = [
        ("specReplicasPath", &[".spec."], ".spec"),
        ("statusReplicasPath", &[".status."], ".status"),
        ("labelSelectorPath", &[".spec.", ".status."], "either .spec or .status"),
    ];
    for (field, roots, in_words) in fields {
        let pointer = text(scale, field);
        let path = format!("{path}.scale.{field}");
        if pointer.is_empty() {
            if field != "labelSelectorPath" {
                faults.push(Cause::required(path, ""));
            }
        } else if !pointer.starts_with('.') {
            faults.push(Cause::invalid(path, &scale[field], WITHOUT_DOT));
        } else if !roots.iter().any(|root| pointer.starts_with(root)) {
            let why = format!("should be a json path under {in_words}");
            faults.push(Cause::invalid(path, &scale[field], &why));
        }
    }
}

fn validate_columns(columns: &Value, path: &str, faults: &mut Faults) {
    for (path, column) in paths(columns, path) {
        field::require(&column["name"], format!("{path}.name"), "", faults);
        let kind = format!("{path}.type");
        if field::require(&column["type"], &kind, "", faults) && !COLUMN_TYPES.contains(&text(column, "type"))
        {
            let why = format!("must be one of {}", COLUMN_TYPES.join(","));
            faults.push(Cause::invalid(kind, &column["type"], &why));
        }
        let format = text(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let why = format!("must be one of {}", COLUMN_FORMATS.join(","));
            faults.push(Cause::invalid(format!("{path}.format"), &column["format"], &why));
        }
        // So upstream calls it.
        let pointer = format!("{path}.JSONPath");
        if field::require(&column["jsonPath"], &pointer, "", faults)
            && !text(column, "jsonPath").starts_with('.')
        {
            faults.push(Cause::invalid(pointer, &column["jsonPath"], WITHOUT_DOT));
        }
    }
}

fn validate_selectable(fields: &Value, version: &Value, path: &str, faults: &mut Faults) {
    let mut known: Vec<&str> = Vec::new();
    for (path, selectable) in paths(fields, path) {
        let path = format!("{path}.jsonPath");
        let value = &selectable["jsonPath"];
        if !field::require(value, &path, "", faults) {
            continue;
        }
        let pointer = text(selectable, "jsonPath");
        let found = match selected(&version["schema"]["openAPIV3Schema"], pointer) {
            Ok(found) => found,
            Err(why) => {
                faults.push(Cause::invalid(path, value, &format!("is an invalid path: {why}")));
                continue;
            }
        };
        if pointer.split('.').nth(1) == Some("metadata") {
            faults.push(Cause::invalid(&path, value, "must not point to fields in metadata"));
        }
        if !matches!(text(found, "type"), "string" | "boolean" | "integer") {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are \
                allowed.";
            faults.push(Cause::invalid(&path, value, why));
        }
        if known.contains(&pointer) {
            faults.push(Cause::duplicate(path, value));
        } else {
            known.push(pointer);
        }
    }
    if known.len() > MOST_SELECTABLE {
        faults.push(Cause::too_many(path, known.len(), MOST_SELECTABLE));
    }
}

/// The schema of the field that a path such as `.spec.color` leads to (`cel.ValidFieldPath` upstream, without indexes).
fn selected<'a>(schema: &'a Value, path: &str) -> Result<&'a Value, String> {
    if path.contains('[') {
        return Err("array notation is not allowed".to_owned());
    }
    let Some(path) = path.strip_prefix('.') else {
        let name = path.split('.').next().unwrap_or_default();
        return Err(format!("expected [ or . but got: {name}"));
    };
    path.split('.').try_fold(schema, |schema, name| {
        let found = match &schema["properties"] {
            Value::Object(properties) => properties.get(name),
            _ => Some(&schema["additionalProperties"]).filter(|values| values.is_object()),
        };
        match found {
            _ if name.is_empty() => Err("unexpected end of JSON path".to_owned()),
            Some(found) => Ok(found),
            None => Err("does not refer to a valid field".to_owned()),
        }
    })
}
