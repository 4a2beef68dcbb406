//! The versions of a CustomResourceDefinition.

use machinery::{Cause, Faults, name};
use serde_json::{Value, json};

use super::structural::validate_schema;
use crate::kinds::field::{self, items, paths, text};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MOST_SELECTABLE: usize = 8;
const LONGEST_WARNING: usize = 256;

pub(super) fn validate_versions(spec: &Value, faults: &mut Faults) {
    let versions = &spec["versions"];
    let storing = items(versions).iter().filter(|version| version["storage"] == true).count();
    if storing != 1 {
        let why = "must have exactly one version marked as storage version";
        faults.push(Cause::invalid("spec.versions", versions, why));
    }
    for (index, (path, version)) in paths(versions, "spec.versions").enumerate() {
        let named = text(version, "name");
        if items(versions)[..index].iter().any(|other| text(other, "name") == named) {
            let why = "must contain unique version names";
            faults.push(Cause::invalid("spec.versions", versions, why));
        }
        field::named(&version["name"], format!("{path}.name"), name::label_1035_fault, faults);
        let schema = format!("{path}.schema.openAPIV3Schema");
        field::require(&version["schema"]["openAPIV3Schema"], schema, "schemas are required", faults);
        validate_warning(version, &path, faults);
    }
    // The first version's name has a field of its own upstream.
    let first = text(&versions[0], "name");
    if let Some(why) = name::label_1035_fault(first).filter(|_| !first.is_empty()) {
        faults.push(Cause::invalid("spec.version", &versions[0]["name"], why));
    }
    // What all versions share, upstream names once, as if it stood beside them.
    type Check = fn(&Value, &Value, &str, &mut Faults);
    let parts: [(&str, &str, Check); 4] = [
        ("schema", "spec.validation", |schema, version, path, faults| {
            let status = !version["subresources"]["status"].is_null();
            validate_schema(&schema["openAPIV3Schema"], &format!("{path}.openAPIV3Schema"), status, faults);
        }),
        ("subresources", "spec.subresources", |part, _, path, faults| {
            validate_subresources(part, path, faults)
        }),
        ("additionalPrinterColumns", "spec.additionalPrinterColumns", |part, _, path, faults| {
            validate_columns(part, path, faults);
        }),
        ("selectableFields", "spec.selectableFields", validate_selectable),
    ];
    for (part, shared, check) in parts {
        let Some(first) = items(versions).first() else { continue };
        if items(versions).iter().all(|version| version[part] == first[part]) {
            // Fields that all versions share are looked for in a schema that they share too.
            if part == "selectableFields"
                && !items(&first[part]).is_empty()
                && items(versions).iter().any(|version| version["schema"] != first["schema"])
            {
                let why = "may only be selected in a schema that all versions share";
                faults.push(Cause::invalid(shared, &first[part], why));
                continue;
            }
            check(&first[part], first, shared, faults);
            continue;
        }
        let shares_schema = items(versions).iter().all(|version| version["schema"] == first["schema"]);
        for (path, version) in paths(versions, "spec.versions") {
            let path = format!("{path}.{part}");
            // And those of one version in a schema of its own.
            if part == "selectableFields" && shares_schema && !items(&version[part]).is_empty() {
                let why = "may only be selected in a schema of the version";
                faults.push(Cause::invalid(path, &version[part], why));
            } else {
                check(&version[part], version, &path, faults);
            }
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
    if warning.is_empty() {
        faults.push(Cause::invalid(&path, &value, "must not be empty"));
    }
    if warning.len() > LONGEST_WARNING {
        let why = format!("must be at most {LONGEST_WARNING} bytes long");
        faults.push(Cause::invalid(&path, &value, &why));
    }
    if warning.chars().any(char::is_control) {
        faults.push(Cause::invalid(path, &value, "must only contain printable characters"));
    }
}

fn validate_subresources(subresources: &Value, path: &str, faults: &mut Faults) {
    let scale = &subresources["scale"];
    if scale.is_null() {
        return;
    }
    for (field, root) in
        [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status"), ("labelSelectorPath", "")]
    {
        let pointer = text(scale, field);
        let path = format!("{path}.scale.{field}");
        if pointer.is_empty() {
            if !root.is_empty() {
                faults.push(Cause::required(path, ""));
            }
            continue;
        }
        let below = |root: &str| pointer.strip_prefix(root).is_some_and(|rest| rest.starts_with('.'));
        let fits = if root.is_empty() { below(".spec") || below(".status") } else { below(root) };
        if !fits {
            let why = match root {
                "" => "should be a json path under either .status or .spec".to_owned(),
                root => format!("should be a json path under {root}"),
            };
            faults.push(Cause::invalid(path, &scale[field], &why));
        } else if !is_simple_path(pointer) {
            let why = "must be a simple json path in dot notation";
            faults.push(Cause::invalid(path, &scale[field], why));
        }
    }
}

/// `.a.b.c`, without lists.
fn is_simple_path(path: &str) -> bool {
    path.strip_prefix('.').is_some_and(|path| {
        path.split('.').all(|part| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        })
    })
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
            let why = "is not a valid JSON path: it must begin with a dot";
            faults.push(Cause::invalid(pointer, &column["jsonPath"], why));
        }
    }
}

fn validate_selectable(fields: &Value, version: &Value, path: &str, faults: &mut Faults) {
    let count = items(fields).len();
    if count > MOST_SELECTABLE {
        faults.push(Cause::too_many(path, count, MOST_SELECTABLE));
    }
    field::unique_by(fields, "jsonPath", path, faults);
    for (path, selectable) in paths(fields, path) {
        let path = format!("{path}.jsonPath");
        let value = &selectable["jsonPath"];
        if !field::require(value, &path, "", faults) {
            continue;
        }
        let pointer = text(selectable, "jsonPath");
        if !is_simple_path(pointer) {
            faults.push(Cause::invalid(path, value, "must be a simple json path in dot notation"));
        } else if pointer == ".metadata" || pointer.starts_with(".metadata.") {
            let why = "must not point to fields in metadata";
            faults.push(Cause::invalid(path, value, why));
        } else if !selects_scalar(&version["schema"]["openAPIV3Schema"], pointer) {
            let why = "must point to a field of type string, boolean or integer in the schema";
            faults.push(Cause::invalid(path, value, why));
        }
    }
}

fn selects_scalar(schema: &Value, path: &str) -> bool {
    let found = path.split('.').skip(1).fold(schema, |schema, part| &schema["properties"][part]);
    matches!(text(found, "type"), "string" | "boolean" | "integer")
}
