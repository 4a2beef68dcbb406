//! Drivers come and go: what each says of the node goes into the CSINode of the host, and into its Node
//! (`pkg/volume/csi/nodeinfomanager`).

use std::collections::BTreeMap;
use std::time::Duration;

use csi::messages::Texts;
use csi::{Driver, NodeInfo, Plugin, Registrar};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use machinery::Object;
use objects::{Reader, TypedRef, Write};
use serde_json::{Value, json};

use super::CsiVolumes;

/// The annotation of a Node with what drivers call it (`annotationKeyNodeID`).
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";

impl Registrar for CsiVolumes {
    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let driver = Driver::at(&plugin.socket);
            let info = driver.node_info().await;
            let info = info.map_err(|why| format!("error during CSI NodeGetInfo() call: {why}"))?;
            if info.id.is_empty() {
                return Err("node ID is missing: the driver calls this node nothing".into());
            }
            self.install(&plugin.name, &info).await?;
            {
                let mut book = self.book();
                book.drivers.insert(plugin.name.clone(), driver);
                for known in book.uses.values_mut().filter(|known| known.id.driver == plugin.name) {
                    known.not_before = Duration::ZERO;
                }
            }
            self.arrivals.send_replace(());
            Ok(())
        })
    }

    fn deregister<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.book().drivers.remove(name);
            let mut ids = self.known_ids();
            ids.remove(name);
            let without = Reader::<CSINode>::get(&self.store.snapshot(), "", &self.name)
                .and_then(|known| change(&known, name, None));
            for write in without.into_iter().chain([of_node(&self.name, &ids, None)]) {
                if let Err(why) = self.writer.write(&self.user(), write).await {
                    tracing::warn!(driver = name, %why, "objects still name a driver that has gone");
                }
            }
            self.book().ids = Some(ids);
        })
    }
}

impl CsiVolumes {
    fn known_ids(&self) -> BTreeMap<String, String> {
        let said = self.book().ids.clone();
        let known = said.or_else(|| {
            let node = Reader::<Node>::get(&self.store.snapshot(), "", &self.name)?;
            let ids = node.metadata.annotations?.remove(NODE_IDS)?;
            serde_json::from_str(&ids).ok()
        });
        known.unwrap_or_default()
    }

    /// Puts what a driver says of the node into the objects.
    async fn install(&self, name: &str, info: &NodeInfo) -> Result<(), String> {
        let node = Reader::<Node>::get(&self.store.snapshot(), "", &self.name)
            .ok_or_else(|| format!("node {:?} not found", self.name))?;
        let labels = node.metadata.labels.unwrap_or_default();
        for (key, value) in info.topology.iter().flatten() {
            if let Some(is) = labels.get(key).filter(|is| *is != value) {
                return Err(format!(
                    "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{is:?}"
                ));
            }
        }
        let mut ids = self.known_ids();
        ids.insert(name.to_owned(), info.id.clone());
        let wanted = entry(name, info);
        let known = Reader::<CSINode>::get(&self.store.snapshot(), "", &self.name);
        let writes = match known {
            None => vec![create(&self.name, node.metadata.uid, wanted)],
            Some(known) => into(&known, wanted),
        };
        // Here, and not by what keeps the Node as it should be: what the API refuses of this is the driver's fault, and stays its own.
        let of_node = of_node(&self.name, &ids, info.topology.as_ref());
        for write in [Some(of_node)].into_iter().chain(writes).flatten() {
            let written = self.writer.write(&self.user(), write).await;
            written
                .map_err(|why| format!("error updating CSINode object with CSI driver node info: {why}"))?;
        }
        self.book().ids = Some(ids);
        Ok(())
    }
}

/// Puts into a Node what drivers call it, and where one says that it is.
fn of_node(name: &str, ids: &BTreeMap<String, String>, topology: Option<&Texts>) -> Write {
    let ids = if ids.is_empty() { Value::Null } else { json!(ids).to_string().into() };
    let mut patch = json!({"metadata": {"annotations": {(NODE_IDS): ids}}});
    if let Some(topology) = topology {
        patch["metadata"]["labels"] = json!(topology);
    }
    let subject = TypedRef {
        api_version: "v1".into(),
        kind: "Node".into(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    Write::Merge { subject, subresource: "", patch }
}

fn entry(name: &str, info: &NodeInfo) -> CSINodeDriver {
    // 0 is no limit, and less than that makes no sense.
    let count = i32::try_from(info.max_volumes.min(i64::from(i32::MAX))).ok().filter(|count| *count > 0);
    CSINodeDriver {
        name: name.to_owned(),
        node_id: info.id.clone(),
        topology_keys: info.topology.as_ref().map(|topology| topology.keys().cloned().collect()),
        allocatable: count.map(|count| VolumeNodeResources { count: Some(count) }),
    }
}

fn create(name: &str, node: Option<String>, driver: CSINodeDriver) -> Option<Write> {
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.to_owned(),
        uid: node.unwrap_or_default(),
        ..OwnerReference::default()
    };
    let object = CSINode {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: CSINodeSpec { drivers: vec![driver] },
    };
    serde_json::to_value(object).ok().and_then(Object::from_value).map(Write::Create)
}

/// Puts a driver into a CSINode. Of one that is there only the room for volumes may change: it is taken out first if more is new.
fn into(known: &CSINode, wanted: CSINodeDriver) -> Vec<Option<Write>> {
    let before = known.spec.drivers.iter().find(|driver| driver.name == wanted.name);
    match before {
        Some(before) if *before == wanted => Vec::new(),
        Some(before) if before.node_id != wanted.node_id || before.topology_keys != wanted.topology_keys => {
            let name = wanted.name.clone();
            // The second one is no longer of the version that was looked at.
            let mut put = change(known, &name, Some(wanted));
            if let Some(Write::Merge { patch: Value::Object(patch), .. }) = &mut put {
                patch.remove("metadata");
            }
            vec![change(known, &name, None), put]
        }
        _ => {
            let name = wanted.name.clone();
            vec![change(known, &name, Some(wanted))]
        }
    }
}

/// Makes a driver's entry what it should be, if it isn't, given the version that was looked at.
fn change(known: &CSINode, name: &str, wanted: Option<CSINodeDriver>) -> Option<Write> {
    let mut drivers: Vec<CSINodeDriver> =
        known.spec.drivers.iter().filter(|driver| driver.name != name).cloned().collect();
    drivers.extend(wanted);
    if drivers == known.spec.drivers {
        return None;
    }
    let patch = json!({"metadata": {"resourceVersion": known.metadata.resource_version}, "spec": {"drivers": drivers}});
    Some(Write::Merge { subject: TypedRef::of(known), subresource: "", patch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: &str, max_volumes: i64) -> NodeInfo {
        let topology =
            Some([("zone".to_owned(), "a".to_owned()), ("rack".to_owned(), "7".to_owned())].into());
        NodeInfo { id: id.into(), max_volumes, topology }
    }

    #[test]
    fn a_node_says_what_drivers_call_it() {
        let of = |ids: &BTreeMap<String, String>, topology| match of_node("n1", ids, topology) {
            Write::Merge { patch, .. } => patch,
            other => panic!("{other:?}"),
        };
        let info = info("id", 0);
        let named = of(&[("d".to_owned(), "id".to_owned())].into(), info.topology.as_ref());
        assert_eq!(named["metadata"]["annotations"], json!({NODE_IDS: r#"{"d":"id"}"#}));
        assert_eq!(named["metadata"]["labels"], json!({"rack": "7", "zone": "a"}));
        assert_eq!(of(&BTreeMap::new(), None), json!({"metadata": {"annotations": {NODE_IDS: null}}}));
    }

    fn patches(writes: Vec<Option<Write>>) -> Vec<Value> {
        let patch = |write: Write| match write {
            Write::Merge { patch, .. } => patch,
            other => panic!("{other:?}"),
        };
        writes.into_iter().flatten().map(patch).collect()
    }

    #[test]
    fn a_csinode_says_what_its_drivers_say() {
        let Some(Write::Create(made)) = create("n1", Some("u".into()), entry("d", &info("id", 5))) else {
            panic!("it is made")
        };
        let mut made = made.into_value();
        assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "u");
        let driver = json!({"name": "d", "nodeID": "id", "topologyKeys": ["rack", "zone"], "allocatable": {"count": 5}});
        assert_eq!(made["spec"]["drivers"], json!([driver]));
        assert_eq!(entry("d", &info("id", 0)).allocatable, None);
        assert_eq!(entry("d", &info("id", -1)).allocatable, None);
        assert_eq!(entry("d", &info("id", i64::MAX)).allocatable.unwrap().count, Some(i32::MAX));

        made["metadata"]["resourceVersion"] = "7".into();
        let known: CSINode = serde_json::from_value(made).unwrap();
        assert!(into(&known, entry("d", &info("id", 5))).is_empty(), "nothing is new");
        let more = patches(into(&known, entry("d", &info("id", 6))));
        assert_eq!(more.len(), 1);
        assert_eq!(more[0]["spec"]["drivers"][0]["allocatable"]["count"], 6);
        assert_eq!(more[0]["metadata"]["resourceVersion"], "7");
        let other = patches(into(&known, entry("d", &info("other", 5))));
        assert_eq!((other.len(), &other[0]["spec"]["drivers"]), (2, &json!([])), "out first: {other:?}");
        assert_eq!(other[1]["spec"]["drivers"][0]["nodeID"], "other");
        let second = patches(into(&known, entry("e", &info("id", 0))));
        assert_eq!(second[0]["spec"]["drivers"].as_array().unwrap().len(), 2);
        assert_eq!(patches(vec![change(&known, "d", None)])[0]["spec"]["drivers"], json!([]));
        assert_eq!(change(&known, "e", None), None);
    }
}
