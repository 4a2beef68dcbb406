//! Faults of where a volume comes from, of a pod's volume or a PersistentVolume: `validateVolumeSource` and
//! `ValidatePersistentVolumeSpec` upstream.

use machinery::name::{label_fault, subdomain_fault};
use machinery::{Cause, Faults};
use serde_json::{Value, json};

use super::field::{items, text};

/// Whose volume it is: a PersistentVolume says more about secrets, which needn't lie in a namespace that is known.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Of {
    Pod,
    /// Others may still say which image a template's volumes are of.
    Template,
    Persistent,
}

/// What sources must say.
const NEEDED: [(&str, &[&str]); 22] = [
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cephfs", &["monitors"]),
    ("cinder", &["volumeID"]),
    ("configMap", &["name"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("gitRepo", &["repository"]),
    ("glusterfs", &["endpoints", "path"]),
    ("hostPath", &["path"]),
    ("image", &["reference"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("local", &["path"]),
    ("nfs", &["server", "path"]),
    ("persistentVolumeClaim", &["claimName"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("rbd", &["monitors", "image"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("secret", &["secretName"]),
    ("vsphereVolume", &["volumePath"]),
];

const HOST_PATH_TYPES: [&str; 8] =
    ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

/// The name by which upstream's faults call a source where it isn't the only one.
pub(crate) fn name_of_more(source: &str) -> &str {
    match source {
        "cephfs" => "cephFS",
        "downwardAPI" => "downwarAPI",
        other => other,
    }
}

/// The faults of one source, which stands in the field `source` of what is at `path`.
pub(crate) fn validate(source: &str, value: &Value, path: &str, of: Of, faults: &mut Faults) {
    let named = if source == "gcePersistentDisk" { "persistentDisk" } else { source };
    let path = format!("{path}.{named}");
    let needed = NEEDED.iter().find(|(known, _)| *known == source).map_or(&[][..], |(_, needed)| needed);
    for field in needed.iter().filter(|_| source != "image" || of != Of::Template) {
        require(value, field, &path, faults);
    }
    match source {
        "awsElasticBlockStore" | "gcePersistentDisk" => {
            between(value, "partition", 255, &path, faults);
        }
        "azureDisk" => validate_azure_disk(value, &path, faults),
        "azureFile" if of == Of::Persistent && !value["secretNamespace"].is_null() => {
            require(value, "secretNamespace", &path, faults);
        }
        "cinder" => validate_secret(value, "secretRef", &path, of, faults),
        "csi" => validate_csi(value, &path, of, faults),
        "fc" => validate_fc(value, &path, faults),
        "flocker" => validate_flocker(value, &path, faults),
        "glusterfs" => {
            let namespace = &value["endpointsNamespace"];
            if let Some(why) = namespace.as_str().and_then(label_fault) {
                faults.push(Cause::invalid(format!("{path}.endpointsNamespace"), namespace, why));
            }
        }
        "hostPath" if !text(value, "path").is_empty() => {
            validate_no_way_up(value, &path, faults);
            if !HOST_PATH_TYPES.contains(&text(value, "type")) {
                faults.push(Cause::not_supported(format!("{path}.type"), &value["type"], &HOST_PATH_TYPES));
            }
        }
        "iscsi" => validate_iscsi(value, &path, faults),
        "local" => validate_no_way_up(value, &path, faults),
        "nfs" if !text(value, "path").starts_with('/') => {
            faults.push(Cause::invalid(format!("{path}.path"), &value["path"], "must be an absolute path"));
        }
        "quobyte" => validate_quobyte(value, &path, faults),
        "storageos" => validate_storage_os(value, &path, of, faults),
        _ => {}
    }
}

/// A field that must say something.
fn require(value: &Value, field: &str, path: &str, faults: &mut Faults) {
    let says_nothing = match &value[field] {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        other => other.is_null(),
    };
    if says_nothing {
        faults.push(Cause::required(format!("{path}.{field}"), ""));
    }
}

fn between(value: &Value, field: &str, most: i64, path: &str, faults: &mut Faults) {
    if value[field].as_i64().is_some_and(|number| !(0..=most).contains(&number)) {
        let why = format!("must be between 0 and {most}, inclusive");
        faults.push(Cause::invalid(format!("{path}.{field}"), &value[field], &why));
    }
}

fn validate_no_way_up(value: &Value, path: &str, faults: &mut Faults) {
    if text(value, "path").split('/').any(|part| part == "..") {
        faults.push(Cause::invalid(format!("{path}.path"), &value["path"], "must not contain '..'"));
    }
}

fn validate_azure_disk(disk: &Value, path: &str, faults: &mut Faults) {
    for (field, choices) in
        [("cachingMode", ["None", "ReadOnly", "ReadWrite"]), ("kind", ["Dedicated", "Managed", "Shared"])]
    {
        if disk[field].as_str().is_some_and(|text| !choices.contains(&text)) {
            faults.push(Cause::not_supported(format!("{path}.{field}"), &disk[field], &choices));
        }
    }
    let start = if text(disk, "kind") == "Managed" { "/subscriptions/" } else { "https://" };
    if !text(disk, "diskURI").starts_with(start) {
        let uri = json!(text(disk, "diskURI"));
        faults.push(Cause::not_supported(format!("{path}.diskURI"), &uri, &[start]));
    }
}

/// A secret that a source names: where it says one, it says all of it.
fn validate_secret(value: &Value, field: &str, path: &str, of: Of, faults: &mut Faults) {
    if value[field].is_object() {
        let path = format!("{path}.{field}");
        require(&value[field], "name", &path, faults);
        if of == Of::Persistent {
            require(&value[field], "namespace", &path, faults);
        }
    }
}

type NameFault = fn(&str) -> Option<&'static str>;

fn validate_csi(csi: &Value, path: &str, of: Of, faults: &mut Faults) {
    validate_driver(&csi["driver"], &format!("{path}.driver"), faults);
    let references: &[&str] = match of {
        Of::Pod | Of::Template => &["nodePublishSecretRef"],
        Of::Persistent => {
            require(csi, "volumeHandle", path, faults);
            &[
                "controllerPublishSecretRef",
                "controllerExpandSecretRef",
                "nodePublishSecretRef",
                "nodeExpandSecretRef",
            ]
        }
    };
    for field in references {
        validate_secret(csi, field, path, of, faults);
        // Of a pod's references there is no namespace.
        for (part, fault) in [("name", subdomain_fault as NameFault), ("namespace", label_fault)] {
            let value = &csi[*field][part];
            if let Some(why) = value.as_str().filter(|text| !text.is_empty()).and_then(fault) {
                faults.push(Cause::invalid(format!("{path}.{field}.{part}"), value, why));
            }
        }
    }
}

/// The name of a CSI driver.
pub(crate) fn validate_driver(driver: &Value, path: &str, faults: &mut Faults) {
    let name = driver.as_str().unwrap_or_default();
    if name.is_empty() {
        return faults.push(Cause::required(path, ""));
    }
    if name.len() > 63 {
        faults.push(Cause::too_long(path, 63));
    }
    if let Some(why) = subdomain_fault(&name.to_lowercase()) {
        faults.push(Cause::invalid(path, driver, why));
    }
}

fn validate_fc(fc: &Value, path: &str, faults: &mut Faults) {
    let field = format!("{path}.targetWWNs");
    match (items(&fc["targetWWNs"]).is_empty(), items(&fc["wwids"]).is_empty()) {
        (true, true) => {
            let why = "must specify either targetWWNs or wwids, but not both";
            faults.push(Cause::required(field, why));
        }
        (false, false) => {
            let why = "targetWWNs and wwids can not be specified simultaneously";
            faults.push(Cause::invalid(field, &fc["targetWWNs"], why));
        }
        (false, true) if fc["lun"].is_null() => {
            faults.push(Cause::required(format!("{path}.lun"), "lun is required if targetWWNs is specified"));
        }
        (false, true) => between(fc, "lun", 255, path, faults),
        (true, false) => {}
    }
}

fn validate_flocker(flocker: &Value, path: &str, faults: &mut Faults) {
    match (text(flocker, "datasetName"), text(flocker, "datasetUUID")) {
        ("", "") => faults.push(Cause::required(path, "one of datasetName and datasetUUID is required")),
        ("", _) => {}
        (_, other) if !other.is_empty() => {
            let why = "datasetName and datasetUUID can not be specified simultaneously";
            faults.push(Cause::invalid(path, flocker, why));
        }
        (name, _) if name.contains('/') => {
            let field = format!("{path}.datasetName");
            faults.push(Cause::invalid(field, &flocker["datasetName"], "must not contain '/'"));
        }
        _ => {}
    }
}

fn is_iscsi_name(name: &str) -> bool {
    let (kind, rest) = name.split_once('.').unwrap_or((name, ""));
    let hexadecimal = |text: &str, lengths: &[usize]| {
        lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    match kind {
        "iqn" => {
            let (date, authority) = rest.split_once('.').unwrap_or((rest, ""));
            let numbers = date.split_once('-').is_some_and(|(year, month)| {
                year.len() == 4
                    && month.len() == 2
                    && (year.to_owned() + month).bytes().all(|b| b.is_ascii_digit())
            });
            numbers && authority.chars().next().is_some_and(|first| first.is_ascii_alphanumeric())
        }
        "eui" => hexadecimal(rest, &[16]),
        "naa" => hexadecimal(rest, &[16, 32]),
        _ => false,
    }
}

fn validate_iscsi(iscsi: &Value, path: &str, faults: &mut Faults) {
    let why = "must be a name of the form iqn, eui or naa";
    if !text(iscsi, "iqn").is_empty() && !is_iscsi_name(text(iscsi, "iqn")) {
        faults.push(Cause::invalid(format!("{path}.iqn"), &iscsi["iqn"], why));
    }
    between(iscsi, "lun", 255, path, faults);
    let authenticates = iscsi["chapAuthDiscovery"] == true || iscsi["chapAuthSession"] == true;
    if authenticates && !iscsi["secretRef"].is_object() {
        faults.push(Cause::required(format!("{path}.secretRef"), ""));
    }
    if iscsi["secretRef"].is_object() {
        require(&iscsi["secretRef"], "name", &format!("{path}.secretRef"), faults);
    }
    // So upstream spells it.
    if iscsi["initiatorName"].as_str().is_some_and(|name| !is_iscsi_name(name)) {
        faults.push(Cause::invalid(format!("{path}.initiatorname"), &iscsi["initiatorName"], why));
    }
}

fn validate_quobyte(quobyte: &Value, path: &str, faults: &mut Faults) {
    let registry = text(quobyte, "registry");
    let is_pair = |pair: &str| matches!(pair.rsplit_once(':'), Some((host, port)) if !host.is_empty() && !port.is_empty());
    if registry.is_empty() {
        require(quobyte, "registry", path, faults);
    } else if text(quobyte, "tenant").len() >= 65 {
        faults.push(Cause::invalid(
            format!("{path}.tenant"),
            &quobyte["tenant"],
            "must be a UUID of at most 64 characters",
        ));
    } else if !registry.split(',').all(is_pair) {
        let why = "must be a host:port pair or multiple pairs separated by commas";
        faults.push(Cause::invalid(format!("{path}.registry"), &quobyte["registry"], why));
    }
    require(quobyte, "volume", path, faults);
}

fn validate_storage_os(storage: &Value, path: &str, of: Of, faults: &mut Faults) {
    require(storage, "volumeName", path, faults);
    for field in ["volumeName", "volumeNamespace"] {
        let value = &storage[field];
        if let Some(why) = value.as_str().filter(|text| !text.is_empty()).and_then(label_fault) {
            faults.push(Cause::invalid(format!("{path}.{field}"), value, why));
        }
    }
    validate_secret(storage, "secretRef", path, of, faults);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(source: &str, value: Value, of: Of) -> Vec<String> {
        let mut faults = Faults::default();
        validate(source, &value, "v", of, &mut faults);
        faults.into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn sources_say_what_they_must() {
        let cases: [(&str, Value, &[&str]); 8] = [
            (
                "gcePersistentDisk",
                json!({"partition": 256}),
                &["v.persistentDisk.pdName", "v.persistentDisk.partition"],
            ),
            ("nfs", json!({"server": "s", "path": "p"}), &["v.nfs.path"]),
            ("flocker", json!({}), &["v.flocker"]),
            ("fc", json!({"targetWWNs": ["a"]}), &["v.fc.lun"]),
            ("azureDisk", json!({"diskName": "d", "diskURI": "x"}), &["v.azureDisk.diskURI"]),
            ("quobyte", json!({"registry": "a:1,b", "volume": "v"}), &["v.quobyte.registry"]),
            ("hostPath", json!({"path": "a/../b", "type": "Pipe"}), &["v.hostPath.path", "v.hostPath.type"]),
            ("emptyDir", json!({}), &[]),
        ];
        for (source, value, fields) in cases {
            assert_eq!(told(source, value, Of::Pod), fields, "{source}");
        }
    }

    #[test]
    fn secrets_of_persistent_volumes_name_their_namespace() {
        let csi =
            json!({"driver": "d.example.com", "volumeHandle": "h", "nodePublishSecretRef": {"name": "s"}});
        assert_eq!(told("csi", csi.clone(), Of::Pod), [""; 0]);
        assert_eq!(told("csi", csi, Of::Persistent), ["v.csi.nodePublishSecretRef.namespace"]);
    }

    #[test]
    fn names_of_targets_are_of_three_forms() {
        for good in ["iqn.2001-04.com.example:disk", "eui.0123456789abcdef", "naa.0123456789ABCDEF"] {
            assert!(is_iscsi_name(good), "{good}");
        }
        for bad in ["", "iqn", "iqn.2001.com", "iqn.2001-04", "eui.1", "naa.xyz", "disk"] {
            assert!(!is_iscsi_name(bad), "{bad}");
        }
    }
}
