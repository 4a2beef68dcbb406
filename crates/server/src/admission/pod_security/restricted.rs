//! The level restricted: what a pod needs beyond baseline to be hardened.

use serde_json::Value;

use super::baseline::{added_capabilities, bad_seccomp, proc_mount};
use super::check::{Subject, containers, name, plural, quoted, setters, sorted};
use super::policy::Version;

/// Volumes whose content is the cluster's.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Adds what is forbidden beyond baseline, in the order of the checks' names.
pub(super) fn check(subject: &Subject<'_>, version: Version, found: &mut Vec<String>) {
    let mut add = |fault: Option<String>| found.extend(fault);
    let windows = version.is_since(25) && subject.is_windows();
    let own_users = version.is_since(35) && subject.has_own_users();
    if version.is_since(8) && !windows {
        add(privilege_escalation(subject));
    }
    if version.is_since(22) && !windows {
        add(capabilities(subject));
    }
    if version.is_since(35) {
        add(proc_mount(subject));
    }
    add(volumes(subject));
    if !own_users {
        add(not_root(subject));
    }
    if version.is_since(23) && !own_users {
        add(user(subject));
    }
    if version.is_since(19) && !windows {
        add(seccomp(subject));
    }
}

fn privilege_escalation(subject: &Subject<'_>) -> Option<String> {
    let bad = subject.containers_that(|c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    (!bad.is_empty()).then(|| {
        let who = containers(&bad);
        format!(
            "allowPrivilegeEscalation != false ({who} must set securityContext.allowPrivilegeEscalation=false)"
        )
    })
}

fn capabilities(subject: &Subject<'_>) -> Option<String> {
    let keeps = |container: &Value| {
        let dropped = container["securityContext"]["capabilities"]["drop"].as_array();
        !dropped.is_some_and(|list| list.iter().any(|capability| capability == "ALL"))
    };
    let bad = subject.containers_that(keeps);
    let mut details = Vec::new();
    if !bad.is_empty() {
        let who = containers(&bad);
        details.push(format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    details.extend(added_capabilities(subject, &["NET_BIND_SERVICE"]));
    (!details.is_empty()).then(|| format!("unrestricted capabilities ({})", details.join("; ")))
}

fn volumes(subject: &Subject<'_>) -> Option<String> {
    let kind = |volume: &'_ Value| -> String {
        let fields = volume.as_object().into_iter().flatten();
        let mut kinds = fields.filter(|(field, value)| *field != "name" && !value.is_null());
        kinds.next().map_or_else(|| "unknown".to_owned(), |(field, _)| field.clone())
    };
    let is_bad = |volume: &&Value| !VOLUMES.contains(&kind(volume).as_str());
    let bad: Vec<&Value> = subject.list("volumes").iter().filter(is_bad).collect();
    let names: Vec<&str> = bad.iter().map(|volume| name(volume)).collect();
    let kinds: Vec<String> = bad.iter().map(|volume| kind(volume)).collect();
    let kinds = sorted(kinds.iter().map(String::as_str));
    (!bad.is_empty()).then(|| {
        format!(
            "restricted volume types ({} {} {} {} {})",
            plural("volume", "volumes", &names),
            quoted(&names),
            plural("uses", "use", &names),
            plural("restricted volume type", "restricted volume types", &kinds),
            quoted(&kinds)
        )
    })
}

fn not_root(subject: &Subject<'_>) -> Option<String> {
    const REASON: &str = "runAsNonRoot != true";
    let field = |context: &Value| context["runAsNonRoot"].as_bool();
    let of_pod = field(subject.context());
    let explicit = subject.containers_that(|container| field(&container["securityContext"]) == Some(false));
    if let Some(who) = setters(of_pod == Some(false), &explicit) {
        return Some(format!("{REASON} ({who} must not set securityContext.runAsNonRoot=false)"));
    }
    let silent = subject.containers_that(|container| field(&container["securityContext"]).is_none());
    (of_pod.is_none() && !silent.is_empty()).then(|| {
        let who = containers(&silent);
        format!("{REASON} (pod or {who} must set securityContext.runAsNonRoot=true)")
    })
}

fn user(subject: &Subject<'_>) -> Option<String> {
    let is_root = |context: &Value| context["runAsUser"] == 0;
    let bad = subject.containers_that(|container| is_root(&container["securityContext"]));
    let who = setters(is_root(subject.context()), &bad)?;
    Some(format!("runAsUser=0 ({who} must not set runAsUser=0)"))
}

fn seccomp(subject: &Subject<'_>) -> Option<String> {
    if let Some(detail) = bad_seccomp(subject) {
        return Some(format!("seccompProfile ({detail})"));
    }
    let says = |context: &Value| context["seccompProfile"].is_object();
    let silent = subject.containers_that(|container| !says(&container["securityContext"]));
    (!says(subject.context()) && !silent.is_empty()).then(|| {
        let who = containers(&silent);
        format!(
            "seccompProfile (pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\")"
        )
    })
}
