//! The workload: which Deployment is cut, which Service is asked, and which StatefulSet stands beside them.

use crate::Error;
use client::{Client, Discovery, documents};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// The workload of a drill that is given none, as a manifest that anyone may apply.
pub const DEFAULT_WORKLOAD: &str = include_str!("../workload.yaml");

/// The same with a StatefulSet beside it: what `drill --workload statefulset` runs.
pub const STATEFUL_WORKLOAD: &str =
    concat!(include_str!("../workload.yaml"), "---\n", include_str!("../stateful.yaml"));

/// What runs pods without a RuntimeClass: containers.
const CONTAINERS: &str = "oci";

/// One of the drill's own workloads as containers of this image, which each host must have: a program `holdfast` on its PATH.
pub fn in_containers(manifest: &str, image: &str) -> String {
    const COMMAND: &str = "        command: [\"holdfast\", \"web\"]\n";
    let image = format!("        image: {image}\n        imagePullPolicy: Never\n{COMMAND}");
    manifest.replace("      runtimeClassName: host\n", "").replace(COMMAND, &image)
}

/// A workload, as its manifest says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Workload {
    objects: Vec<Value>,
    pub(crate) namespace: String,
    pub(crate) deployment: String,
    pub(crate) service: String,
    /// The Service's port: its name where it has one, else its number.
    pub(crate) port: String,
    /// Where the Service's port leads on a pod.
    pub(crate) target_port: Value,
    /// The labels of the Service's pods.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) replicas: u64,
    /// What runs its pods: their RuntimeClass, or `oci`.
    pub(crate) runtime: String,
    /// The StatefulSet, or why there is none to ask.
    pub(crate) stateful: Result<Stateful, &'static str>,
}

/// The StatefulSet of a workload. Each of its pods is an identity, which must not run twice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stateful {
    pub(crate) name: String,
    /// The labels of its pods.
    pub(crate) labels: BTreeMap<String, String>,
    /// Where its pods are asked.
    target_port: Value,
}

/// Why nothing is measured of StatefulSets.
const NO_SET: &str = "the workload has no StatefulSet";
const NO_PORT: &str = "no Service with a port selects the pods of the workload's StatefulSet";

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn labels(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let map = object.pointer(pointer).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// What a query selects by these labels.
fn selector(labels: &BTreeMap<String, String>) -> String {
    let all: Vec<String> = labels.iter().map(|(k, v)| format!("{k}%3D{v}")).collect();
    all.join(",").replace('/', "%2F")
}

/// Whether a Service selects the pods that the template of a Deployment or a StatefulSet makes.
fn selects(selector: &BTreeMap<String, String>, owner: &Value) -> bool {
    let pods = labels(owner, "/spec/template/metadata/labels");
    !selector.is_empty() && selector.iter().all(|(k, v)| pods.get(k) == Some(v))
}

impl Stateful {
    /// The first StatefulSet of a manifest whose pods can be asked, in the workload's namespace.
    fn find(objects: &[Value], namespace: &str) -> Result<Self, &'static str> {
        let here = |object: &&Value| text(object, "/metadata/namespace") == namespace;
        let mut why = NO_SET;
        for set in objects.iter().filter(|o| o["kind"] == "StatefulSet").filter(here) {
            why = NO_PORT;
            for service in objects.iter().filter(|o| o["kind"] == "Service").filter(here) {
                let labels = labels(service, "/spec/selector");
                let Some(port) = service.pointer("/spec/ports/0").filter(|_| selects(&labels, set)) else {
                    continue;
                };
                let target_port = port.get("targetPort").or(port.get("port")).cloned().unwrap_or_default();
                return Ok(Stateful { name: text(set, "/metadata/name").to_owned(), labels, target_port });
            }
        }
        Err(why)
    }

    /// Where one of its pods is asked through the API, once it says on which port.
    pub(crate) fn pod_path(&self, pod: &Value) -> Option<String> {
        pod_path(&self.target_port, pod)
    }

    /// Where one of its pods is asked without the API, once it has an address.
    pub(crate) fn pod_url(&self, pod: &Value) -> Option<String> {
        let address: IpAddr = pod.pointer("/status/podIP")?.as_str()?.parse().ok()?;
        let port = u16::try_from(target_port(&self.target_port, pod)?).ok()?;
        Some(format!("http://{}", SocketAddr::new(address, port)))
    }

    /// The label selector of its pods, as it stands in a query.
    pub(crate) fn selector(&self) -> String {
        selector(&self.labels)
    }
}

/// Where a pod is asked through the API.
fn pod_path(target: &Value, pod: &Value) -> Option<String> {
    let (name, namespace) =
        (pod.pointer("/metadata/name")?.as_str()?, pod.pointer("/metadata/namespace")?.as_str()?);
    let port = target_port(target, pod)?;
    Some(format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/"))
}

impl Workload {
    /// Finds the Service of a manifest and the Deployment behind it. `namespace` is for manifests that name none.
    pub(crate) fn read(manifest: &str, namespace: &str) -> Result<Self, Error> {
        let objects = documents(manifest, "the manifest")?;
        let of_kind = |kind| objects.iter().filter(move |o| o["kind"] == kind);
        let mut found = None;
        for service in of_kind("Service") {
            let selector = labels(service, "/spec/selector");
            let behind = of_kind("Deployment").find(|deployment| selects(&selector, deployment));
            if let Some(deployment) = behind {
                found = Some((service, deployment, selector));
                break;
            }
        }
        let Some((service, deployment, labels)) = found else {
            return Err(Error::Workload(
                "it needs a Deployment, and a Service whose selector matches the Deployment's pods".into(),
            ));
        };
        let Some(port) = service.pointer("/spec/ports/0") else {
            return Err(Error::Workload(format!(
                "its Service {} has no port",
                text(service, "/metadata/name")
            )));
        };
        let number = port.get("port").cloned().unwrap_or_default();
        let named = text(port, "/name");
        let own = [service, deployment].map(|o| text(o, "/metadata/namespace"));
        if own[0] != own[1] {
            return Err(Error::Workload("its Deployment and its Service are in different namespaces".into()));
        }
        let stateful = Stateful::find(&objects, own[0]);
        let own = Some(own[0]).filter(|n| !n.is_empty()).unwrap_or(namespace).to_owned();
        Ok(Workload {
            stateful,
            namespace: own,
            deployment: text(deployment, "/metadata/name").to_owned(),
            service: text(service, "/metadata/name").to_owned(),
            port: if named.is_empty() { number.to_string() } else { named.to_owned() },
            target_port: port.get("targetPort").cloned().unwrap_or(number),
            labels,
            runtime: match text(deployment, "/spec/template/spec/runtimeClassName") {
                "" => CONTAINERS.to_owned(),
                class => class.to_owned(),
            },
            replicas: deployment.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1),
            objects,
        })
    }

    /// Applies every object; `say` hears what became of each.
    pub(crate) async fn deploy(
        &self,
        client: &Client,
        discovery: &Discovery,
        mut say: impl FnMut(&str),
    ) -> Result<(), Error> {
        for object in &self.objects {
            let applied = client::apply(client, discovery, object, &self.namespace).await?;
            say(&format!("{} {}", applied.name, applied.outcome));
        }
        Ok(())
    }

    /// Where the Service is asked.
    pub(crate) fn service_path(&self) -> String {
        let Workload { namespace, service, port, .. } = self;
        format!("/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy/")
    }

    /// Where one pod is asked, once it says on which port.
    pub(crate) fn pod_path(&self, pod: &Value) -> Option<String> {
        pod_path(&self.target_port, pod)
    }

    /// The label selector of the Service's pods, as it stands in a query.
    pub(crate) fn selector(&self) -> String {
        selector(&self.labels)
    }
}

/// A Service's target port on a pod: a number, or the name of a container's port.
fn target_port(target: &Value, pod: &Value) -> Option<u64> {
    if let Some(number) = target.as_u64() {
        return Some(number);
    }
    let name = target.as_str()?;
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    let ports = containers.iter().filter_map(|c| c.get("ports")?.as_array()).flatten();
    ports.into_iter().find(|p| p["name"] == name)?.get("containerPort")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_default_is_three_replicas_and_a_service() {
        let workload = Workload::read(DEFAULT_WORKLOAD, "drill-x").unwrap();
        assert_eq!((workload.deployment.as_str(), workload.replicas), ("web", 3));
        assert_eq!(workload.service_path(), "/api/v1/namespaces/drill-x/services/web:http/proxy/");
        assert_eq!(workload.selector(), "app%3Dweb");
        let mut pod = workload.objects[0]["spec"]["template"].clone();
        pod["metadata"]["name"] = json!("web-1");
        pod["metadata"]["namespace"] = json!("drill-x");
        let path = workload.pod_path(&pod).unwrap();
        assert_eq!(path, "/api/v1/namespaces/drill-x/pods/web-1:8080/proxy/");
    }

    #[test]
    fn a_stateful_set_stands_beside_the_deployment() {
        assert_eq!(Workload::read(DEFAULT_WORKLOAD, "drill-x").unwrap().stateful, Err(NO_SET));
        let workload = Workload::read(STATEFUL_WORKLOAD, "drill-x").unwrap();
        assert_eq!((workload.deployment.as_str(), workload.service.as_str()), ("web", "web"));
        let stateful = workload.stateful.unwrap();
        assert_eq!((stateful.name.as_str(), stateful.selector().as_str()), ("db", "app%3Ddb"));
        let set = workload.objects.iter().find(|o| o["kind"] == "StatefulSet").unwrap();
        let mut pod = set["spec"]["template"].clone();
        assert_eq!((stateful.pod_path(&pod), stateful.pod_url(&pod)), (None, None), "not yet");
        pod["metadata"]["name"] = json!("db-1");
        pod["metadata"]["namespace"] = json!("drill-x");
        pod["status"]["podIP"] = json!("10.244.2.7");
        assert_eq!(stateful.pod_path(&pod).unwrap(), "/api/v1/namespaces/drill-x/pods/db-1:8080/proxy/");
        assert_eq!(stateful.pod_url(&pod).unwrap(), "http://10.244.2.7:8080");
        let alone =
            STATEFUL_WORKLOAD.replace("clusterIP: None\n  selector:\n    app: db", "selector:\n    app: dbx");
        assert_eq!(Workload::read(&alone, "drill-x").unwrap().stateful, Err(NO_PORT));
    }

    #[test]
    fn the_same_runs_in_containers() {
        assert_eq!(Workload::read(STATEFUL_WORKLOAD, "drill-x").unwrap().runtime, "host");
        let manifest = in_containers(STATEFUL_WORKLOAD, "here.test/web:v1");
        let workload = Workload::read(&manifest, "drill-x").unwrap();
        assert_eq!(
            (workload.runtime.as_str(), workload.replicas, workload.stateful.is_ok()),
            ("oci", 3, true)
        );
        let pods: Vec<&Value> =
            workload.objects.iter().filter_map(|o| o.pointer("/spec/template/spec")).collect();
        assert_eq!(pods.len(), 2);
        for pod in pods {
            let container = &pod["containers"][0];
            assert_eq!(
                (&pod["runtimeClassName"], &container["image"]),
                (&Value::Null, &json!("here.test/web:v1"))
            );
            assert_eq!(container["imagePullPolicy"], "Never");
        }
    }

    #[test]
    fn a_user_s_own() {
        let manifest = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: mine}
spec: {selector: {matchLabels: {app: a}}, template: {metadata: {labels: {app: a, x: y}}}}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: mine}
spec: {selector: {app: a}, ports: [{port: 4000}]}
";
        let workload = Workload::read(manifest, "drill-x").unwrap();
        assert_eq!(workload.service_path(), "/api/v1/namespaces/mine/services/s:4000/proxy/");
        assert_eq!((workload.target_port.clone(), workload.replicas), (json!(4000), 1));
        for (from, to, says) in [
            ("{app: a}, ports", "{app: b}, ports", "selector matches"),
            ("kind: Service", "kind: ConfigMap", "needs a Deployment, and a Service"),
            ("ports: [{port: 4000}]", "ports: []", "Service s has no port"),
            ("{name: s, namespace: mine}", "{name: s}", "different namespaces"),
            ("kind: Deployment", "kin: Deployment", "no kind"),
        ] {
            let error = Workload::read(&manifest.replace(from, to), "drill-x").unwrap_err().to_string();
            assert!(error.contains(says), "{to}: {error}");
        }
    }
}
