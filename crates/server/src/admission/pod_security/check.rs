//! What a check looks at, and how it words what it finds.

use machinery::Object;
use objects::look;
use serde_json::Value;
use store::State;

/// The handler that runs a pod's containers as processes of the host, and the class of that name, which agents take for
/// it whatever it says.
const HOST: &str = "host";

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// A pod, or the template of one.
pub(super) struct Subject<'a> {
    annotations: &'a Value,
    spec: &'a Value,
    host_class: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// A pod, with the runtime classes that are there.
    pub(super) fn of_pod(pod: &'a Object, state: &State) -> Self {
        let annotations = pod.meta("annotations").unwrap_or(&Value::Null);
        Subject::new(annotations, pod.0.get("spec").unwrap_or(&Value::Null), state)
    }

    /// A template, likewise.
    pub(super) fn of_template(template: &'a Value, state: &State) -> Self {
        Subject::new(&template["metadata"]["annotations"], &template["spec"], state)
    }

    fn new(annotations: &'a Value, spec: &'a Value, state: &State) -> Self {
        let class = spec["runtimeClassName"].as_str().filter(|class| runs_on_the_host(class, state));
        Subject { annotations, spec, host_class: class }
    }

    /// The pod's runtime class, if that runs it as processes of the host.
    pub(super) fn host_class(&self) -> Option<&'a str> {
        self.host_class
    }

    pub(super) fn spec(&self) -> &'a Value {
        self.spec
    }

    pub(super) fn list(&self, field: &str) -> &'a [Value] {
        self.spec[field].as_array().map_or(&[], Vec::as_slice)
    }

    /// The pod's own security context.
    pub(super) fn context(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        CONTAINERS.into_iter().filter_map(move |list| spec[list].as_array()).flatten()
    }

    /// The names of those containers that are so.
    pub(super) fn containers_that(&self, are: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|container| are(container)).map(name).collect()
    }

    /// Annotations that start so, with their values, in order.
    pub(super) fn annotations(&self, prefix: &str) -> Vec<(&'a str, &'a str)> {
        let all = self.annotations.as_object().into_iter().flatten();
        let mut found: Vec<_> = all
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
            .collect();
        found.sort_unstable();
        found
    }

    /// Whether the pod says that it is for Windows, where Linux' means don't exist.
    pub(super) fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// Whether the pod's users are none of the host's.
    pub(super) fn has_own_users(&self) -> bool {
        self.spec["hostUsers"] == false
    }
}

/// Whether a runtime class has the handler that makes processes of the host; its own name says nothing of that.
fn runs_on_the_host(class: &str, state: &State) -> bool {
    if class.is_empty() || class == HOST {
        return class == HOST;
    }
    let key = objects::key("node.k8s.io", "runtimeclasses", "", class);
    let class = state.get(key.as_bytes()).and_then(|kv| look(kv).ok());
    class.is_some_and(|class| class.pointer("/handler").and_then(Value::as_str) == Some(HOST))
}

pub(super) fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

/// `"a", "b"`
pub(super) fn quoted<T: AsRef<str>>(list: &[T]) -> String {
    list.iter().map(|text| format!("{:?}", text.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `one` of one, `many` of more.
pub(super) fn plural<'a, T>(one: &'a str, many: &'a str, of: &[T]) -> &'a str {
    if of.len() == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names), quoted(names))
}

/// `pod and containers "a", "b"`, either of them missing where it isn't so.
pub(super) fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names.is_empty()) {
        (true, true) => Some("pod".into()),
        (true, false) => Some(format!("pod and {}", containers(names))),
        (false, false) => Some(containers(names)),
        (false, true) => None,
    }
}

/// Each value once, in order.
pub(super) fn sorted<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut values: Vec<&str> = values.into_iter().collect();
    values.sort_unstable();
    values.dedup();
    values
}
