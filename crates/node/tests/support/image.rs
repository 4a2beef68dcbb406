//! An image of a few programs for the tests' containers.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use node::{Image, ImageError, Images, Present, PullSecret};
use serde_json::{Value, json};

use super::TestHost;

/// Where Debian's package `busybox-static` has it.
const BUSYBOX: &str = "/bin/busybox";

/// An image whose pull never ends.
pub const ENDLESS: &str = "endless";

/// Whether containers can be tried here: as root, with a busybox that needs no libraries. Says so if they can't.
pub fn can_contain() -> bool {
    if !super::is_root() {
        testing::skip("root", "only root runs containers");
        return false;
    }
    testing::has("busybox") && super::can_mount()
}

/// Makes the root of an image: busybox under all of its names, and two users.
pub fn make_root(root: &Path) {
    for folder in ["bin", "etc", "tmp", "run", "var", "proc", "srv/www"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("/run", root.join("var/run")).unwrap();
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    let names = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(names).unwrap().lines().filter(|name| *name != "busybox") {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    // Without a password: whom nothing holds back becomes root by `su`.
    let users = "root::0:0::/root:/bin/sh\nweb:x:33:34::/srv/www:/bin/sh\n";
    std::fs::write(root.join("etc/passwd"), users).unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nmail:x:8:web\n").unwrap();
    std::fs::copy(BUSYBOX, root.join("bin/busybox-root")).unwrap();
    std::fs::set_permissions(root.join("bin/busybox-root"), std::fs::Permissions::from_mode(0o4755)).unwrap();
}

/// The folder of an image: overlayfs takes no colons.
fn folder_name(image: &str) -> String {
    image.replace([':', '/'], "_")
}

/// Images as folders: each has one layer, `NAME`, and what its maker says of it in `NAME.json`.
#[derive(Debug)]
pub struct TestImages(pub PathBuf);

impl Images for TestImages {
    fn find(&self, name: &str) -> Result<Option<Arc<Image>>, ImageError> {
        if name.contains(' ') {
            return Err(ImageError::Name("invalid reference format".into()));
        }
        let name = &folder_name(name);
        let Ok(text) = std::fs::read_to_string(self.0.join(format!("{name}.json"))) else { return Ok(None) };
        let said: Value = serde_json::from_str(&text).unwrap();
        let list = |of: &str| serde_json::from_value(said[of].clone()).unwrap_or_default();
        let text = |of: &str| said[of].as_str().unwrap_or_default().to_owned();
        Ok(Some(Arc::new(Image {
            digest: format!("sha256:{name}"),
            id: format!("test/{name}@sha256:1"),
            layers: vec![self.0.join(name)],
            env: list("Env"),
            entrypoint: list("Entrypoint"),
            cmd: list("Cmd"),
            user: text("User"),
            working_dir: text("WorkingDir"),
            stop_signal: said["StopSignal"].as_str().map(str::to_owned),
            ..Image::default()
        })))
    }

    fn pull<'a>(
        &'a self,
        name: &'a str,
        secrets: Vec<PullSecret>,
    ) -> BoxFuture<'a, Result<Arc<Image>, ImageError>> {
        if name == ENDLESS {
            return std::future::pending().boxed();
        }
        ready(Err(ImageError::Other(format!("no registry, {} secrets", secrets.len())))).boxed()
    }

    fn folder(&self) -> PathBuf {
        self.0.clone()
    }

    fn list(&self) -> Vec<Present> {
        vec![Present { names: vec!["test/box:v1".into()], size: 7 }]
    }

    fn keep(&self, image: &Image, mark: &Path) -> Result<bool, ImageError> {
        std::fs::write(mark, &image.digest).unwrap();
        Ok(true)
    }

    fn clear(&self, _: Duration) -> Result<(), ImageError> {
        Ok(())
    }

    fn collect(&self, _: Duration) -> Result<Option<String>, ImageError> {
        Ok(Some("Failed to garbage collect required amount of images.".into()))
    }
}

impl TestHost {
    /// Starts a host that has the image `box`.
    pub fn with_image() -> TestHost {
        let host = TestHost::start();
        host.image("box", &json!({}));
        host
    }

    /// Brings an image to the host, with these settings.
    pub fn image(&self, name: &str, settings: &Value) {
        self.image_with(name, settings, |_| ());
    }

    /// As [`TestHost::image`], with more in its root.
    pub fn image_with(&self, name: &str, settings: &Value, add: impl FnOnce(&Path)) {
        let (folder, name) = (self.folder.path().join("images"), &folder_name(name));
        std::fs::create_dir_all(&folder).unwrap();
        make_root(&folder.join(name));
        add(&folder.join(name));
        std::fs::write(folder.join(format!("{name}.json")), settings.to_string()).unwrap();
    }

    /// Makes a pod with one container of the image `box`.
    pub fn contained(&self, name: &str, container: Value, spec: Value) -> String {
        let mut one = json!({"image": "box", "imagePullPolicy": "IfNotPresent"});
        super::merge(&mut one, &container);
        let mut whole = json!({"runtimeClassName": null, "restartPolicy": "Never"});
        super::merge(&mut whole, &spec);
        self.pod(name, one, whole)
    }

    /// Runs a script in a container until it ends, and answers what it printed.
    pub async fn script(&self, name: &str, script: &str, container: Value, spec: Value) -> String {
        let mut one = json!({"command": ["sh", "-c", script]});
        super::merge(&mut one, &container);
        self.contained(name, one, spec);
        let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let pod = self.until(name, "over", over).await;
        let printed = self.log(name, 0);
        assert_eq!(pod["status"]["phase"], "Succeeded", "{printed}{:#}", pod["status"]);
        printed
    }
}
