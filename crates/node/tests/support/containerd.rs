//! A containerd of a test's own, and a host with it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cri::{Client, Endpoint};
use futures::future::{BoxFuture, FutureExt};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use node::{Foreign, Image, ImageError, Images, Present, PullSecret};
use serde_json::json;

use super::image::{can_contain, make_root};
use super::network::{Own, on_threads_with};
use super::{PATIENCE, TestHost};

/// Debian's package `containernetworking-plugins` has it; containerd wants it for every sandbox.
const LOOPBACK: [&str; 2] = ["/usr/lib/cni/loopback", "/opt/cni/bin/loopback"];
/// Where containerd keeps sandboxes' network namespaces.
const NAMESPACES: &str = "/run/netns";
/// The image, which is the sandboxes' too.
pub const BOX: &str = "docker.io/library/box:v1";

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// A containerd of the test's own, among mounts of the test's own.
struct Containerd {
    folder: PathBuf,
    child: Child,
}

impl Containerd {
    fn start(folder: &Path, loopback: &Path) -> Self {
        let place = |name: &str| folder.join(name).display().to_string();
        // Where CNI's namespaces get their names: nothing of that is left on the machine.
        fs::create_dir_all(NAMESPACES).unwrap();
        mount(Some("tmpfs"), NAMESPACES, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        fs::create_dir_all(folder.join("bin")).unwrap();
        symlink(loopback, folder.join("bin/loopback")).unwrap();
        let config = format!(
            r#"
version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{BOX}"
# Where the machine's root may not lower it, as in a container.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{bin}"
conf_dir = "{conf}"
"#,
            root = place("root"),
            state = place("state"),
            socket = place("c.sock"),
            opt = place("opt"),
            bin = place("bin"),
            conf = place("net.d"),
        );
        fs::write(folder.join("config.toml"), config).unwrap();
        let log = fs::File::create(folder.join("containerd.log")).unwrap();
        let child = Command::new("containerd")
            .args(["--config", &place("config.toml")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Containerd { folder: folder.to_owned(), child }
    }

    fn client(&self) -> Client {
        Client::at(&self.endpoint())
    }

    fn endpoint(&self) -> Endpoint {
        format!("unix://{}", self.folder.join("c.sock").display()).parse().unwrap()
    }

    /// Brings the image, and waits until the runtime knows it.
    async fn import(&self) {
        let wait = async {
            while self.client().version().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{}", self.log()));
        let made = self.folder.join("image");
        make_root(&made.join("root"));
        let layer = made.join("layer.tar").display().to_string();
        run("tar", &["-C", &made.join("root").display().to_string(), "-cf", &layer, "."]);
        let digest = ring::digest::digest(&ring::digest::SHA256, &fs::read(&layer).unwrap());
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let config = json!({"architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["/bin/sh", "-c", "while :; do sleep 1000; done"], "Env": ["PATH=/bin", "FROM=image"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}});
        fs::write(made.join("config.json"), config.to_string()).unwrap();
        let manifest = json!([{"Config": "config.json", "RepoTags": [BOX], "Layers": ["layer.tar"]}]);
        fs::write(made.join("manifest.json"), manifest.to_string()).unwrap();
        let archive = self.folder.join("image.tar").display().to_string();
        let of = made.display().to_string();
        run("tar", &["-C", &of, "-cf", &archive, "manifest.json", "config.json", "layer.tar"]);
        let socket = self.folder.join("c.sock").display().to_string();
        run("ctr", &["-a", &socket, "-n", "k8s.io", "images", "import", "--snapshotter", "native", &archive]);
        let known = async {
            while self.client().image(BOX).await.ok().flatten().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, known).await.unwrap_or_else(|_| panic!("{}", self.log()));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("containerd.log")).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let tasks = self.folder.join("state/io.containerd.runtime.v2.task/k8s.io");
        // Shims, and what they hold where a test ended early: all that bears the folder's name.
        let name = self.folder.as_os_str().as_encoded_bytes().to_owned();
        let own = std::process::id().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let holds = |file: &str| {
                let text = fs::read(entry.path().join(file)).unwrap_or_default();
                text.windows(name.len()).any(|part| part == name)
            };
            if pid.to_string() != own && (holds("cmdline") || holds("mountinfo")) {
                // SAFETY: a system call on numbers; the process is of this test's own runtime.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
        remove_cgroups(&tasks);
        unmount_beneath(&self.folder);
    }
}

/// Removes the cgroups of what has a folder among containerd's tasks: a test that ended early leaves them.
fn remove_cgroups(tasks: &Path) {
    let ids: Vec<_> =
        fs::read_dir(tasks).into_iter().flatten().flatten().map(|one| one.file_name()).collect();
    let top = Path::new("/sys/fs/cgroup");
    let each = fs::read_dir(top).into_iter().flatten().flatten().map(|entry| entry.path());
    for of_all in each.chain([top.to_owned()]).map(|hierarchy| hierarchy.join("k8s.io")) {
        for one in ids.iter().map(|id| of_all.join(id)).filter(|one| one.exists()) {
            // What was killed is in it for a moment.
            let gone = (0..200).any(|_| {
                let is_gone = fs::remove_dir(&one).is_ok();
                if !is_gone {
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                is_gone
            });
            if !gone {
                eprintln!("{} stays", one.display());
            }
        }
        // Another's may be there.
        let _ = fs::remove_dir(of_all);
    }
}

/// Unmounts what is mounted beneath a folder, the last first.
fn unmount_beneath(folder: &Path) {
    let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let places = table.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    for place in places.filter(|place| place.starts_with(folder)) {
        let _ = umount2(place, MntFlags::MNT_DETACH);
    }
}

/// What is in the runtime; nothing is pulled.
#[derive(Debug)]
struct RuntimeImages(Client);

impl Images for RuntimeImages {
    fn find(&self, name: &str) -> Result<Option<Arc<Image>>, ImageError> {
        let found = tokio::runtime::Handle::current().block_on(self.0.image(name));
        let found = found.map_err(|failure| ImageError::Other(failure.to_string()))?;
        Ok(found.map(|image| {
            Arc::new(Image {
                digest: image.id.clone(),
                id: image.id,
                user: image.username,
                ..Image::default()
            })
        }))
    }

    fn pull<'a>(
        &'a self,
        name: &'a str,
        _: Vec<PullSecret>,
    ) -> BoxFuture<'a, Result<Arc<Image>, ImageError>> {
        async move {
            let pulled = self.0.pull_image(name, None).await;
            Err(ImageError::Other(pulled.err().map(|failure| failure.to_string()).unwrap_or_default()))
        }
        .boxed()
    }

    fn folder(&self) -> PathBuf {
        "/".into()
    }

    fn list(&self) -> Vec<Present> {
        Vec::new()
    }

    fn keep(&self, image: &Image, mark: &Path) -> Result<bool, ImageError> {
        fs::write(mark, &image.digest).unwrap();
        Ok(true)
    }

    fn clear(&self, _: Duration) -> Result<(), ImageError> {
        Ok(())
    }

    fn collect(&self, _: Duration) -> Result<Option<String>, ImageError> {
        Ok(None)
    }
}

/// Runs a test on threads of their own in a network namespace of their own, with a host and a containerd in it.
pub fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(TestHost, Client) -> F + Send + 'static) {
    let there = ["ip", "tar", "containerd", "ctr", "runc"];
    if !can_contain() || !there.into_iter().all(testing::has) {
        return;
    }
    let Some(loopback) = LOOPBACK.map(Path::new).into_iter().find(|path| path.exists()) else {
        return testing::skip("cni", "CNI's plugin loopback is not installed");
    };
    on_threads_with(Own::Mounts, move || async move {
        let folder = tempfile::tempdir().unwrap();
        let containerd = Containerd::start(folder.path(), loopback);
        containerd.import().await;
        let mut host = TestHost::with_networks().await;
        let images = Arc::new(RuntimeImages(containerd.client()));
        host.foreign = Some(Foreign { endpoint: containerd.endpoint(), images });
        host.switch_on();
        test(host, containerd.client()).await;
    });
}
