//! Runtimes that hang, lie, forget and go.

#[path = "../../../csi/tests/support/server.rs"]
mod server;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cri::Client;
use cri::messages::{
    Container as There, ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus,
    ContainerStatusResponse, CreateContainerResponse, Done, IdMapping, ListContainersResponse,
    ListPodSandboxResponse, NamespaceOption, PodSandbox, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus, PodSandboxStatusResponse,
    RunPodSandboxRequest, RunPodSandboxResponse, RuntimeHandler, RuntimeHandlerFeatures, StatusResponse,
    Texts, UserNamespace,
};
use grpc::{Code, Status};
use prost::Message;
use serde_json::json;

use super::{CONTAINER_NAME, Container, ForeignRuntime, POD_UID, Sandbox};
use crate::container::cgroup::Amounts;
use crate::pods::Folders;
use crate::runtime::{Program, RunError, Runtime, Shape, Streams, Which};
use server::{Answer, serve};

/// How long a condition may take: generous, for busy machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a fake runtime has.
#[derive(Default)]
struct Fake {
    sandboxes: Vec<PodSandbox>,
    containers: Vec<There>,
    statuses: Vec<ContainerStatus>,
    /// The address that it says of sandboxes.
    address: String,
    /// What it tells of its settings.
    config: String,
    /// Whether it says that pods may have users of their own.
    gives_users: bool,
    /// What it was asked, in order, but for questions that change nothing.
    asked: Vec<String>,
    /// How often it still says that it can't stop containers now.
    refusals: u32,
    /// Calls of this name never end.
    hangs: &'static str,
}

type Shared = Arc<Mutex<Fake>>;

fn answer(fake: &Shared, method: &str, question: &[u8]) -> Answer {
    let mut fake = fake.lock().unwrap();
    let changes = !method.starts_with("List") && !method.ends_with("Status") && method != "RuntimeConfig";
    if changes {
        fake.asked.push(method.to_owned());
    }
    Ok(match method {
        "StopContainer" if fake.refusals > 0 => {
            fake.refusals -= 1;
            return Err(Status::new(Code::Unavailable, "not now"));
        }
        "ListPodSandbox" => ListPodSandboxResponse { items: fake.sandboxes.clone() }.encode_to_vec(),
        "ListContainers" => ListContainersResponse { containers: fake.containers.clone() }.encode_to_vec(),
        "RunPodSandbox" => {
            let asked = RunPodSandboxRequest::decode(question).unwrap().config.unwrap();
            let attempt = asked.metadata.as_ref().unwrap().attempt;
            let id = format!("sandbox{attempt}");
            fake.sandboxes.push(PodSandbox {
                id: id.clone(),
                metadata: asked.metadata,
                labels: asked.labels,
                ..PodSandbox::default()
            });
            RunPodSandboxResponse { pod_sandbox_id: id }.encode_to_vec()
        }
        "RemovePodSandbox" => {
            fake.sandboxes.clear();
            Done {}.encode_to_vec()
        }
        "PodSandboxStatus" => {
            let network = Some(PodSandboxNetworkStatus { ip: fake.address.clone() });
            let status = Some(PodSandboxStatus { network, ..PodSandboxStatus::default() });
            PodSandboxStatusResponse { status, info: Texts::new() }.encode_to_vec()
        }
        "RuntimeConfig" => return Err(Status::new(Code::Unimplemented, "unknown method RuntimeConfig")),
        "Status" => {
            let info = Texts::from([("config".to_owned(), fake.config.clone())]);
            let features = Some(RuntimeHandlerFeatures { user_namespaces: fake.gives_users });
            let runtime_handlers = vec![RuntimeHandler { name: String::new(), features }];
            StatusResponse { info, runtime_handlers, ..StatusResponse::default() }.encode_to_vec()
        }
        "CreateContainer" => CreateContainerResponse { container_id: "made".into() }.encode_to_vec(),
        "ContainerStatus" => match fake.statuses.first().cloned() {
            Some(status) => {
                ContainerStatusResponse { status: Some(status), info: Texts::new() }.encode_to_vec()
            }
            None => return Err(Status::new(Code::NotFound, "no such container")),
        },
        _ => Done {}.encode_to_vec(),
    })
}

fn start(folder: &Path, fake: Fake) -> (ForeignRuntime, Shared) {
    let fake = Arc::new(Mutex::new(fake));
    let socket = folder.join("runtime.sock");
    let shared = fake.clone();
    serve(&socket, move |path, question| {
        let fake = shared.clone();
        async move {
            let method = path.rsplit('/').next().unwrap().to_owned();
            let hangs = fake.lock().unwrap().hangs;
            if method == hangs {
                std::future::pending::<()>().await;
            }
            answer(&fake, &method, &question)
        }
    });
    let client = Client::at(&format!("unix://{}", socket.display()).parse().unwrap());
    let folders = Folders::new(folder.to_owned());
    (ForeignRuntime::new(client, "n1-x".into(), folders, None, None), fake)
}

fn wanted(network: bool) -> Shape {
    let metadata = Some(PodSandboxMetadata { uid: "u".into(), ..PodSandboxMetadata::default() });
    let config = PodSandboxConfig { metadata, ..PodSandboxConfig::default() };
    let (handler, memory, amounts) = (String::new(), Vec::new(), Amounts::default());
    Shape::Foreign(Box::new(Sandbox { config, handler, network, memory, amounts, is_limited: false }))
}

fn life(attempt: u32) -> Which {
    Which { uid: "u".into(), container: "c".into(), attempt }
}

fn program() -> Program {
    let metadata = Some(ContainerMetadata { name: "c".into(), attempt: 0 });
    Program::Foreign(Box::new(Container {
        config: ContainerConfig { metadata, ..ContainerConfig::default() },
        sandbox: PodSandboxConfig::default(),
        streams: Streams::Outputs,
        target: None,
        parts: Vec::new(),
    }))
}

fn there(id: &str, attempt: u32, state: ContainerState) -> There {
    let labels = [(POD_UID, "u"), (CONTAINER_NAME, "c")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    There {
        id: id.into(),
        pod_sandbox_id: "sandbox0".into(),
        metadata: Some(ContainerMetadata { name: "c".into(), attempt }),
        state: state as i32,
        labels: labels.into(),
        ..There::default()
    }
}

fn sandbox(id: &str, state: PodSandboxState, attempt: u32) -> PodSandbox {
    PodSandbox {
        id: id.into(),
        metadata: Some(PodSandboxMetadata { attempt, ..PodSandboxMetadata::default() }),
        state: state as i32,
        labels: Texts::from([(POD_UID.to_owned(), "u".to_owned())]),
        ..PodSandbox::default()
    }
}

#[tokio::test]
async fn a_container_that_was_started_unheard_is_taken_for_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let status = ContainerStatus { started_at: 5, ..ContainerStatus::default() };
    let (runtime, fake) = start(folder.path(), Fake { statuses: vec![status], ..Fake::default() });
    runtime.prepare("u", wanted(false)).await.unwrap();
    let logs = folder.path().join("logs/c");
    runtime.start(&life(0), program(), logs.clone()).await.unwrap();
    let made = ["RunPodSandbox", "CreateContainer", "StartContainer"];
    assert_eq!(fake.lock().unwrap().asked, made);

    // The same life again, after an answer that was lost; and the next one, while the last still runs.
    fake.lock().unwrap().containers = vec![there("made", 0, ContainerState::Running)];
    runtime.prepare("u", wanted(false)).await.unwrap();
    runtime.start(&life(0), program(), logs.clone()).await.unwrap();
    assert_eq!(fake.lock().unwrap().asked, made, "nothing was made twice");
    runtime.start(&life(1), program(), logs).await.unwrap();
    let ended = ["StopContainer", "RemoveContainer", "CreateContainer", "StartContainer"];
    assert_eq!(fake.lock().unwrap().asked[3..], ended, "never two lives of one container");
}

#[tokio::test]
async fn a_network_of_anothers_is_taken_away_again() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, fake) = start(folder.path(), Fake { address: "10.88.0.3".into(), ..Fake::default() });
    let Err(RunError::System(why)) = runtime.prepare("u", wanted(true)).await else { panic!() };
    assert!(why.contains("10.88.0.3"), "{why}");
    assert_eq!(fake.lock().unwrap().asked, ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]);
    fake.lock().unwrap().address = super::cni::MARK.into();
    assert_eq!(runtime.prepare("u", wanted(true)).await.unwrap().len(), 1);
    let sandboxes = fake.lock().unwrap().sandboxes.clone();
    assert_eq!(sandboxes[0].id, "sandbox1", "a name that may still be taken is not asked for again");
}

#[tokio::test]
async fn what_a_runtime_does_not_say_that_it_can_is_not_asked_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, fake) = start(folder.path(), Fake::default());
    let asks = |what: &dyn Fn(&mut Sandbox)| {
        let Shape::Foreign(mut sandbox) = wanted(false) else { panic!() };
        what(&mut sandbox);
        Shape::Foreign(sandbox)
    };
    let users = |sandbox: &mut Sandbox| {
        let uids = vec![IdMapping { host_id: 65_536, container_id: 0, length: 65_536 }];
        let users = UserNamespace { uids, ..UserNamespace::default() };
        let options = NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() };
        let linux = sandbox.config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().namespace_options = Some(options);
    };
    let limits = |sandbox: &mut Sandbox| sandbox.is_limited = true;
    let Err(RunError::Config(why)) = runtime.prepare("u", asks(&users)).await else { panic!() };
    assert!(why.contains("hostUsers: false") && why.contains("handler oci"), "{why}");
    let Err(RunError::Config(why)) = runtime.prepare("u", asks(&limits)).await else { panic!() };
    assert!(why.contains("doesn't say how it makes cgroups") && why.contains("handler oci"), "{why}");
    let by_systemd = json!({"containerd": {"defaultRuntimeName": "runc",
        "runtimes": {"runc": {"options": {"SystemdCgroup": true}}}}});
    fake.lock().unwrap().config = by_systemd.to_string();
    let Err(RunError::Config(why)) = runtime.prepare("u", asks(&limits)).await else { panic!() };
    assert!(why.contains("systemd"), "{why}");
    assert!(fake.lock().unwrap().asked.is_empty());
    fake.lock().unwrap().gives_users = true;
    runtime.prepare("u", asks(&users)).await.unwrap();
    assert_eq!(fake.lock().unwrap().asked, ["RunPodSandbox"]);
}

#[tokio::test]
async fn what_a_former_agent_left_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake {
        sandboxes: vec![sandbox("sandbox0", PodSandboxState::Ready, 0)],
        containers: vec![
            there("old", 1, ContainerState::Exited),
            there("new", 2, ContainerState::Exited),
            // Of a sandbox that isn't there, and of nobody.
            There { pod_sandbox_id: "gone".into(), ..there("stray", 3, ContainerState::Running) },
            There { labels: Texts::new(), ..there("odd", 3, ContainerState::Running) },
        ],
        statuses: vec![ContainerStatus {
            state: ContainerState::Exited as i32,
            started_at: 1_000_000_000,
            finished_at: i64::MAX,
            exit_code: 7,
            ..ContainerStatus::default()
        }],
        ..Fake::default()
    };
    let (runtime, _fake) = start(folder.path(), fake);
    let found = runtime.found().await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0].which, found[0].exit.unwrap().code), (&life(2), 7));
    assert_eq!(
        (runtime.sandboxes(), runtime.bound("u"), runtime.bound("v")),
        (vec!["u".into()], Some(None), None)
    );
    assert_eq!(runtime.exit(&life(2)).await.unwrap().code, 7);
}

#[tokio::test]
async fn a_container_that_somebody_removed_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let status = ContainerStatus { started_at: 5, ..ContainerStatus::default() };
    let (runtime, fake) = start(folder.path(), Fake { statuses: vec![status], ..Fake::default() });
    runtime.prepare("u", wanted(false)).await.unwrap();
    runtime.start(&life(0), program(), folder.path().join("logs/c")).await.unwrap();
    fake.lock().unwrap().statuses.clear();
    let (which, ended) = (life(0), tokio::time::timeout(PATIENCE, async { runtime.exit(&life(0)).await }));
    assert!(ended.await.unwrap().is_none());
    assert_eq!(runtime.lost(&which.uid).reason, Some("ContainerStatusUnknown"));
}

#[tokio::test]
async fn a_container_that_its_runtime_lost_sight_of_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let status = ContainerStatus { started_at: 5, ..ContainerStatus::default() };
    let (runtime, fake) = start(folder.path(), Fake { statuses: vec![status], ..Fake::default() });
    runtime.prepare("u", wanted(false)).await.unwrap();
    fake.lock().unwrap().containers = vec![there("made", 0, ContainerState::Running)];
    runtime.start(&life(0), program(), folder.path().join("logs/c")).await.unwrap();
    fake.lock().unwrap().containers = vec![there("made", 0, ContainerState::Unknown)];
    let ended = tokio::time::timeout(PATIENCE, async { runtime.exit(&life(0)).await });
    assert!(ended.await.unwrap().is_none());
}

#[tokio::test]
async fn a_container_is_killed_though_its_runtime_does_not_hear_it_at_first() {
    let folder = tempfile::tempdir().unwrap();
    let status = ContainerStatus { started_at: 5, ..ContainerStatus::default() };
    let fake = Fake {
        statuses: vec![status],
        containers: vec![there("made", 0, ContainerState::Running)],
        refusals: 2,
        ..Fake::default()
    };
    let (runtime, fake) = start(folder.path(), fake);
    runtime.prepare("u", wanted(false)).await.unwrap();
    runtime.start(&life(0), program(), folder.path().join("logs/c")).await.unwrap();
    runtime.signal(&life(0), libc::SIGKILL);
    let stops = || fake.lock().unwrap().asked.iter().filter(|asked| *asked == "StopContainer").count();
    let heard = async {
        while stops() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
}

#[tokio::test]
async fn a_sandbox_is_ended_before_it_counts_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake { sandboxes: vec![sandbox("sandbox0", PodSandboxState::Ready, 0)], ..Fake::default() };
    let (runtime, fake) = start(folder.path(), fake);
    runtime.prepare("u", wanted(false)).await.unwrap();
    runtime.end("u").await;
    assert_eq!(fake.lock().unwrap().asked, ["StopPodSandbox", "RemovePodSandbox"]);
    assert!(runtime.sandboxes().is_empty() && runtime.bound("u").is_none());
}

#[tokio::test]
async fn what_a_former_runtime_has_is_ended_once() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake { sandboxes: vec![sandbox("sandbox0", PodSandboxState::Ready, 0)], ..Fake::default() };
    let (runtime, fake) = start(folder.path(), fake);
    let (file, endpoint) = (folder.path().join("runtime.json"), runtime.client.endpoint());
    super::keep(&file, &endpoint, "n1-x").unwrap();
    super::end_former(&file, Some(&endpoint)).await;
    assert!(fake.lock().unwrap().asked.is_empty() && file.exists(), "it is this host's still");
    assert_eq!(super::noted(&file), [endpoint.to_string()]);
    super::end_former(&file, None).await;
    assert!(super::noted(&file).is_empty());
    assert_eq!(fake.lock().unwrap().asked, ["StopPodSandbox", "RemovePodSandbox"]);
    super::end_former(&file, None).await;
    assert_eq!(fake.lock().unwrap().asked.len(), 2, "it is asked no more");
}

#[tokio::test]
async fn what_was_written_for_a_former_runtime_goes_with_its_pods() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, fake) = start(folder.path(), Fake::default());
    let (file, endpoint) = (folder.path().join("runtime.json"), runtime.client.endpoint());
    let config =
        json!({"cni": {"binDir": folder.path().join("bin"), "confDir": folder.path().join("net.d")}});
    fake.lock().unwrap().config = config.to_string();
    let program = folder.path().join("holdfast");
    std::fs::write(&program, "").unwrap();
    super::keep(&file, &endpoint, "n1-x").unwrap();
    let offer = super::Offer { program, node: "n1-x".into(), book: file.clone() };
    for _ in 0..2 {
        offer.make(&runtime.client).await.unwrap();
    }
    let written = || {
        let of = |name: &str| std::fs::read_dir(folder.path().join(name)).unwrap().count();
        (of("bin"), of("net.d"))
    };
    assert_eq!(written(), (1, 1));
    super::end_former(&file, Some(&endpoint)).await;
    assert_eq!(written(), (1, 1), "it is this host's still");
    super::end_former(&file, None).await;
    assert_eq!(written(), (0, 0));
}

#[tokio::test]
async fn a_former_runtime_that_does_not_answer_is_not_forgotten_for_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake { sandboxes: vec![sandbox("sandbox0", PodSandboxState::Ready, 0)], ..Fake::default() };
    let (file, place) = (folder.path().join("runtime.json"), folder.path().join("other.sock"));
    let (socket, other) = (folder.path().join("runtime.sock"), format!("unix://{}", place.display()));
    let (former, next) =
        (format!("unix://{}", socket.display()).parse().unwrap(), other.parse::<cri::Endpoint>().unwrap());
    super::keep(&file, &former, "n1-x").unwrap();
    super::end_former(&file, Some(&next)).await;
    super::keep(&file, &next, "n1-x").unwrap();
    let (_runtime, fake) = start(folder.path(), fake);
    super::end_former(&file, Some(&next)).await;
    assert_eq!(fake.lock().unwrap().asked, ["StopPodSandbox", "RemovePodSandbox"]);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_hangs_is_not_waited_for_when_the_agent_begins() {
    let folder = tempfile::tempdir().unwrap();
    let (runtime, _fake) = start(folder.path(), Fake { hangs: "ListPodSandbox", ..Fake::default() });
    assert!(runtime.found().await.is_empty());
    // A pod of its own waits for it, and hears why.
    assert!(matches!(runtime.prepare("u", wanted(false)).await, Err(RunError::System(_))));
}

#[tokio::test]
async fn a_runtime_that_hangs_does_not_hold_up_who_asks_what_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let status = ContainerStatus { started_at: 5, ..ContainerStatus::default() };
    let containers = vec![there("made", 0, ContainerState::Running)];
    let fake = Fake { statuses: vec![status], containers, hangs: "ListContainerStats", ..Fake::default() };
    let (runtime, _fake) = start(folder.path(), fake);
    runtime.prepare("u", wanted(false)).await.unwrap();
    runtime.start(&life(0), program(), folder.path().join("logs/c")).await.unwrap();
    assert_eq!(runtime.lives.list().len(), 1);
    tokio::time::pause();
    let used = tokio::time::timeout(Duration::from_secs(6), runtime.usage());
    assert_eq!(used.await.expect("it says nothing").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_answers_late_loses_nothing_of_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Fake {
        sandboxes: vec![sandbox("sandbox0", PodSandboxState::Ready, 0)],
        containers: vec![there("made", 3, ContainerState::Running)],
        statuses: vec![ContainerStatus { started_at: 5, ..ContainerStatus::default() }],
        hangs: "ListPodSandbox",
        ..Fake::default()
    };
    let (runtime, fake) = start(folder.path(), fake);
    assert!(runtime.found().await.is_empty() && runtime.may_have("anybody") && runtime.is_awaited());
    tokio::time::resume();
    fake.lock().unwrap().hangs = "";
    // What is there isn't ended for a pod that is prepared before anybody has looked.
    assert!(matches!(runtime.prepare("u", wanted(false)).await, Err(RunError::System(_))));
    let found = tokio::time::timeout(PATIENCE, runtime.found_late()).await.unwrap();
    assert_eq!((found.len(), &found[0].which, found[0].exit), (1, &life(3), None));
    assert_eq!((runtime.sandboxes(), runtime.may_have("anybody")), (vec!["u".into()], false));
    assert!(!runtime.is_awaited());
    runtime.prepare("u", wanted(false)).await.unwrap();
    assert!(fake.lock().unwrap().asked.is_empty(), "nothing was ended, and nothing made");
}
