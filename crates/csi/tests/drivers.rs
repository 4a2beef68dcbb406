//! Drivers that register, answer, fail, hang, lie and go.
#![allow(clippy::unwrap_used)] // A test that can't go on ends.

mod support {
    pub mod server;
}

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use csi::messages::{
    Capability, Done, NodeGetCapabilitiesResponse, NodeGetInfoResponse, NodePublishVolumeRequest,
    NodeServiceCapability, PluginInfo, RegistrationStatus, RegistrationStatusResponse, Rpc, Topology,
};
use csi::{Capabilities, Driver, Plugin, Publish, Registrar, Stage, follow};
use futures::future::BoxFuture;
use grpc::{Code, Status};
use prost::Message;
use support::server::{Answer, serve};
use tokio::net::UnixListener;
use tokio::sync::watch;

/// How long a condition may take: generous, for busy machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a fake driver answers, by the last part of a call's path, and what it was asked.
#[derive(Default)]
struct Fake {
    answers: Mutex<BTreeMap<&'static str, Result<Vec<u8>, Status>>>,
    published: Mutex<Vec<NodePublishVolumeRequest>>,
    told: watch::Sender<Vec<RegistrationStatus>>,
}

impl Fake {
    fn answers(&self, method: &'static str, answer: &impl Message) {
        self.answers.lock().unwrap().insert(method, Ok(answer.encode_to_vec()));
    }

    fn fails(&self, method: &'static str, code: Code) {
        self.answers.lock().unwrap().insert(method, Err(Status::new(code, "no")));
    }

    async fn answer(&self, path: &str, question: Bytes) -> Answer {
        let method = path.rsplit('/').next().unwrap();
        match method {
            "NotifyRegistrationStatus" => {
                let told = RegistrationStatus::decode(question).unwrap();
                self.told.send_modify(|all| all.push(told));
                return Ok(RegistrationStatusResponse {}.encode_to_vec());
            }
            "NodePublishVolume" => {
                let asked = NodePublishVolumeRequest::decode(question).unwrap();
                self.published.lock().unwrap().push(asked);
            }
            _ => {}
        }
        let found = self.answers.lock().unwrap().get(method).cloned();
        found.unwrap_or_else(|| Err(Status::new(Code::Unimplemented, "unknown method")))
    }

    /// Serves at a socket until it is dropped.
    fn serve(self: &Arc<Self>, socket: &Path) -> tokio::task::JoinHandle<()> {
        let fake = self.clone();
        serve(socket, move |path, question| {
            let fake = fake.clone();
            async move { fake.answer(&path, question).await }
        })
    }
}

/// The names of those that are registered, and where they listen.
#[derive(Default)]
struct Book {
    drivers: watch::Sender<BTreeMap<String, Plugin>>,
    refuses: Mutex<Option<String>>,
    /// The names of those that went.
    gone: Mutex<Vec<String>>,
}

impl Registrar for Book {
    fn register<'a>(&'a self, plugin: &'a Plugin) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            if let Some(why) = self.refuses.lock().unwrap().take() {
                return Err(why);
            }
            self.drivers.send_modify(|all| drop(all.insert(plugin.name.clone(), plugin.clone())));
            Ok(())
        })
    }

    fn deregister<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.gone.lock().unwrap().push(name.to_owned());
            self.drivers.send_modify(|all| drop(all.remove(name)));
        })
    }
}

async fn becomes<T>(watched: &watch::Sender<T>, is: impl Fn(&T) -> bool) {
    let mut receiver = watched.subscribe();
    tokio::time::timeout(PATIENCE, receiver.wait_for(|value| is(value))).await.expect("in time").unwrap();
}

fn introduction() -> PluginInfo {
    PluginInfo {
        r#type: "CSIPlugin".into(),
        name: "d.example.org".into(),
        endpoint: String::new(),
        supported_versions: vec!["1.0.0".into()],
    }
}

#[tokio::test]
async fn drivers_are_registered_as_they_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let registry = folder.path().join("plugins_registry");
    let book = Arc::new(Book::default());
    *book.refuses.lock().unwrap() = Some("not yet".into());
    let following = tokio::spawn(follow(registry.clone(), book.clone()));
    becomes(&book.drivers, BTreeMap::is_empty).await;
    // The folder is made by the one who follows it.
    let fake = Arc::new(Fake::default());
    fake.answers("GetInfo", &introduction());
    tokio::time::timeout(PATIENCE, async {
        while !registry.is_dir() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    std::fs::write(registry.join("no-socket"), "").unwrap();
    let socket = registry.join("d.sock");
    let serving = fake.serve(&socket);
    becomes(&fake.told, |told| told.len() == 2).await;
    let heard = fake.told.borrow().clone();
    assert_eq!((heard[0].plugin_registered, heard[0].error.as_str()), (false, "not yet"));
    assert!(heard[1].plugin_registered && heard[1].error.is_empty(), "it is tried again: {heard:?}");
    assert_eq!(book.drivers.borrow()["d.example.org"].socket, socket);

    serving.abort();
    let _ = serving.await;
    std::fs::remove_file(&socket).unwrap();
    becomes(&book.drivers, BTreeMap::is_empty).await;
    // Another one at the same place.
    let serving = fake.serve(&socket);
    becomes(&book.drivers, |all| all.len() == 1).await;
    becomes(&fake.told, |told| told.len() == 3).await;
    following.abort();
    serving.abort();
}

#[tokio::test]
async fn a_driver_with_two_sockets_stays_until_both_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let book = Arc::new(Book::default());
    let following = tokio::spawn(follow(folder.path().to_owned(), book.clone()));
    let fake = Arc::new(Fake::default());
    fake.answers("GetInfo", &introduction());
    let (old, new) = (folder.path().join("old.sock"), folder.path().join("new.sock"));
    let at = |socket: &Path| {
        let socket = socket.to_owned();
        move |all: &BTreeMap<String, Plugin>| all.get("d.example.org").is_some_and(|is| is.socket == socket)
    };
    let _old = fake.serve(&old);
    becomes(&fake.told, |told| told.len() == 1).await;
    // A newer release of it, beside the old one.
    let _new = fake.serve(&new);
    becomes(&fake.told, |told| told.len() == 2).await;
    assert!(at(&new)(&book.drivers.borrow()));
    std::fs::remove_file(&old).unwrap();
    becomes(&fake.told, |told| told.len() == 3).await;
    assert!(at(&new)(&book.drivers.borrow()), "it stays");

    // The other way round: the one that came last goes.
    let _old = fake.serve(&old);
    becomes(&fake.told, |told| told.len() == 4).await;
    assert!(at(&old)(&book.drivers.borrow()));
    std::fs::remove_file(&old).unwrap();
    becomes(&book.drivers, at(&new)).await;
    assert_eq!(*book.gone.lock().unwrap(), [""; 0], "it was never away");
    std::fs::remove_file(&new).unwrap();
    becomes(&book.drivers, BTreeMap::is_empty).await;
    assert_eq!(*book.gone.lock().unwrap(), ["d.example.org"]);
    following.abort();
}

#[tokio::test]
async fn a_driver_is_asked_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("d.sock");
    let fake = Arc::new(Fake::default());
    let _serving = fake.serve(&socket);
    let driver = Driver::at(&socket);
    let capability = |of: Capability| NodeServiceCapability { rpc: Some(Rpc { r#type: of as i32 }) };
    let said = [Capability::StageUnstageVolume, Capability::VolumeMountGroup].map(capability).to_vec();
    fake.answers("NodeGetCapabilities", &NodeGetCapabilitiesResponse { capabilities: said });
    let can = driver.capabilities().await.unwrap();
    assert_eq!(can, Capabilities { stages: true, gives_to_group: true, ..Capabilities::default() });

    let segments = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    fake.answers(
        "NodeGetInfo",
        &NodeGetInfoResponse {
            node_id: "node-7".into(),
            max_volumes_per_node: 5,
            accessible_topology: Some(Topology { segments: segments.clone() }),
        },
    );
    let info = driver.node_info().await.unwrap();
    assert_eq!((info.id.as_str(), info.max_volumes, info.topology), ("node-7", 5, Some(segments)));

    fake.answers("NodePublishVolume", &Done {});
    let stage = Stage {
        volume: "v1".into(),
        fs_type: "ext4".into(),
        mount_options: vec!["noatime".into()],
        group: Some(7),
        access_mode: "ReadWriteMany".into(),
        secrets: BTreeMap::from([("key".to_owned(), "k".to_owned())]),
        staged_at: Some("/staged".into()),
        ..Stage::default()
    };
    let publish = Publish { stage, target: "/target".into(), read_only: true };
    driver.publish(&publish, can).await.unwrap();
    let asked = fake.published.lock().unwrap().pop().unwrap();
    assert_eq!((asked.volume_id.as_str(), asked.target_path.as_str()), ("v1", "/target"));
    assert_eq!((asked.staging_target_path.as_str(), asked.readonly), ("/staged", true));
    let capability = asked.volume_capability.unwrap();
    assert_eq!(capability.access_mode.unwrap().mode, 5);
    let mount = capability.mount.unwrap();
    assert_eq!((mount.fs_type.as_str(), mount.volume_mount_group.as_str()), ("ext4", "7"));
    assert_eq!(mount.mount_flags, ["noatime"]);
    assert_eq!(asked.secrets["key"], "k");
}

#[tokio::test]
async fn a_driver_that_fails_is_absent_or_lies_is_a_reason_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("d.sock");
    let driver = Driver::at(&socket);
    let absent = driver.capabilities().await.unwrap_err();
    assert!(
        absent.to_string().starts_with("rpc error: code = Unavailable desc = connection error"),
        "{absent}"
    );
    assert!(!absent.is_final());

    let fake = Arc::new(Fake::default());
    let _serving = fake.serve(&socket);
    fake.fails("NodeUnstageVolume", Code::Internal);
    let failed = driver.unstage("v", Path::new("/staged")).await.unwrap_err();
    assert_eq!(failed.to_string(), "rpc error: code = Internal desc = no");
    assert!(failed.is_final());

    // A larger answer than any is.
    let endless = "x".repeat(5 << 20);
    fake.answers("NodeGetInfo", &NodeGetInfoResponse { node_id: endless, ..NodeGetInfoResponse::default() });
    assert_eq!(driver.node_info().await.unwrap_err().0.code, Code::ResourceExhausted);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_hangs_is_left_after_two_minutes() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("d.sock");
    // It takes connections and says nothing.
    let _listener = UnixListener::bind(&socket).unwrap();
    let hangs = Driver::at(&socket).unpublish("v", Path::new("/target")).await.unwrap_err();
    assert_eq!(hangs.to_string(), "rpc error: code = DeadlineExceeded desc = context deadline exceeded");
}
