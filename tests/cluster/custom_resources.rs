//! Custom resources in whole clusters: what people do with `kubectl`, what operators do with `kube`, and what the
//! cluster does by itself.

use std::borrow::Cow;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::{Cluster, PATIENCE, wait_for};
use crate::kubectl::{Kubectl, is_installed};

const DEFINITION: &str = r#"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: lamps, kind: Lamp, shortNames: [la], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema: &schema
      openAPIV3Schema:
        type: object
        description: A light with a switch.
        properties:
          spec:
            type: object
            default: {}
            properties:
              watts: {type: integer, default: 40, description: How much it takes.}
              replicas: {type: integer}
              rooms:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, side: {type: string}}
            x-kubernetes-validations:
            - {rule: self.watts <= 100, message: too bright}
          status:
            type: object
            properties: {state: {type: string}, replicas: {type: integer}, selector: {type: string}}
    subresources: &subresources
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    additionalPrinterColumns: &columns
    - {name: Watts, type: integer, jsonPath: .spec.watts}
    - {name: State, type: string, jsonPath: .status.state}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
  - name: v1beta1
    served: true
    storage: false
    schema: *schema
    subresources: *subresources
    additionalPrinterColumns: *columns
"#;

fn lamp(name: &str, watts: &str, more: &str) -> String {
    format!("apiVersion: example.com/v1\nkind: Lamp\nmetadata: {{name: {name}{more}}}\nspec: {{{watts}}}\n")
}

fn file(cluster: &Cluster, name: &str, content: &str) -> String {
    let path = cluster.dir().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A reference to a lamp or a map of this name, as the owner.
fn owned_by(kubectl: &Kubectl<'_>, resource: &str, version: &str, kind: &str, name: &str) -> String {
    let uid = kubectl.says(&format!("get {resource} {name} -o jsonpath={{.metadata.uid}}"), &[]);
    format!(", ownerReferences: [{{apiVersion: {version}, kind: {kind}, name: {name}, uid: {uid}}}]")
}

#[tokio::test]
async fn kubectl_knows_custom_resources_as_any_other() {
    if !is_installed() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 3, "auto");
    cluster.wait_until_ready(3).await;
    let kubectl = Kubectl(&cluster, "kubectl");

    let definition = file(&cluster, "definition.yaml", DEFINITION);
    kubectl.says(
        &format!("apply -f {definition}"),
        &["customresourcedefinition.apiextensions.k8s.io/lamps.example.com created"],
    );
    // As upstream answers a create: its conditions are null until its names are accepted, which `kubectl wait` fails at.
    kubectl
        .says_soon("wait --for=condition=Established crd/lamps.example.com --timeout=60s", "condition met");
    kubectl.says_soon("explain lamp.spec", "How much it takes.");
    kubectl.says(
        "explain lamp --api-version=example.com/v1beta1",
        &["A light with a switch.", "VERSION:", "v1beta1"],
    );
    kubectl.says("api-resources --api-group=example.com", &["lamps", "la", "example.com/v1", "Lamp"]);

    let desk = file(&cluster, "desk.yaml", &lamp("desk", "", ""));
    kubectl.says(&format!("apply -f {desk}"), &["lamp.example.com/desk created"]);
    kubectl.says(&format!("apply -f {desk}"), &["lamp.example.com/desk unchanged"]);
    kubectl.says("get la", &["NAME", "WATTS", "STATE", "AGE", "desk", "40"]);
    kubectl.says("get all", &["lamp.example.com/desk"]);
    let mut watch = Command::new("kubectl")
        .args(["get", "la", "-w"])
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdout(std::fs::File::create(cluster.dir().join("watch")).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    kubectl.says(r#"patch la desk --type=merge -p {"spec":{"watts":60}}"#, &["patched"]);
    kubectl.fails(r#"patch la desk --type=merge -p {"spec":{"watts":200}}"#, &["too bright"]);
    kubectl.fails("scale la/desk --replicas=3 --current-replicas=1", &["the spec replicas field"]);
    kubectl.says("scale la/desk --replicas=3", &["lamp.example.com/desk scaled"]);
    kubectl.says("scale la/desk --replicas=4 --current-replicas=3", &["scaled"]);
    kubectl.says(
        r#"patch la desk --subresource=status --type=merge -p {"status":{"state":"on"}}"#,
        &["patched"],
    );
    kubectl.says("wait la/desk --for=jsonpath={.status.state}=on --timeout=60s", &["condition met"]);
    kubectl.says("describe la desk", &["API Version:", "example.com/v1", "Watts:", "60", "State:", "on"]);
    let older =
        kubectl.says("get lamps.v1beta1.example.com desk -o jsonpath={.apiVersion}/{.spec.replicas}", &[]);
    assert_eq!(older, "example.com/v1beta1/4");
    let end = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(cluster.dir().join("watch")).unwrap().contains(" on ") {
        assert!(Instant::now() < end, "the watch shows no change");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    watch.kill().unwrap();
    watch.wait().unwrap();

    // Applied by the server: each applier its items, and what another has is a conflict.
    let rooms = |room: &str| lamp("desk", &format!("rooms: [{{name: {room}, side: left}}]"), "");
    for (manager, room) in [("one", "hall"), ("two", "attic")] {
        let file = file(&cluster, manager, &rooms(room));
        kubectl.says(
            &format!("apply --server-side --field-manager={manager} -f {file}"),
            &["serverside-applied"],
        );
    }
    let both = kubectl.says("get la desk -o jsonpath={.spec.rooms[*].name}", &[]);
    assert_eq!(both, "hall attic");
    let taken = file(&cluster, "taken", &rooms("hall").replace("left", "right").replace("v1", "v1beta1"));
    kubectl
        .fails(&format!("apply --server-side --field-manager=three -f {taken}"), &["conflict with \"one\""]);
    kubectl.says(
        &format!("apply --server-side --force-conflicts --field-manager=three -f {taken}"),
        &["serverside-applied"],
    );
    let gone = file(&cluster, "gone", &lamp("desk", "", "").replace("spec: {}", "spec: {rooms: []}"));
    kubectl.says(&format!("apply --server-side --field-manager=two -f {gone}"), &["serverside-applied"]);
    let left = kubectl.says("get la desk -o jsonpath={.spec.rooms[*].side}", &[]);
    assert_eq!(left, "right", "the second took its own away");

    // Owners and what they own, across kinds.
    let map = |name: &str, more: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}{more}}}\n")
    };
    kubectl.says(&format!("create -f {}", file(&cluster, "owner", &map("owner", ""))), &["created"]);
    let of_map = owned_by(&kubectl, "cm", "v1", "ConfigMap", "owner");
    kubectl
        .says(&format!("create -f {}", file(&cluster, "owned", &lamp("owned", "", &of_map))), &["created"]);
    let of_lamp = owned_by(&kubectl, "la", "example.com/v1beta1", "Lamp", "owned");
    kubectl.says(&format!("create -f {}", file(&cluster, "last", &map("last", &of_lamp))), &["created"]);
    kubectl.says("delete cm owner", &["deleted"]);
    kubectl.says_soon("get la owned", "NotFound");
    kubectl.says_soon("get cm last", "NotFound");

    // A namespace takes them with it.
    kubectl.says("create namespace other", &["created"]);
    kubectl.says(&format!("apply -n other -f {desk}"), &["created"]);
    kubectl.says("delete namespace other --timeout=60s", &["deleted"]);
    kubectl.fails("get la -n other desk", &["NotFound"]);

    // Everything is there after all hosts were killed.
    cluster.kill_hosts();
    drop(cluster);
    let cluster = Cluster::start(dir.path(), 3, "auto");
    cluster.wait_until_ready(3).await;
    let kubectl = Kubectl(&cluster, "kubectl");
    kubectl.says_soon("get la", "desk");
    kubectl.says("get la", &["WATTS", "60", "on"]);
    let floor = file(&cluster, "floor.yaml", &lamp("floor", "watts: 5", ""));
    kubectl.says(&format!("apply -f {floor}"), &["lamp.example.com/floor created"]);

    kubectl.says("delete crd lamps.example.com --timeout=60s", &["deleted"]);
    kubectl.says_soon("get la", "the server");
    let again = file(&cluster, "definition.yaml", DEFINITION);
    kubectl.says(&format!("apply -f {again}"), &["created"]);
    kubectl
        .says_soon("wait --for=condition=Established crd/lamps.example.com --timeout=60s", "condition met");
    kubectl.says_soon("get la", "No resources found");
}

/// A lamp as a program knows it.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct Lamp {
    metadata: ObjectMeta,
    spec: LampSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<LampStatus>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
struct LampSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watts: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
struct LampStatus {
    state: String,
}

impl Resource for Lamp {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Lamp".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "example.com".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "lamps".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[tokio::test]
async fn an_operator_looks_after_its_own_kind() {
    let cluster = Cluster::with(1, "auto").await;
    let client = cluster.client().await.unwrap();
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let definition = serde_json::from_value(values::from_yaml(DEFINITION.as_bytes()).unwrap()).unwrap();
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    let established = await_condition(definitions, "lamps.example.com", conditions::is_crd_established());
    tokio::time::timeout(PATIENCE, established).await.expect("established").unwrap();

    let lamps = Api::<Lamp>::default_namespaced(client);
    // The operator: whatever is switched on, it says so.
    let operator = {
        let lamps = lamps.clone();
        tokio::spawn(async move {
            let events = watcher(lamps.clone(), watcher::Config::default()).default_backoff();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let Ok(Event::Apply(lamp) | Event::InitApply(lamp)) = event else { continue };
                let state = if lamp.spec.watts > Some(0) { "on" } else { "off" };
                if lamp.status.as_ref().is_none_or(|status| status.state != state) {
                    let status =
                        json!({"apiVersion": "example.com/v1", "kind": "Lamp", "status": {"state": state}});
                    let params = PatchParams::apply("operator");
                    lamps.patch_status(&lamp.name_any(), &params, &Patch::Apply(status)).await.unwrap();
                }
            }
        })
    };
    let says = |state: &'static str| {
        let lamps = lamps.clone();
        async move {
            wait_for(state, || async {
                let status = lamps.get("desk").await.ok()?.status?;
                (status.state == state).then_some(())
            })
            .await;
        }
    };
    let metadata = ObjectMeta { name: Some("desk".into()), ..ObjectMeta::default() };
    let desk = Lamp { metadata, spec: LampSpec::default(), status: None };
    let mut made = lamps.create(&PostParams::default(), &desk).await.unwrap();
    assert_eq!(made.spec.watts, Some(40), "the default");
    says("on").await;
    made.spec.watts = Some(0);
    let stale = lamps.replace("desk", &PostParams::default(), &made).await.unwrap_err();
    assert!(matches!(&stale, kube::Error::Api(status) if status.code == 409), "{stale}");
    let off = json!({"spec": {"watts": 0}});
    lamps.patch("desk", &PatchParams::default(), &Patch::Merge(off)).await.unwrap();
    says("off").await;
    let entries = lamps.get("desk").await.unwrap().metadata.managed_fields.unwrap();
    let operators = entries.iter().find(|entry| entry.manager.as_deref() == Some("operator")).unwrap();
    assert_eq!(
        (operators.operation.as_deref(), operators.subresource.as_deref()),
        (Some("Apply"), Some("status"))
    );
    operator.abort();

    // An apply to an existing object needn't name it; one that makes it must.
    let nameless = Patch::Apply(json!({"apiVersion": "example.com/v1", "kind": "Lamp"}));
    let refused = lamps.patch("none", &PatchParams::apply("operator"), &nameless).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 400), "{refused}");
}
