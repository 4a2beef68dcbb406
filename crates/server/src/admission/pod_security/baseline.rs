//! The level baseline: nothing that leads out of a pod in a known way.

use serde_json::Value;

use super::check::{Subject, containers, name, plural, quoted, setters, sorted};
use super::policy::Version;

pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "",
];

/// Sysctls of a pod's own, with the version that let them in.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

const SELINUX_TYPES: [&str; 4] = ["", "container_t", "container_init_t", "container_kvm_t"];

/// Adds what is forbidden, in the order of the checks' names; `overridden` leaves out those that the level
/// restricted has stricter ones for.
pub(super) fn check(subject: &Subject<'_>, version: Version, overridden: bool, found: &mut Vec<String>) {
    let mut add = |fault: Option<String>| found.extend(fault);
    add(app_armor(subject));
    if !overridden || !version.is_since(22) {
        add(capabilities(subject));
    }
    add(host_namespaces(subject));
    if !overridden {
        add(host_paths(subject));
    }
    add(host_ports(subject));
    if version.is_since(34) {
        add(hosts_of_probes(subject));
    }
    add(privileged(subject));
    let relaxed = version.is_since(35) && subject.has_own_users();
    if !(relaxed || (overridden && version.is_since(35))) {
        add(proc_mount(subject));
    }
    add(selinux(subject, version));
    if !version.is_since(19) {
        add(seccomp_annotations(subject));
    } else if !overridden {
        add(seccomp(subject));
    }
    add(sysctls(subject, version));
    add(host_process(subject));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn app_armor(subject: &Subject<'_>) -> Option<String> {
    let profile = |context: &Value| -> Option<String> {
        let profile = &context["appArmorProfile"];
        let kind = text(&profile["type"]);
        (profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
    };
    let of_pod = profile(subject.context());
    let bad = subject.containers_that(|container| profile(&container["securityContext"]).is_some());
    let own = subject.containers().filter_map(|container| profile(&container["securityContext"]));
    let mut values: Vec<String> = of_pod.iter().cloned().chain(own).collect();
    values.sort_unstable();
    values.dedup();
    let annotations: Vec<String> = subject
        .annotations(APP_ARMOR)
        .into_iter()
        .filter(|(_, value)| {
            !(value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/"))
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who: Vec<String> = of_pod.iter().map(|_| "pod".to_owned()).collect();
    if !bad.is_empty() {
        who.push(containers(&bad));
    }
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", &annotations).to_owned());
        values.extend(annotations);
    }
    (!who.is_empty()).then(|| {
        let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", &values);
        format!("{reason} ({} must not set AppArmor profile type to {})", who.join(" and "), quoted(&values))
    })
}

/// The capabilities that a container adds beyond those that every container has.
fn capabilities(subject: &Subject<'_>) -> Option<String> {
    added_capabilities(subject, &CAPABILITIES).map(|detail| format!("non-default capabilities ({detail})"))
}

pub(super) fn added_capabilities(subject: &Subject<'_>, allowed: &[&str]) -> Option<String> {
    let added = |container: &Value| -> Vec<String> {
        let list = container["securityContext"]["capabilities"]["add"].as_array().into_iter().flatten();
        list.map(|capability| text(capability).to_owned())
            .filter(|name| !allowed.contains(&name.as_str()))
            .collect()
    };
    let bad = subject.containers_that(|container| !added(container).is_empty());
    let all: Vec<String> = subject.containers().flat_map(added).collect();
    let values = sorted(all.iter().map(String::as_str));
    (!bad.is_empty()).then(|| {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&bad),
            quoted(&values)
        )
    })
}

fn host_namespaces(subject: &Subject<'_>) -> Option<String> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let shared: Vec<String> =
        shared.filter(|field| subject.spec()[*field] == true).map(|field| format!("{field}=true")).collect();
    (!shared.is_empty()).then(|| format!("host namespaces ({})", shared.join(", ")))
}

fn host_paths(subject: &Subject<'_>) -> Option<String> {
    let volumes = subject.list("volumes").iter().filter(|volume| volume["hostPath"].is_object());
    let names: Vec<&str> = volumes.map(name).collect();
    (!names.is_empty())
        .then(|| format!("hostPath volumes ({} {})", plural("volume", "volumes", &names), quoted(&names)))
}

fn host_ports(subject: &Subject<'_>) -> Option<String> {
    let ports = |container: &Value| -> Vec<String> {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports
            .filter_map(|port| port["hostPort"].as_u64().filter(|port| *port != 0))
            .map(|p| p.to_string())
            .collect()
    };
    let bad = subject.containers_that(|container| !ports(container).is_empty());
    let all: Vec<String> = subject.containers().flat_map(ports).collect();
    let all = sorted(all.iter().map(String::as_str));
    (!bad.is_empty()).then(|| {
        let (uses, what) = (plural("uses", "use", &bad), plural("hostPort", "hostPorts", &all));
        format!("hostPort ({} {uses} {what} {})", containers(&bad), all.join(", "))
    })
}

/// Probes and hooks that ask somebody else than the pod.
fn hosts_of_probes(subject: &Subject<'_>) -> Option<String> {
    let hosts = |container: &Value| -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
        let handlers = probes.into_iter().chain(hooks);
        let hosts = handlers.flat_map(|handler| [&handler["httpGet"]["host"], &handler["tcpSocket"]["host"]]);
        hosts.map(text).filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let bad = sorted(subject.containers_that(|container| !hosts(container).is_empty()));
    let all: Vec<String> = subject.containers().flat_map(hosts).collect();
    let all = sorted(all.iter().map(String::as_str));
    (!bad.is_empty()).then(|| {
        let uses = plural("uses", "use", &bad);
        let what = plural("probe or lifecycle host", "probe or lifecycle hosts", &all);
        format!("probe or lifecycle host ({} {uses} {what} {})", containers(&bad), quoted(&all))
    })
}

fn privileged(subject: &Subject<'_>) -> Option<String> {
    let bad = subject.containers_that(|container| container["securityContext"]["privileged"] == true);
    (!bad.is_empty())
        .then(|| format!("privileged ({} must not set securityContext.privileged=true)", containers(&bad)))
}

/// What of the host's `/proc` a container sees unmasked.
pub(super) fn proc_mount(subject: &Subject<'_>) -> Option<String> {
    let mount = |container: &Value| -> Option<String> {
        let mount = text(&container["securityContext"]["procMount"]);
        (!matches!(mount, "" | "Default")).then(|| mount.to_owned())
    };
    let bad = subject.containers_that(|container| mount(container).is_some());
    let all: Vec<String> = subject.containers().filter_map(mount).collect();
    let all = sorted(all.iter().map(String::as_str));
    (!bad.is_empty()).then(|| {
        format!("procMount ({} must not set securityContext.procMount to {})", containers(&bad), quoted(&all))
    })
}

fn selinux(subject: &Subject<'_>, version: Version) -> Option<String> {
    let type_is_bad = |options: &Value| {
        let kind = text(&options["type"]);
        !(SELINUX_TYPES.contains(&kind) || kind == "container_engine_t" && version.is_since(31))
    };
    let given = |options: &Value, field: &str| !text(&options[field]).is_empty();
    let is_bad = |options: &Value| type_is_bad(options) || given(options, "user") || given(options, "role");
    let of_pod = &subject.context()["seLinuxOptions"];
    let options = |container: &Value| container["securityContext"]["seLinuxOptions"].clone();
    let bad = subject.containers_that(|container| is_bad(&options(container)));
    let who = setters(is_bad(of_pod), &bad)?;
    let all: Vec<Value> = std::iter::once(of_pod.clone()).chain(subject.containers().map(options)).collect();
    let types =
        sorted(all.iter().filter(|options| type_is_bad(options)).map(|options| text(&options["type"])));
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", &types), quoted(&types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|options| given(options, field)) {
            what.push(format!("{field} may not be set"));
        }
    }
    let what = what.join("; ");
    Some(format!("seLinuxOptions ({who} set forbidden securityContext.seLinuxOptions: {what})"))
}

/// The profiles of before 1.19.
fn seccomp_annotations(subject: &Subject<'_>) -> Option<String> {
    let mut found = subject.annotations(SECCOMP_CONTAINER);
    found.extend(subject.annotations(SECCOMP_POD).into_iter().filter(|(key, _)| *key == SECCOMP_POD));
    let is_bad = |value: &str| {
        !(matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/"))
    };
    let bad: Vec<String> = found
        .into_iter()
        .filter(|(_, value)| is_bad(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    (!bad.is_empty()).then(|| {
        let what = plural("annotation", "annotations", &bad);
        format!("seccompProfile (forbidden {what} {})", bad.join(", "))
    })
}

fn seccomp(subject: &Subject<'_>) -> Option<String> {
    bad_seccomp(subject).map(|detail| format!("seccompProfile ({detail})"))
}

/// The parts of a pod that ask for a seccomp profile that is none.
pub(super) fn bad_seccomp(subject: &Subject<'_>) -> Option<String> {
    let profile = |context: &Value| -> Option<String> {
        let profile = &context["seccompProfile"];
        let kind = text(&profile["type"]);
        (profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
    };
    let of_pod = profile(subject.context());
    let bad = subject.containers_that(|container| profile(&container["securityContext"]).is_some());
    let who = setters(of_pod.is_some(), &bad)?;
    let own = subject.containers().filter_map(|container| profile(&container["securityContext"]));
    let values: Vec<String> = of_pod.into_iter().chain(own).collect();
    let values = sorted(values.iter().map(String::as_str));
    Some(format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values)))
}

fn sysctls(subject: &Subject<'_>, version: Version) -> Option<String> {
    let list = subject.context()["sysctls"].as_array().into_iter().flatten();
    let allowed =
        |sysctl: &&str| SYSCTLS.iter().any(|(name, since)| name == sysctl && version.is_since(*since));
    let bad: Vec<&str> = list.map(name).filter(|sysctl| !allowed(sysctl)).collect();
    (!bad.is_empty()).then(|| format!("forbidden sysctls ({})", bad.join(", ")))
}

/// Processes of the host: Windows' own kind of them, and those of a runtime class that makes nothing else.
fn host_process(subject: &Subject<'_>) -> Option<String> {
    let set = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let bad = subject.containers_that(|container| set(&container["securityContext"]));
    let windows = setters(set(subject.context()), &bad);
    let windows =
        windows.map(|who| format!("{who} must not set securityContext.windowsOptions.hostProcess=true"));
    let class = subject.host_class().map(|class| {
        format!("pod must not set runtimeClassName={class:?}, which runs it as processes of the host")
    });
    let details: Vec<String> = windows.into_iter().chain(class).collect();
    (!details.is_empty()).then(|| format!("hostProcess ({})", details.join("; ")))
}
