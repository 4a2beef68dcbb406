//! What tables say of volumes and of claims to them.

use machinery::Object;
use machinery::rules::text;
use serde_json::Value;

/// Where the class of a volume was named before it had a field.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// Access modes and their abbreviations, in the order in which they are shown.
const MODES: [(&str, &str); 4] = [
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];

/// The modes of access that a schema doesn't list.
pub(super) const ACCESS_MODES: [&str; 4] =
    ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// `RWO,ROX`
pub(super) fn access_modes(modes: Option<&Value>) -> String {
    let given = modes.and_then(Value::as_array);
    let known = MODES.iter().filter(|(mode, _)| given.into_iter().flatten().any(|given| given == mode));
    known.map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// The class of a volume or a claim.
pub(super) fn storage_class(object: &Object) -> String {
    let annotation = object.meta("annotations").and_then(|all| all[CLASS_ANNOTATION].as_str());
    annotation.unwrap_or_else(|| text(object, "/spec/storageClassName")).to_owned()
}

/// What stands at a JSON pointer, or that nothing does.
pub(super) fn or_unset(object: &Object, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("<unset>").to_owned()
}

/// The phase, or that the object is going.
pub(super) fn phase(object: &Object) -> String {
    match object.deletion_timestamp() {
        Some(_) => "Terminating".to_owned(),
        None => text(object, "/status/phase").to_owned(),
    }
}
