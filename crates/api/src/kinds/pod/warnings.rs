//! What the writer of a pod or of its template should hear (upstream: `pkg/api/pod/warnings.go`).

use std::collections::{BTreeMap, HashSet};

use machinery::Quantity;
use serde_json::Value;

use crate::kinds::field::{items, paths, text};
use crate::kinds::persistent_volume_claim::claim_warnings;

/// Sources of volumes that upstream has given up, and since when.
const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
/// Annotations that say nothing any more.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
/// Labels of nodes that have other names by now.
const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];
/// The most warnings that are looked for, and the most ports of one number that another is compared with: more than an answer's
/// headers (4 KiB) hold, and what it costs to look must not grow as the square.
const MOST: usize = 100;
const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Warnings about a pod, or its template at `path` (empty for a pod): the first hundred.
pub(crate) fn pod_warnings(metadata: &Value, spec: &Value, path: &str) -> Vec<String> {
    let annotations = &metadata["annotations"];
    let dot = if path.is_empty() { "" } else { "." };
    let mut found = Found { said: Vec::new(), path: format!("{path}{dot}") };
    found.placement(spec);
    for (key, why) in OLD_ANNOTATIONS {
        if annotations.get(key).is_some() {
            found.say(&format!("metadata.annotations[{key}]"), why);
        }
    }
    found.volumes(spec);
    found.repeated(spec, "hostAliases", "ip");
    found.repeated(spec, "imagePullSecrets", "name");
    for (place, secret) in paths(&spec["imagePullSecrets"], "spec.imagePullSecrets") {
        if text(secret, "name").is_empty() {
            found.say(&format!("{place}.name"), "invalid empty name \"\"");
        }
    }
    found.fractions(&spec["overhead"], "spec.overhead", &["memory", "ephemeral-storage"]);
    if spec["securityContext"]["seccompProfile"].is_null() && annotations.get(SECCOMP_OF_POD).is_some() {
        let why = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
        found.say(&format!("metadata.annotations[{SECCOMP_OF_POD}]"), why);
    }
    let containers = || {
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(|list| paths(&spec[list], &format!("spec.{list}")).collect::<Vec<_>>())
    };
    for (place, container) in containers() {
        for kind in ["limits", "requests"] {
            let amounts = &container["resources"][kind];
            found.fractions(amounts, &format!("{place}.resources.{kind}"), &["memory", "ephemeral-storage"]);
        }
        found.environment(&container["env"], &format!("{place}.env"));
    }
    found.ports(containers());
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        found.say("spec.terminationGracePeriodSeconds", why);
    }
    found.affinity(&spec["affinity"]);
    found.said
}

struct Found {
    said: Vec<String>,
    /// What stands before each place.
    path: String,
}

impl Found {
    fn say(&mut self, place: &str, why: &str) {
        if self.said.len() < MOST {
            self.said.push(format!("{}{place}: {why}", self.path));
        }
    }

    fn placement(&mut self, spec: &Value) {
        let why_of = |label: &str| OLD_LABELS.iter().find(|(old, _)| *old == label).map(|(_, why)| *why);
        for key in spec["nodeSelector"].as_object().into_iter().flat_map(|map| map.keys()) {
            if let Some(why) = why_of(key) {
                self.say(&format!("spec.nodeSelector[{key}]"), why);
            }
        }
        for (place, constraint) in paths(&spec["topologySpreadConstraints"], "spec.topologySpreadConstraints")
        {
            let key = text(constraint, "topologyKey");
            if let Some(why) = why_of(key) {
                self.say(&format!("{place}.topologyKey"), &format!("{key} is {why}"));
            }
            if constraint["labelSelector"].is_null() {
                self.say(&format!("{place}.labelSelector"), NO_SELECTOR);
            }
        }
    }

    fn volumes(&mut self, spec: &Value) {
        for (place, volume) in paths(&spec["volumes"], "spec.volumes") {
            for (source, why) in OLD_VOLUMES {
                if !volume[source].is_null() {
                    // Upstream names one of them as in Go.
                    let source = if source == "storageos" { "storageOS" } else { source };
                    self.say(&format!("{place}.{source}"), why);
                }
            }
            let claim = &volume["ephemeral"]["volumeClaimTemplate"]["spec"];
            let place = format!("{}{place}.ephemeral.volumeClaimTemplate.spec", self.path);
            let left = MOST - self.said.len();
            self.said.extend(claim_warnings(claim, &place).into_iter().take(left));
        }
    }

    fn repeated(&mut self, spec: &Value, list: &str, field: &str) {
        let mut seen = HashSet::new();
        for (place, item) in paths(&spec[list], &format!("spec.{list}")) {
            let value = text(item, field);
            if !seen.insert(value) {
                self.say(&format!("{place}.{field}"), &format!("duplicate {field} {value:?}"));
            }
        }
    }

    /// Bytes that are no whole number.
    fn fractions(&mut self, amounts: &Value, place: &str, names: &[&str]) {
        for name in names {
            if let Some(why) = fraction(&amounts[*name]) {
                self.say(&format!("{place}[{name}]"), &why);
            }
        }
    }

    /// Variables that stand there again, unless the later one is made of the former.
    fn environment(&mut self, env: &Value, path: &str) {
        let mut seen = HashSet::new();
        for (place, variable) in paths(env, path) {
            let (name, value) = (text(variable, "name"), text(variable, "value"));
            let of_itself = format!("$({name})");
            let is_made_of_it = value.contains(&of_itself) && value != of_itself;
            let is_again = !seen.insert(name);
            if is_again && (!is_made_of_it || !variable["valueFrom"].is_null()) {
                let why =
                    format!("hides previous definition of {name:?}, which may be dropped when using apply");
                self.say(&place, &why);
            }
        }
    }

    fn ports<'a>(&mut self, containers: impl Iterator<Item = (String, &'a Value)>) {
        struct Known<'a> {
            place: String,
            number: i64,
            address: &'a str,
        }
        let mut all: BTreeMap<(i64, &str), Vec<Known<'_>>> = BTreeMap::new();
        for (place, container) in containers {
            for (place, port) in paths(&container["ports"], &format!("{place}.ports")) {
                let key = (port["containerPort"].as_i64().unwrap_or_default(), text(port, "protocol"));
                let others = all.entry(key).or_default();
                let (number, address) = (port["hostPort"].as_i64().unwrap_or_default(), text(port, "hostIP"));
                for other in others.iter() {
                    if self.said.len() >= MOST {
                        return;
                    }
                    let how = match (number == other.number, address == other.address) {
                        (true, true) => "duplicate",
                        _ if number == 0 || other.number == 0 => "overlapping",
                        (true, false) if address.is_empty() || other.address.is_empty() => {
                            "dangerously ambiguous"
                        }
                        _ => continue,
                    };
                    let why = format!("{how} port definition with {}{}", self.path, other.place);
                    self.say(&place, &why);
                }
                if others.len() < MOST {
                    others.push(Known { place, number, address });
                }
            }
        }
    }

    fn affinity(&mut self, affinity: &Value) {
        for kind in ["podAffinity", "podAntiAffinity"] {
            for (list, inner) in [
                ("requiredDuringSchedulingIgnoredDuringExecution", ""),
                ("preferredDuringSchedulingIgnoredDuringExecution", ".podAffinityTerm"),
            ] {
                let terms = &affinity[kind][list];
                for (index, term) in items(terms).iter().enumerate() {
                    let term = if inner.is_empty() { term } else { &term["podAffinityTerm"] };
                    if term["labelSelector"].is_null() {
                        let place = format!("spec.affinity.{kind}.{list}[{index}]{inner}.labelSelector");
                        self.say(&place, NO_SELECTOR);
                    }
                }
            }
        }
    }
}

/// What is odd about an amount of bytes that is no whole number.
pub(crate) fn fraction(amount: &Value) -> Option<String> {
    let given = amount.as_str()?;
    let quantity = Quantity::parse(given).ok().filter(|quantity| !quantity.is_whole())?;
    let shown = quantity.to_string();
    Some(format!("fractional byte value {shown:?} is invalid, must be an integer"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_odd_is_told() {
        let pod = json!({
            "metadata": {"annotations": {"scheduler.alpha.kubernetes.io/critical-pod": ""}},
            "spec": {
                "nodeSelector": {"beta.kubernetes.io/os": "linux"},
                "imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}],
                "volumes": [{"name": "v", "glusterfs": {"endpoints": "e", "path": "p"}}],
                "topologySpreadConstraints": [{"topologyKey": "k"}],
                "containers": [
                    {"name": "c", "resources": {"limits": {"memory": "100m"}},
                        "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}],
                        "ports": [{"containerPort": 1, "protocol": "TCP"}, {"containerPort": 1, "protocol": "UDP"}]},
                    {"name": "d", "ports": [{"containerPort": 1, "protocol": "TCP"},
                        {"containerPort": 1, "protocol": "UDP", "hostPort": 1}]},
                ],
            },
        });
        assert_eq!(
            pod_warnings(&pod["metadata"], &pod["spec"], "t"),
            [
                "t.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "t.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                "t.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \
                 \"priorityClassName\" field instead",
                "t.spec.volumes[0].glusterfs: deprecated in v1.25, non-functional in v1.26+",
                "t.spec.imagePullSecrets[1].name: duplicate name \"a\"",
                "t.spec.imagePullSecrets[2].name: invalid empty name \"\"",
                "t.spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "t.spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
                "t.spec.containers[1].ports[0]: duplicate port definition with t.spec.containers[0].ports[0]",
                "t.spec.containers[1].ports[1]: overlapping port definition with t.spec.containers[0].ports[1]",
            ]
        );
        assert_eq!(pod_warnings(&Value::Null, &json!({"containers": [{"name": "c"}]}), ""), [""; 0]);
    }

    #[test]
    fn of_much_that_is_odd_a_part_is_told() {
        // Each of these pairs would get a warning: more texts than fit into memory.
        let ports = vec![json!({"containerPort": 1, "protocol": "TCP"}); 20_000];
        let mut spec = json!({"containers": [{"name": "c", "ports": ports}]});
        assert_eq!(pod_warnings(&Value::Null, &spec, "").len(), MOST);
        let claim = json!({"spec": {"resources": {"requests": {"storage": "1m"}}}});
        spec["volumes"] = vec![json!({"ephemeral": {"volumeClaimTemplate": claim}}); 2 * MOST].into();
        assert_eq!(pod_warnings(&Value::Null, &spec, "").len(), MOST);
    }
}
