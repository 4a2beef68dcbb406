//! Debian's `docker-registry`, with TLS and passwords: what our own pretend registry may have misunderstood, too.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use images::{Credentials, Error, Keyring, Options, Puller, Reference, Registries, Settings, Store};
use serde_json::json;

use crate::made::{gzip, layer, made};
use crate::registry::patience;

/// `user` with the password `password`, as bcrypt.
const HTPASSWD: &str = "user:$2b$04$Ox2TVzu2CBJQ7em4HdsCXOYTfRV9wP30ihnyNoK92zQ4.fhO.L5FS\n";

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts it on a free port.
fn start(dir: &Path) -> (Process, u16) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(dir.join("htpasswd"), HTPASSWD).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = json!({"version": "0.1", "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": at("storage")}},
            "http": {"addr": format!("127.0.0.1:{port}"), "tls": {"certificate": at("cert.pem"), "key": at("key.pem")}},
            "auth": {"htpasswd": {"realm": "it", "path": at("htpasswd")}}});
        // JSON is YAML.
        fs::write(dir.join("config.yml"), config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process(command.spawn().unwrap());
        // Another may have taken the port meanwhile: then it ends.
        while process.0.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (process, port);
            }
            std::thread::yield_now();
        }
    }
}

/// Sends with curl; gives what it writes.
fn curl(dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--user", "user:password", "--cacert"]);
    let out = command.arg(dir.join("cert.pem")).args(arguments).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test]
async fn images_come_from_debian_s_registry() {
    if !testing::has("docker-registry") || !testing::has("curl") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (_process, port) = start(dir.path());
    let host = format!("127.0.0.1:{port}");
    let image = made(&[layer(&[("bin/sh", b"shell")]), layer(&[("etc/name", b"real")])]);
    let (blobs, descriptor) = image.blobs(gzip);
    let file = dir.path().join("blob");
    let data = format!("@{}", file.display());
    for (digest, content) in &blobs {
        fs::write(&file, content).unwrap();
        if descriptor["digest"] == digest.as_str() {
            let media_type = format!("Content-Type: {}", descriptor["mediaType"].as_str().unwrap());
            let url = format!("https://{host}/v2/a/b/manifests/v1");
            curl(dir.path(), &["-X", "PUT", "-H", &media_type, "--data-binary", &data, &url]);
            continue;
        }
        let url = format!("https://{host}/v2/a/b/blobs/uploads/");
        let place = curl(dir.path(), &["-X", "POST", "-o", "/dev/null", "-w", "%header{location}", &url]);
        let place = format!("{place}&digest={digest}");
        // As a form, which it is for curl, it would be read for what follows the question mark.
        let octets = "Content-Type: application/octet-stream";
        curl(dir.path(), &["-X", "PUT", "-H", octets, "--data-binary", &data, &place]);
    }
    let name = Reference::parse(&format!("{host}/a/b:v1")).unwrap();
    let mut keyring = Keyring::default();
    let auth = json!({"auths": {(format!("https://{host}/v2/")): {"auth": "dXNlcjpwYXNzd29yZA=="}}});
    keyring.add_docker_config_json(auth.to_string().as_bytes()).unwrap();
    let mut stranger = Keyring::default();
    stranger.add(&host, Credentials { user: "user".into(), password: "wrong".into() });
    let ca = json!({host.clone(): {"ca": dir.path().join("cert.pem")}});
    let any = json!({host.clone(): {"skipVerify": true}});
    let unknown = json!({host.clone(): {}});
    let missing = format!("{host}/a/b:v2");
    for (registries, name, keyring, why) in [
        (&ca, &name, &keyring, None),
        (&any, &name, &keyring, None),
        (&unknown, &name, &keyring, Some("certificate")),
        (&ca, &name, &stranger, Some("pull access denied")),
        (&ca, &name, &Keyring::default(), Some("pull access denied")),
        (
            &ca,
            &Reference::parse(&missing).unwrap(),
            &keyring,
            Some("not found: manifest_unknown: manifest unknown"),
        ),
    ] {
        let store = Store::open_with(&dir.path().join("store"), Options::default()).unwrap();
        let registries: Registries = serde_json::from_value(registries.clone()).unwrap();
        let puller = Puller::new(store.clone(), Settings { registries, patience: patience() }).unwrap();
        match (puller.pull(name, keyring).await, why) {
            (Ok(image), None) => {
                let text = fs::read_to_string(image.layers[1].join("etc/name")).unwrap();
                assert_eq!(
                    (text.as_str(), image.digest.as_str()),
                    ("real", descriptor["digest"].as_str().unwrap())
                );
                store.remove(&name.to_string(), &|| Ok(Default::default())).unwrap();
            }
            (Err(error), Some(why)) => {
                assert!(error.to_string().contains(why), "{error}");
                let is_unreachable = matches!(*error, Error::Unreachable { .. });
                assert_eq!(is_unreachable, why == "certificate", "{error}");
            }
            (done, why) => panic!("{done:?} {why:?}"),
        }
    }
}
