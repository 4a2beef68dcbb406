//! Faults of volumes, and of where containers mount them: `ValidateVolumes` and `ValidateVolumeMounts` upstream.

use std::collections::HashSet;

use machinery::metadata::validate_template_metadata;
use machinery::{Cause, Faults, name};
use serde_json::{Value, json};

use super::files::{validate_descending, validate_files};
use crate::kinds::field::{paths, text};
use crate::kinds::volume_source::{self, Of};

/// The names of the volumes that have no fault: upstream knows no others.
pub(super) type Volumes<'a> = HashSet<&'a str>;

const PROPAGATIONS: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
const READ_ONLY: [&str; 3] = ["Disabled", "Enabled", "IfPossible"];

/// Where volumes come from, in the order in which upstream looks at them.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Faults of the volumes; the names of those that have none.
pub(super) fn validate_volumes<'a>(volumes: &'a Value, path: &str, faults: &mut Faults) -> Volumes<'a> {
    let of = if path == "spec.volumes" { Of::Pod } else { Of::Template };
    let mut names = HashSet::new();
    for (path, volume) in paths(volumes, path) {
        let mut own = Faults::default();
        validate_source(volume, &path, of, &mut own);
        let (name, field) = (text(volume, "name"), format!("{path}.name"));
        if name.is_empty() {
            own.push(Cause::required(&field, ""));
        } else if let Some(why) = name::label_fault(name) {
            own.push(Cause::invalid(&field, &json!(name), why));
        }
        if names.contains(name) {
            own.push(Cause::duplicate(field, &json!(name)));
        }
        if own.is_empty() {
            names.insert(name);
        }
        faults.append(own);
    }
    names
}

fn validate_source(volume: &Value, path: &str, of: Of, faults: &mut Faults) {
    let mut first = true;
    for source in SOURCES.into_iter().filter(|source| volume[*source].is_object()) {
        if first {
            volume_source::validate(source, &volume[source], path, of, faults);
            let size = &volume[source]["sizeLimit"];
            if source == "emptyDir" && size.as_str().is_some_and(|size| size.starts_with('-')) {
                let why = "must be a valid resource quantity";
                faults.push(Cause::forbidden(format!("{path}.emptyDir.sizeLimit"), why));
            }
            validate_files(source, &volume[source], path, faults);
            if source == "ephemeral" {
                validate_claim_template(&volume[source]["volumeClaimTemplate"], path, faults);
            }
        } else {
            let field = format!("{path}.{}", volume_source::name_of_more(source));
            faults.push(Cause::forbidden(field, "may not specify more than 1 volume type"));
        }
        first = false;
    }
    if first {
        faults.push(Cause::required(path, "must specify a volume type"));
    }
}

/// The template of a claim that lives as long as its pod.
fn validate_claim_template(template: &Value, path: &str, faults: &mut Faults) {
    let path = format!("{path}.ephemeral.volumeClaimTemplate");
    if template.is_null() {
        return faults.push(Cause::required(path, ""));
    }
    validate_template_metadata(&template["metadata"], &format!("{path}.metadata"), faults);
    crate::kinds::validate_claim_spec(&template["spec"], &format!("{path}.spec"), faults);
}

pub(super) fn validate_mounts(container: &Value, volumes: &Volumes<'_>, path: &str, faults: &mut Faults) {
    let mut places: HashSet<&str> = HashSet::new();
    let list = format!("{path}.volumeMounts");
    for (path, mount) in paths(&container["volumeMounts"], &list) {
        let name = text(mount, "name");
        if name.is_empty() {
            faults.push(Cause::required(format!("{path}.name"), ""));
        }
        if !volumes.contains(name) {
            faults.push(Cause::not_found(format!("{path}.name"), &json!(name)));
        }
        let at = text(mount, "mountPath");
        if at.is_empty() {
            faults.push(Cause::required(format!("{path}.mountPath"), ""));
        }
        if !places.insert(at) {
            faults.push(Cause::invalid(format!("{path}.mountPath"), &mount["mountPath"], "must be unique"));
        }
        let given = |field: &str| !text(mount, field).is_empty();
        if given("subPath") && given("subPathExpr") {
            let why = "subPathExpr and subPath are mutually exclusive";
            faults.push(Cause::invalid(format!("{path}.subPathExpr"), &mount["subPathExpr"], why));
        }
        // Upstream names these by the list alone.
        for field in ["subPath", "subPathExpr"] {
            validate_descending(text(mount, field), &format!("{list}.{field}"), faults);
        }
        validate_kind_of_mount(container, mount, &list, faults);
    }
    let list = format!("{path}.volumeDevices");
    let mut devices: HashSet<&str> = HashSet::new();
    for (path, device) in paths(&container["volumeDevices"], &list) {
        let (name, at) = (text(device, "name"), text(device, "devicePath"));
        if name.is_empty() {
            faults.push(Cause::required(format!("{path}.name"), ""));
        }
        if !volumes.contains(name) {
            faults.push(Cause::not_found(format!("{path}.name"), &json!(name)));
        }
        let field = format!("{path}.devicePath");
        if at.is_empty() {
            faults.push(Cause::required(&field, ""));
        } else if at.split('/').any(|part| part == "..") {
            faults.push(Cause::invalid(&field, &json!(at), "must not contain '..'"));
        }
        if !devices.insert(at) || places.contains(at) && !at.is_empty() {
            faults.push(Cause::invalid(field, &json!(at), "must be unique"));
        }
    }
}

fn validate_kind_of_mount(container: &Value, mount: &Value, list: &str, faults: &mut Faults) {
    let propagation = &mount["mountPropagation"];
    let field = format!("{list}.mountPropagation");
    match propagation.as_str() {
        None | Some("None" | "HostToContainer") => {}
        Some("Bidirectional") => {
            if container["securityContext"]["privileged"] != true {
                let why = "Bidirectional mount propagation is available only to privileged containers";
                faults.push(Cause::forbidden(field, why));
            }
        }
        Some(_) => faults.push(Cause::not_supported(field, propagation, &PROPAGATIONS)),
    }
    let field = format!("{list}.recursiveReadOnly");
    match mount["recursiveReadOnly"].as_str() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount["readOnly"] != true {
                faults.push(Cause::forbidden(&field, "may only be specified when readOnly is true"));
            }
            if !matches!(propagation.as_str(), None | Some("None")) {
                let why = "may only be specified when mountPropagation is None or not specified";
                faults.push(Cause::forbidden(field, why));
            }
        }
        Some(_) => faults.push(Cause::not_supported(field, &mount["recursiveReadOnly"], &READ_ONLY)),
    }
}
