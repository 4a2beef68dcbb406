//! Pods as containers, by `kubectl`, of an image that the test makes of busybox: imported, and from Debian's registry.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use images::Digest;
use pki::{Authority, HostNames};
use serde_json::{Value, json};

use crate::harness::{Cluster, PATIENCE, text};
use crate::kubectl::{Kubectl, is_installed};

/// Where Debian's package `busybox-static` has it.
const BUSYBOX: &str = "/bin/busybox";
/// What the image does if its pod says nothing: it serves its pod's name at its pod's address.
const SERVE: &str = "mkdir -p /www; echo served by $HOSTNAME > /www/index.html; \
    address=$(sed -n \"s/\\t$HOSTNAME\\$//p\" /etc/hosts); echo up at $address; exec httpd -f -p $address:8080 -h /www";

/// Whether this machine runs containers, and has what the tests make images of; says so if it doesn't.
fn can_contain() -> bool {
    if !nix::unistd::geteuid().is_root() {
        testing::skip("root", "only root runs containers");
        return false;
    }
    is_installed() && testing::has("busybox") && testing::has("tar")
}

/// An image of one layer.
struct Made {
    layer: Vec<u8>,
    config: Vec<u8>,
}

impl Made {
    /// Makes it, in a folder of its own.
    fn make(dir: &Path) -> Self {
        let root = dir.join("root");
        for folder in ["bin", "etc", "tmp", "root"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        let names = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
        for name in String::from_utf8(names).unwrap().lines().filter(|name| *name != "busybox") {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/tmp:/bin/sh\n")
            .unwrap();
        std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n").unwrap();
        let layer = dir.join("layer.tar");
        tar(&layer, &root, &["."]);
        let layer = std::fs::read(layer).unwrap();
        let config = json!({"os": "linux", "config": {"Cmd": ["/bin/sh", "-c", SERVE], "Env": ["FROM=image"]},
            "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&layer).to_string()]}});
        Made { layer, config: config.to_string().into_bytes() }
    }

    /// Writes it as `docker save` does.
    fn save(&self, dir: &Path, name: &str) -> PathBuf {
        let (folder, file) = (dir.join("saved"), dir.join("saved.tar"));
        std::fs::create_dir_all(&folder).unwrap();
        let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]);
        std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
        std::fs::write(folder.join("config.json"), &self.config).unwrap();
        std::fs::write(folder.join("layer.tar"), &self.layer).unwrap();
        tar(&file, &folder, &["manifest.json", "config.json", "layer.tar"]);
        file
    }
}

fn tar(file: &Path, folder: &Path, what: &[&str]) {
    let mut command = Command::new("tar");
    command
        .args(["--owner=0", "--group=0", "--numeric-owner", "-C"])
        .arg(folder)
        .arg("-cf")
        .arg(file)
        .args(what);
    assert!(command.status().unwrap().success());
}

/// Runs `holdfast image` for a cluster; what it said, and whether it did it.
fn image(cluster: &Cluster, args: &[&str]) -> (bool, String) {
    let dir = cluster.folder().display().to_string();
    let output = cluster.holdfast(&[&["image"], args, &["--dir", &dir]].concat());
    (output.status.success(), text(&output))
}

#[tokio::test]
async fn pods_run_as_containers_of_an_image_that_was_imported() {
    if !can_contain() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let made = Made::make(temporary.path());
    let archive = made.save(temporary.path(), "registry.test/web:v1").display().to_string();
    let cluster = Cluster::start_with(temporary.path(), 2, "auto", &["--image", &archive]);
    cluster.wait_until_ready(2).await;
    let kubectl = Kubectl(&cluster, "kubectl");
    let (_, listed) = image(&cluster, &["ls"]);
    assert!(listed.contains("registry.test/web:v1") && listed.contains("n1,n2"), "{listed}");

    kubectl.says("get nodes -o jsonpath={.items[*].status.images[*].names}", &["registry.test/web:v1"]);

    kubectl.says("run web --image=registry.test/web:v1 --labels=app=web", &["pod/web created"]);
    kubectl.says("wait --for=condition=Ready pod/web --timeout=60s", &["condition met"]);
    kubectl.says_soon("logs web", "up at ");
    kubectl.says_soon("get --raw /api/v1/namespaces/default/pods/web:8080/proxy/", "served by web");
    // An Event is written beside what it tells of.
    kubectl.says_soon("describe pod web", "Container started");
    kubectl.says(
        "describe pod web",
        &["Container image \"registry.test/web:v1\" already present on machine", "Container started"],
    );
    kubectl.says(
        "get pod web -o jsonpath={.status.containerStatuses[0].imageID}",
        &["registry.test/web@sha256:"],
    );
    // It is where its image, its pod and its namespaces say, and nowhere else.
    kubectl.says("exec web -- cat /proc/1/comm /etc/hostname", &["httpd", "web"]);
    kubectl.says("exec web -- cat /var/run/secrets/kubernetes.io/serviceaccount/namespace", &["default"]);
    kubectl.says("exec web -- cat /etc/resolv.conf", &["search default.svc.cluster.local", "ndots:5"]);
    kubectl.says("exec web -- env", &["FROM=image", "KUBERNETES_SERVICE_HOST="]);
    kubectl.fails("exec web -- ls /work", &["No such file or directory"]);
    kubectl.says("expose pod web --name=front --port=80 --target-port=8080", &["exposed"]);
    kubectl.says_soon("get --raw /api/v1/namespaces/default/services/front:80/proxy/", "served by web");
    // The service by its name, from inside: containers ask the cluster's DNS.
    kubectl.says_soon("exec web -- wget -q -O - http://front", "served by web");

    let node = kubectl.says("get pod web -o jsonpath={.spec.nodeName}", &["n"]);
    let (removed, said) = image(&cluster, &["rm", "registry.test/web:v1", "--host", &node]);
    assert!(!removed && said.contains("registry.test/web:v1 is in use"), "{said}");
    kubectl.says("delete pod web --now", &["deleted"]);
    for host in ["n1", "n2"] {
        let (removed, said) = image(&cluster, &["rm", "registry.test/web:v1", "--host", host]);
        assert!(removed, "{said}");
    }
    kubectl.says("run gone --image=registry.test/web:v1 --image-pull-policy=Never", &["created"]);
    kubectl.says_soon("get pod gone", "ErrImageNeverPull");
    let (imported, said) = image(&cluster, &["import", &archive]);
    assert!(imported, "{said}");
    kubectl.says("wait --for=condition=Ready pod/gone --timeout=60s", &["condition met"]);
}

/// Serves its pod's name on all addresses at port 80, and to its pod alone at 81.
const SERVE_ALL: &str = "mkdir -p /www; echo served by $HOSTNAME > /www/index.html; httpd -p 127.0.0.1:81 -h /www; \
    exec httpd -f -p 80 -h /www";

/// The links of pods that a host has.
fn links_of_pods(cluster: &Cluster, host: &str) -> Option<usize> {
    let table = std::fs::read_to_string(format!("/proc/{}/net/dev", cluster.pid_of_host(host)?)).ok()?;
    Some(table.lines().filter(|line| line.trim_start().starts_with("pod")).count())
}

/// What is served at a port of a pod, by `kubectl port-forward`.
fn forwarded(kubectl: &Kubectl<'_>, pod: &str, port: u16) -> String {
    let mut command = Command::new(kubectl.1);
    command.args(["port-forward", pod, &format!(":{port}")]).env("KUBECONFIG", kubectl.0.kubeconfig());
    let mut forwarding = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(forwarding.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("127.0.0.1:")).unwrap();
    let here = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, here.parse().unwrap())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    forwarding.kill().unwrap();
    forwarding.wait().unwrap();
    answer
}

#[tokio::test]
async fn containers_have_networks_of_their_own() {
    if !can_contain() || !testing::has_namespaces() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let archive = Made::make(temporary.path()).save(temporary.path(), "registry.test/web:v1");
    let archive = archive.display().to_string();
    let cluster = Cluster::start_with(temporary.path(), 2, "netns", &["--image", &archive]);
    cluster.wait_until_ready(2).await;
    let kubectl = Kubectl(&cluster, "kubectl");
    let pod = |name: &str, node: &str, host_port: Option<u16>| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": {
            "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [{"name": "main",
                "image": "registry.test/web:v1", "command": ["sh", "-c", SERVE_ALL],
                "ports": [{"containerPort": 80, "hostPort": host_port}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1},
                "livenessProbe": {"tcpSocket": {"port": 80}}}]}})
    };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "front"},
        "spec": {"selector": {"app": "b"}, "ports": [{"port": 8000, "targetPort": 80}]}});
    let items = [pod("a", "n1", Some(8085)), pod("b", "n1", None), pod("c", "n2", None), service];
    let file = temporary.path().join("pods.json");
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).unwrap();
    kubectl.says(&format!("apply -f {}", file.display()), &["pod/c created"]);
    kubectl.says("wait --for=condition=Ready pod/a pod/b pod/c --timeout=60s", &["pod/c condition met"]);
    let address = |name: &str| {
        kubectl.says(&format!("get pod {name} -o jsonpath={{.status.podIPs[0].ip}}"), &["10.244."])
    };
    let (a, b, c) = (address("a"), address("b"), address("c"));
    let asks = |from: &str, what: &str, says: &str| {
        kubectl.says_soon(&format!("exec {from} -- wget -q -O - http://{what}"), says);
    };
    asks("a", &b, "served by b");
    asks("a", &c, "served by c");
    asks("c", &a, "served by a");
    asks("a", "front:8000", "served by b");
    asks("c", "front:8000", "served by b");
    kubectl.says_soon("get --raw /api/v1/namespaces/default/pods/c:80/proxy/", "served by c");
    // The host's port leads to the pod; the host's loopback, where it is open too, to nobody inside.
    asks("c", "10.73.0.1:8085", "served by a");
    kubectl.fails("exec a -- wget -q -O - http://127.0.0.1:8085", &["Connection refused"]);
    let answer = forwarded(&kubectl, "pod/a", 81);
    assert!(answer.contains("served by a"), "{answer}");

    cluster.signal_host("n1", libc::SIGKILL);
    asks("c", &a, "served by a");
    cluster.wait_until_ready(2).await;
    kubectl.says_soon("exec a -- wget -q -O - http://front:8000", "served by b");
    asks("c", "10.73.0.1:8085", "served by a");
    kubectl.says("get pod a -o jsonpath={.status.containerStatuses[0].restartCount}", &["0"]);
    assert_eq!(links_of_pods(&cluster, "n1"), Some(2));
    kubectl.says("delete pod a b --now", &["deleted"]);
    assert_eq!(links_of_pods(&cluster, "n1"), Some(0));
}

/// A registry with TLS and a password; it ends with this.
struct Registry {
    process: Child,
    folder: tempfile::TempDir,
    host: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `user` with the password `password`, as bcrypt.
const HTPASSWD: &str = "user:$2b$04$Ox2TVzu2CBJQ7em4HdsCXOYTfRV9wP30ihnyNoK92zQ4.fhO.L5FS\n";

impl Registry {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address: IpAddr = Ipv4Addr::LOCALHOST.into();
        let authority = Authority::create("registry", SystemTime::now()).unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority.certificate_pem()).unwrap();
        let names = HostNames {
            name: "registry".into(),
            address,
            virtual_address: address,
            first_service_address: address,
        };
        authority.host_identity(&names, SystemTime::now()).unwrap().save(folder.path(), "it").unwrap();
        std::fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        loop {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let host = format!("127.0.0.1:{port}");
            let config = json!({"version": "0.1", "log": {"level": "error"},
                "storage": {"filesystem": {"rootdirectory": at("storage")}},
                "http": {"addr": host, "tls": {"certificate": at("it.crt"), "key": at("it.key")}},
                "auth": {"htpasswd": {"realm": "it", "path": at("htpasswd")}}});
            // JSON is YAML.
            std::fs::write(folder.path().join("config.yml"), config.to_string()).unwrap();
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(folder.path().join("config.yml"));
            let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // Another may have taken the port meanwhile: then it ends.
            while process.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Registry { process, folder, host };
                }
                std::thread::yield_now();
            }
        }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Sends a body by curl; gives where the registry has it.
    fn send(&self, method: &str, url: &str, media_type: &str, body: &[u8]) -> String {
        let file = self.folder.path().join("body");
        std::fs::write(&file, body).unwrap();
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--show-error", "--fail", "--user", "user:password", "--cacert"])
            .arg(self.ca());
        command.args(["-X", method, "-o", "/dev/null", "-w", "%header{location}"]);
        command.args(["-H", &format!("Content-Type: {media_type}")]);
        command.args(["--data-binary", &format!("@{}", file.display())]);
        let out = command.arg(url).output().unwrap();
        assert!(out.status.success(), "{method} {url}: {}", text(&out));
        String::from_utf8(out.stdout).unwrap()
    }

    fn push(&self, made: &Made, repository: &str, tag: &str) {
        let octets = "application/octet-stream";
        let url = format!("https://{}/v2/{repository}", self.host);
        let blob = |media_type: &str, content: &[u8]| -> Value {
            let digest = Digest::sha256(content).to_string();
            let place = self.send("POST", &format!("{url}/blobs/uploads/"), octets, b"");
            self.send("PUT", &format!("{place}&digest={digest}"), octets, content);
            json!({"mediaType": media_type, "digest": digest, "size": content.len()})
        };
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind,
            "config": blob("application/vnd.oci.image.config.v1+json", &made.config),
            "layers": [blob("application/vnd.oci.image.layer.v1.tar", &made.layer)]});
        self.send("PUT", &format!("{url}/manifests/{tag}"), kind, manifest.to_string().as_bytes());
    }
}

/// On loopback: hosts in namespaces have no way to a registry outside.
#[tokio::test]
async fn images_come_from_a_registry_for_whom_has_its_secret() {
    if !can_contain() || !testing::has("docker-registry") || !testing::has("curl") {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let registry = Registry::start();
    registry.push(&Made::make(temporary.path()), "team/web", "v1");
    let registries = temporary.path().join("registries.yaml");
    std::fs::write(&registries, json!({(registry.host.clone()): {"ca": registry.ca()}}).to_string()).unwrap();
    let registries = registries.display().to_string();
    let cluster = Cluster::start_with(temporary.path(), 1, "loopback", &["--registries", &registries]);
    cluster.wait_until_ready(1).await;
    let kubectl = Kubectl(&cluster, "kubectl");
    let image = format!("{}/team/web:v1", registry.host);

    kubectl.says(&format!("run stranger --image={image}"), &["created"]);
    kubectl.says_soon("get pod stranger", "ImagePullBackOff");
    kubectl.says_soon("describe pod stranger", "Error: ImagePullBackOff");
    kubectl.says(
        "describe pod stranger",
        &[
            &format!("Failed to pull image \"{image}\""),
            "pull access denied",
            "Error: ErrImagePull",
            &format!("Back-off pulling image \"{image}\""),
            "Error: ImagePullBackOff",
        ],
    );
    kubectl.says("delete pod stranger --now", &["deleted"]);
    kubectl.says(
        &format!("run missing --image={}/team/other:v1 --image-pull-policy=Always", registry.host),
        &["created"],
    );

    let open = "create secret docker-registry open --docker-username=user --docker-password=password --docker-server=";
    kubectl.says(&format!("{open}{}", registry.host), &["created"]);
    kubectl
        .says("patch serviceaccount default -p {\"imagePullSecrets\":[{\"name\":\"open\"}]}", &["patched"]);
    kubectl.says(&format!("run web --image={image}"), &["created"]);
    kubectl.says("wait --for=condition=Ready pod/web --timeout=60s", &["condition met"]);
    kubectl.says_soon("describe pod web", "Image size: ");
    kubectl.says(
        "describe pod web",
        &[
            &format!("Pulling image \"{image}\""),
            &format!("Successfully pulled image \"{image}\" in "),
            "Image size: ",
        ],
    );
    kubectl.says_soon("get --raw /api/v1/namespaces/default/pods/web:8080/proxy/", "served by web");
    kubectl.says_soon("get pod missing", "ImagePullBackOff");
}
