//! Runtimes that answer, fail, hang, lie and go.
#![allow(clippy::unwrap_used)] // A test that can't go on ends.

#[path = "../../csi/tests/support/server.rs"]
mod server;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cri::messages::{
    CgroupDriver, ContainerStats, ExecSyncRequest, ExecSyncResponse, IdMapping, Image, ImageStatusResponse,
    LinuxRuntimeConfiguration, ListContainerStatsResponse, ListImagesResponse, Mount, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, RunPodSandboxRequest, RunPodSandboxResponse,
    RuntimeConfigResponse, RuntimeHandler, RuntimeHandlerFeatures, StatusResponse, Texts, UserNamespace,
};
use cri::{Client, Endpoint};
use grpc::{Code, Status};
use prost::Message;
use server::{Answer, serve};

fn client(socket: &Path) -> Client {
    Client::at(&format!("unix://{}", socket.display()).parse::<Endpoint>().unwrap())
}

/// A runtime that answers everything alike, and remembers what it was asked last.
fn runtime(socket: &Path, answer: Answer) -> Arc<Mutex<(String, Bytes)>> {
    let asked = Arc::new(Mutex::default());
    let last: Arc<Mutex<(String, Bytes)>> = asked.clone();
    serve(socket, move |path, question| {
        *last.lock().unwrap() = (path, question);
        std::future::ready(answer.clone())
    });
    asked
}

#[tokio::test]
async fn a_runtime_is_asked_in_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("made.sock");
    let asked = runtime(&socket, Ok(RunPodSandboxResponse { pod_sandbox_id: "box".into() }.encode_to_vec()));
    let metadata =
        PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "d".into(), attempt: 3 };
    let labels = Texts::from([("a".to_owned(), "b".to_owned())]);
    let config = PodSandboxConfig { metadata: Some(metadata), labels, ..PodSandboxConfig::default() };
    let made = client(&socket).run_pod_sandbox(config.clone(), "kata".into()).await;
    assert_eq!(made.unwrap(), "box");
    let (path, question) = asked.lock().unwrap().clone();
    assert_eq!(path, "/runtime.v1.RuntimeService/RunPodSandbox");
    let wanted = RunPodSandboxRequest { config: Some(config), runtime_handler: "kata".into() };
    assert_eq!(RunPodSandboxRequest::decode(question).unwrap(), wanted);

    let socket = folder.path().join("exec.sock");
    let printed = ExecSyncResponse { stdout: b"hello".to_vec(), stderr: Vec::new(), exit_code: 7 };
    let asked = runtime(&socket, Ok(printed.encode_to_vec()));
    let answer = client(&socket).exec_sync("c", vec!["x".into()], Duration::from_millis(10)).await;
    assert_eq!(answer.unwrap(), printed);
    let question = ExecSyncRequest::decode(asked.lock().unwrap().1.clone()).unwrap();
    assert_eq!(question.timeout, 1, "a limit of nothing would be none");
}

/// As they stand in k8s.io/cri-api's `api.proto`: a number that is wrong on both sides would be seen by no other test.
#[test]
fn messages_lie_on_the_wire_as_the_published_ones() {
    let namespaces = NamespaceOption {
        network: NamespaceMode::Node as i32,
        pid: NamespaceMode::Target as i32,
        ipc: NamespaceMode::Pod as i32,
        target_id: "x".into(),
        userns_options: None,
    };
    assert_eq!(namespaces.encode_to_vec(), [0x08, 2, 0x10, 3, 0x22, 1, b'x']);
    let ids = IdMapping { host_id: 9, container_id: 1, length: 8 };
    let mode = NamespaceMode::Pod as i32;
    let users = UserNamespace { mode, uids: vec![ids.clone()], gids: vec![ids.clone()] };
    let of_users = NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() };
    let encoded = [0x2a, 16, 0x12, 6, 8, 9, 16, 1, 24, 8, 0x1a, 6, 8, 9, 16, 1, 24, 8];
    assert_eq!(of_users.encode_to_vec(), encoded);
    let mapped = Mount { uid_mappings: vec![ids.clone()], gid_mappings: vec![ids], ..Mount::default() };
    assert_eq!(mapped.encode_to_vec(), [0x32, 6, 8, 9, 16, 1, 24, 8, 0x3a, 6, 8, 9, 16, 1, 24, 8]);
    let features = Some(RuntimeHandlerFeatures { user_namespaces: true });
    let runtime_handlers = vec![RuntimeHandler { name: "r".into(), features }];
    let status = StatusResponse { runtime_handlers, ..StatusResponse::default() };
    assert_eq!(status.encode_to_vec(), [0x1a, 7, 0x0a, 1, b'r', 0x12, 2, 0x10, 1]);
    let linux = Some(LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs as i32 });
    assert_eq!(RuntimeConfigResponse { linux }.encode_to_vec(), [0x0a, 2, 8, 1]);
    let sandbox =
        PodSandboxConfig { hostname: "h".into(), log_directory: "l".into(), ..PodSandboxConfig::default() };
    assert_eq!(sandbox.encode_to_vec(), [0x12, 1, b'h', 0x1a, 1, b'l']);
}

#[tokio::test]
async fn a_runtime_that_fails_is_absent_or_lies_is_a_reason_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let absent = client(&folder.path().join("absent.sock")).version().await.unwrap_err();
    assert!(
        absent.to_string().starts_with("rpc error: code = Unavailable desc = connection error"),
        "{absent}"
    );
    assert!(absent.is_unknown());

    let socket = folder.path().join("fails.sock");
    let _asked = runtime(&socket, Err(Status::new(Code::NotFound, "no such thing")));
    let runtime_of = client(&socket);
    assert!(runtime_of.container_status("c").await.unwrap_err().is_missing());
    // What isn't there needs no end.
    runtime_of.remove_pod_sandbox("s").await.unwrap();
    runtime_of.stop_container("c", Duration::ZERO, Duration::from_secs(60)).await.unwrap();

    // Longer than any answer is, and no message at all.
    let image = Image { id: "x".repeat(17 << 20), ..Image::default() };
    for (n, (answer, code)) in [
        (ListImagesResponse { images: vec![image] }.encode_to_vec(), Code::ResourceExhausted),
        (vec![0x0a, 0xff, 0xff, 0xff], Code::Internal),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = folder.path().join(format!("lies{n}.sock"));
        let _asked = runtime(&socket, Ok(answer));
        assert_eq!(client(&socket).all_images().await.unwrap_err().0.code, code);
    }

    // Fields that are missing, and fields that nobody knows.
    let socket = folder.path().join("odd.sock");
    let mut answer = ListContainerStatsResponse { stats: vec![ContainerStats::default()] }.encode_to_vec();
    answer.extend([0xfa, 0x07, 2, b'h', b'i']);
    let _asked = runtime(&socket, Ok(answer));
    assert_eq!(client(&socket).stats(Texts::new()).await.unwrap(), [ContainerStats::default()]);
    let socket = folder.path().join("empty.sock");
    let _asked = runtime(&socket, Ok(ImageStatusResponse::default().encode_to_vec()));
    assert_eq!(client(&socket).image("none").await.unwrap(), None);
    assert!(client(&socket).container_status("c").await.is_err(), "no status is none");
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_hangs_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("hangs.sock");
    serve(&socket, |_, _| std::future::pending());
    let hangs = client(&socket).version().await.unwrap_err();
    assert_eq!(hangs.0.code, Code::DeadlineExceeded);
    let hurried = client(&socket).within(Duration::from_secs(5));
    let pull = tokio::time::timeout(Duration::from_secs(6), hurried.pull_image("box", None)).await;
    assert!(pull.expect("it may take an hour else").unwrap_err().is_unknown());
}
