//! What a runtime is asked, one call a connection.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use grpc::{Code, Status, call_unix};
use prost::Message;

use crate::messages::{
    AttachRequest, AttachResponse, AuthConfig, Container, ContainerConfig, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatus, ContainerStatusRequest, ContainerStatusResponse,
    CreateContainerRequest, CreateContainerResponse, Done, ExecRequest, ExecResponse, ExecSyncRequest,
    ExecSyncResponse, FilesystemUsage, Image, ImageFsInfoRequest, ImageFsInfoResponse, ImageSpec,
    ImageStatusRequest, ImageStatusResponse, LinuxContainerResources, ListContainerStatsRequest,
    ListContainerStatsResponse, ListContainersRequest, ListContainersResponse, ListImagesRequest,
    ListImagesResponse, ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxConfig,
    PodSandboxFilter, PodSandboxStatusRequest, PodSandboxStatusResponse, PullImageRequest, PullImageResponse,
    RemoveContainerRequest, RemoveImageRequest, RemovePodSandboxRequest, ReopenContainerLogRequest,
    RunPodSandboxRequest, RunPodSandboxResponse, RuntimeConfigRequest, RuntimeConfigResponse,
    StartContainerRequest, StatusRequest, StatusResponse, StopContainerRequest, StopPodSandboxRequest, Texts,
    UpdateContainerResourcesRequest, VersionRequest, VersionResponse,
};

/// How long a call may take that changes or tells something (the kubelet's `runtimeRequestTimeout`).
const PATIENCE: Duration = Duration::from_secs(2 * 60);
/// Likewise one that sets up or takes down a whole network (the kubelet gives it twice as much).
const SANDBOX: Duration = Duration::from_secs(4 * 60);
/// How long bringing an image may take at all: a registry that sends nothing is the runtime's to notice
/// (containerd's `image_pull_progress_timeout`).
const PULL: Duration = Duration::from_secs(60 * 60);
/// The kubelet's own limit of an answer (`maxMsgSize`).
const LONGEST_ANSWER: usize = 16 << 20;

/// Why a call did not do what it was asked, in grpc-go's words, as people know them from Kubernetes' events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {:?} desc = {}", .0.code, .0.message)]
pub struct Failure(pub Status);

impl Failure {
    /// Whether what was asked about isn't there.
    pub fn is_missing(&self) -> bool {
        self.0.code == Code::NotFound
    }

    /// Whether the runtime doesn't know such calls.
    pub fn is_unsupported(&self) -> bool {
        self.0.code == Code::Unimplemented
    }

    /// Whether the runtime may still be at work for the call, or never heard of it.
    pub fn is_unknown(&self) -> bool {
        matches!(self.0.code, Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled)
    }
}

/// Where a runtime listens, as people write it: `unix:///run/containerd/containerd.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

/// A text that names no place where a runtime could listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no runtime's address: write it like unix:///run/containerd/containerd.sock")]
pub struct WrongEndpoint(String);

impl FromStr for Endpoint {
    type Err = WrongEndpoint;

    fn from_str(text: &str) -> Result<Self, WrongEndpoint> {
        let path = text.strip_prefix("unix://").map(Path::new);
        let path = path.filter(|path| path.is_absolute() && path.file_name().is_some());
        path.map(|path| Endpoint(path.to_owned())).ok_or_else(|| WrongEndpoint(text.to_owned()))
    }
}

impl Endpoint {
    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.0
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

/// A runtime that listens at a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    socket: PathBuf,
    /// How long any call may take.
    longest: Duration,
}

fn image_spec(image: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: image.to_owned(), ..ImageSpec::default() })
}

impl Client {
    /// The runtime at an address.
    pub fn at(endpoint: &Endpoint) -> Self {
        Client { socket: endpoint.0.clone(), longest: Duration::MAX }
    }

    /// The same runtime, for who can't wait: no call may take longer than `limit`, whatever it asks for.
    pub fn within(&self, limit: Duration) -> Self {
        Client { socket: self.socket.clone(), longest: limit }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint(self.socket.clone())
    }

    async fn runtime<A: Message + Default>(
        &self,
        method: &str,
        question: &impl Message,
        patience: Duration,
    ) -> Result<A, Failure> {
        let (method, patience) = (format!("/runtime.v1.RuntimeService/{method}"), patience.min(self.longest));
        call_unix(&self.socket, &method, question, patience, LONGEST_ANSWER).await.map_err(Failure)
    }

    async fn images<A: Message + Default>(
        &self,
        method: &str,
        question: &impl Message,
        patience: Duration,
    ) -> Result<A, Failure> {
        let (method, patience) = (format!("/runtime.v1.ImageService/{method}"), patience.min(self.longest));
        call_unix(&self.socket, &method, question, patience, LONGEST_ANSWER).await.map_err(Failure)
    }

    /// What it is.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn version(&self) -> Result<VersionResponse, Failure> {
        self.runtime("Version", &VersionRequest { version: "0.1.0".into() }, PATIENCE).await
    }

    /// Whether it is ready, and what its makers want to tell of its settings.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn status(&self) -> Result<StatusResponse, Failure> {
        self.runtime("Status", &StatusRequest { verbose: true }, PATIENCE).await
    }

    /// How it makes cgroups. Older ones don't know the question ([`Failure::is_unsupported`]).
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn runtime_config(&self) -> Result<RuntimeConfigResponse, Failure> {
        self.runtime("RuntimeConfig", &RuntimeConfigRequest {}, PATIENCE).await
    }

    /// Makes a pod's sandbox, by the handler of that name, and answers what it is called.
    ///
    /// # Errors
    /// [`Failure`]. One that is unknown may make the sandbox all the same.
    pub async fn run_pod_sandbox(
        &self,
        config: PodSandboxConfig,
        handler: String,
    ) -> Result<String, Failure> {
        let question = RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
        let answer: RunPodSandboxResponse = self.runtime("RunPodSandbox", &question, SANDBOX).await?;
        Ok(answer.pod_sandbox_id)
    }

    /// Ends all that runs in a sandbox. Fine if nothing does.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<(), Failure> {
        let question = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone(self.runtime::<Done>("StopPodSandbox", &question, SANDBOX).await)
    }

    /// Removes a sandbox with its containers. Fine if it isn't there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<(), Failure> {
        let question = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone(self.runtime::<Done>("RemovePodSandbox", &question, PATIENCE).await)
    }

    /// How a sandbox is, and what its makers want to tell of it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse, Failure> {
        let question = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        self.runtime("PodSandboxStatus", &question, PATIENCE).await
    }

    /// The sandboxes with these labels.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn pod_sandboxes(&self, labels: Texts) -> Result<Vec<PodSandbox>, Failure> {
        let filter = PodSandboxFilter { label_selector: labels, ..PodSandboxFilter::default() };
        let question = ListPodSandboxRequest { filter: Some(filter) };
        let answer: ListPodSandboxResponse = self.runtime("ListPodSandbox", &question, PATIENCE).await?;
        Ok(answer.items)
    }

    /// Makes a container in a sandbox, and answers what it is called.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String, Failure> {
        let question = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let answer: CreateContainerResponse = self.runtime("CreateContainer", &question, PATIENCE).await?;
        Ok(answer.container_id)
    }

    /// Starts a container that was made.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn start_container(&self, id: &str) -> Result<(), Failure> {
        let question = StartContainerRequest { container_id: id.to_owned() };
        self.runtime::<Done>("StartContainer", &question, PATIENCE).await.map(drop)
    }

    /// Asks a container to end, and kills it once `grace` is over; with none of it at once. Waits for its end, but no longer than
    /// `patience`. Fine if it isn't there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn stop_container(&self, id: &str, grace: Duration, patience: Duration) -> Result<(), Failure> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let question = StopContainerRequest { container_id: id.to_owned(), timeout };
        gone(self.runtime::<Done>("StopContainer", &question, patience).await)
    }

    /// Removes a container. Fine if it isn't there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn remove_container(&self, id: &str) -> Result<(), Failure> {
        let question = RemoveContainerRequest { container_id: id.to_owned() };
        gone(self.runtime::<Done>("RemoveContainer", &question, PATIENCE).await)
    }

    /// The containers with these labels; all if there are none.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn containers(&self, labels: Texts) -> Result<Vec<Container>, Failure> {
        let filter = ContainerFilter { label_selector: labels, ..ContainerFilter::default() };
        let question = ListContainersRequest { filter: Some(filter) };
        let answer: ListContainersResponse = self.runtime("ListContainers", &question, PATIENCE).await?;
        Ok(answer.containers)
    }

    /// How a container is.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn container_status(&self, id: &str) -> Result<ContainerStatus, Failure> {
        let question = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer: ContainerStatusResponse = self.runtime("ContainerStatus", &question, PATIENCE).await?;
        let missing = || Failure(Status::new(Code::Internal, "the runtime answered no status"));
        answer.status.ok_or_else(missing)
    }

    /// Changes what a container may use.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn update_container(
        &self,
        id: &str,
        resources: LinuxContainerResources,
    ) -> Result<(), Failure> {
        let question =
            UpdateContainerResourcesRequest { container_id: id.to_owned(), linux: Some(resources) };
        self.runtime::<Done>("UpdateContainerResources", &question, PATIENCE).await.map(drop)
    }

    /// Has a container's log begin a new file: the old one was renamed.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn reopen_log(&self, id: &str) -> Result<(), Failure> {
        let question = ReopenContainerLogRequest { container_id: id.to_owned() };
        self.runtime::<Done>("ReopenContainerLog", &question, PATIENCE).await.map(drop)
    }

    /// Runs a command beside a container until it ends, and answers all that it printed. One that takes longer than `limit` is
    /// killed, and so is one that nobody waits for any more.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        limit: Duration,
    ) -> Result<ExecSyncResponse, Failure> {
        let timeout = i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX);
        let question = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        self.runtime("ExecSync", &question, limit.saturating_add(PATIENCE)).await
    }

    /// Where a command beside a container can be run once, by a client that connects there soon.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn exec(&self, question: &ExecRequest) -> Result<String, Failure> {
        let answer: ExecResponse = self.runtime("Exec", question, PATIENCE).await?;
        Ok(answer.url)
    }

    /// Likewise a container's own streams.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn attach(&self, question: &AttachRequest) -> Result<String, Failure> {
        let answer: AttachResponse = self.runtime("Attach", question, PATIENCE).await?;
        Ok(answer.url)
    }

    /// What the containers with these labels use.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn stats(&self, labels: Texts) -> Result<Vec<ContainerStats>, Failure> {
        let filter = ContainerStatsFilter { label_selector: labels, ..ContainerStatsFilter::default() };
        let question = ListContainerStatsRequest { filter: Some(filter) };
        let answer: ListContainerStatsResponse =
            self.runtime("ListContainerStats", &question, PATIENCE).await?;
        Ok(answer.stats)
    }

    /// Brings an image from its registry, and answers what it is called here.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Result<String, Failure> {
        let question = PullImageRequest { image: image_spec(image), auth };
        let answer: PullImageResponse = self.images("PullImage", &question, PULL).await?;
        Ok(answer.image_ref)
    }

    /// An image that is there; none if it isn't.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn image(&self, image: &str) -> Result<Option<Image>, Failure> {
        Ok(self.image_and_info(image).await?.image)
    }

    /// Likewise, with what the runtime's makers want to tell of it.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn image_and_info(&self, image: &str) -> Result<ImageStatusResponse, Failure> {
        let question = ImageStatusRequest { image: image_spec(image), verbose: true };
        self.images("ImageStatus", &question, PATIENCE).await
    }

    /// All images that are there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn all_images(&self) -> Result<Vec<Image>, Failure> {
        let answer: ListImagesResponse = self.images("ListImages", &ListImagesRequest {}, PATIENCE).await?;
        Ok(answer.images)
    }

    /// Removes an image. Fine if it isn't there.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn remove_image(&self, image: &str) -> Result<(), Failure> {
        let question = RemoveImageRequest { image: image_spec(image) };
        gone(self.images::<Done>("RemoveImage", &question, PATIENCE).await)
    }

    /// The file systems that images lie on.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn image_file_systems(&self) -> Result<Vec<FilesystemUsage>, Failure> {
        let answer: ImageFsInfoResponse =
            self.images("ImageFsInfo", &ImageFsInfoRequest {}, PATIENCE).await?;
        Ok(answer.image_filesystems)
    }
}

fn gone(done: Result<Done, Failure>) -> Result<(), Failure> {
    match done {
        Err(failure) if !failure.is_missing() => Err(failure),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::KeyValue;

    #[test]
    fn a_runtime_is_named_by_its_socket() {
        let endpoint: Endpoint = "unix:///run/containerd/containerd.sock".parse().unwrap();
        assert_eq!(endpoint.to_string(), "unix:///run/containerd/containerd.sock");
        for wrong in [
            "",
            "unix://",
            "unix:///",
            "unix://run/x.sock",
            "/run/x.sock",
            "tcp://127.0.0.1:1",
            "unix:///a/..",
        ] {
            let refused = wrong.parse::<Endpoint>().unwrap_err();
            assert!(refused.to_string().contains("write it like unix:///run"), "{wrong}");
        }
    }

    #[test]
    fn what_is_secret_is_not_shown() {
        let auth = AuthConfig { username: "me".into(), password: "hidden".into(), ..AuthConfig::default() };
        let question = PullImageRequest { image: image_spec("box"), auth: Some(auth) };
        assert!(!format!("{question:?}").contains("hidden"), "{question:?}");
        let variable = KeyValue { key: "KEY".into(), value: "hidden".into() };
        let container = ContainerConfig { envs: vec![variable], ..ContainerConfig::default() };
        let shown = format!("{container:?}");
        assert!(shown.contains("KEY") && !shown.contains("hidden"), "{shown}");
    }
}
