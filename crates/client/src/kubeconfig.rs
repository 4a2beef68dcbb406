//! Where the API server is and who asks: the kubeconfig file of `kubectl`, as far as a client needs it.

use crate::Error;
use base64::Engine;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The current context of a kubeconfig, with the files it names already read.
#[derive(Clone, PartialEq)]
pub struct Kubeconfig {
    /// The file that says all this, or where else it came from: for errors.
    pub origin: String,
    /// The server's URL: `https://HOST:PORT`.
    pub server: String,
    /// The name to expect in the server's certificate, where it is not the host of the URL.
    pub tls_server_name: Option<String>,
    /// The authorities that may have signed the server's certificate, as PEM.
    pub certificate_authority: Vec<u8>,
    /// Our own certificate, as PEM.
    pub client_certificate: Option<Vec<u8>>,
    /// Its key, as PEM.
    pub client_key: Option<Vec<u8>>,
    /// A bearer token.
    pub token: Option<String>,
    /// The context's namespace.
    pub namespace: Option<String>,
}

/// Without its secrets.
impl std::fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubeconfig").field("server", &self.server).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "current-context", default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
    namespace: Option<String>,
}

impl Kubeconfig {
    /// A server that is asked over plain HTTP and without a name, such as `kubectl proxy`.
    pub fn anonymous(server: impl Into<String>) -> Self {
        let server = server.into();
        Kubeconfig {
            origin: format!("for {server}"),
            server,
            tls_server_name: None,
            certificate_authority: Vec::new(),
            client_certificate: None,
            client_key: None,
            token: None,
            namespace: None,
        }
    }

    /// The same identity at another address of the same cluster.
    pub fn with_server(&self, server: impl Into<String>) -> Self {
        Kubeconfig { server: server.into(), ..self.clone() }
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|why| Error::Read { path: path.to_owned(), why })?;
        let base = path.parent().unwrap_or(Path::new("."));
        Kubeconfig::parse(&text, base, &path.display().to_string())
    }

    /// The kubeconfig that a command means: the one given, else the first of `$KUBECONFIG` that is there, else
    /// the first of `defaults` that is there, else `~/.kube/config`.
    pub fn find(given: Option<&Path>, defaults: &[PathBuf]) -> Result<PathBuf, Error> {
        let variable = std::env::var_os("KUBECONFIG").filter(|v| !v.is_empty());
        let home = std::env::var_os("HOME").map(PathBuf::from);
        choose(given, variable.as_deref(), defaults, home.as_deref())
    }

    /// Reads the text of a kubeconfig; paths in it are relative to `base`.
    pub fn parse(text: &str, base: &Path, origin: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::Kubeconfig { origin: origin.to_owned(), why };
        let value = values::from_yaml(text.as_bytes()).map_err(|e| wrong(e.to_string()))?;
        let file: File = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
        let context = match file.contexts.into_iter().find(|c| c.name == file.current_context) {
            Some(found) => found.context,
            None if file.current_context.is_empty() => {
                return Err(wrong(
                    "it has no current-context; set one with `kubectl config use-context`".into(),
                ));
            }
            None => {
                return Err(wrong(format!("its current-context {:?} is not in it", file.current_context)));
            }
        };
        let cluster = file.clusters.into_iter().find(|c| c.name == context.cluster);
        let Some(cluster) = cluster.map(|c| c.cluster) else {
            return Err(wrong(format!(
                "the cluster {:?} of its current context is not in it",
                context.cluster
            )));
        };
        let user = match file.users.into_iter().find(|u| u.name == context.user) {
            Some(found) => found.user,
            None if context.user.is_empty() => User::default(),
            None => {
                return Err(wrong(format!(
                    "the user {:?} of its current context is not in it",
                    context.user
                )));
            }
        };
        if cluster.insecure_skip_tls_verify {
            return Err(wrong(
                "it says insecure-skip-tls-verify, which this client does not do; \
                 put the cluster's certificate-authority-data in its place"
                    .into(),
            ));
        }
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err(wrong(
                "its user signs in with a plugin, which this client does not run; use a client certificate or a token"
                    .into(),
            ));
        }
        let material = |data: Option<String>, path: Option<PathBuf>, field: &str| match (data, path) {
            (Some(data), _) => base64::engine::general_purpose::STANDARD
                .decode(data.trim())
                .map(Some)
                .map_err(|_| wrong(format!("{field}-data is not base64"))),
            (None, Some(path)) => {
                let path = base.join(path);
                std::fs::read(&path).map(Some).map_err(|why| Error::Read { path, why })
            }
            (None, None) => Ok(None),
        };
        let token = match (user.token, user.token_file) {
            (Some(token), _) => Some(token),
            (None, Some(path)) => material(None, Some(path), "tokenFile")?
                .map(|t| String::from_utf8_lossy(&t).trim().to_owned()),
            (None, None) => None,
        };
        Ok(Kubeconfig {
            origin: origin.to_owned(),
            server: cluster.server.trim_end_matches('/').to_owned(),
            tls_server_name: cluster.tls_server_name,
            certificate_authority: material(
                cluster.certificate_authority_data,
                cluster.certificate_authority,
                "certificate-authority",
            )?
            .unwrap_or_default(),
            client_certificate: material(
                user.client_certificate_data,
                user.client_certificate,
                "client-certificate",
            )?,
            client_key: material(user.client_key_data, user.client_key, "client-key")?,
            token,
            namespace: context.namespace.filter(|n| !n.is_empty()),
        })
    }
}

fn choose(
    given: Option<&Path>,
    variable: Option<&std::ffi::OsStr>,
    defaults: &[PathBuf],
    home: Option<&Path>,
) -> Result<PathBuf, Error> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let mut looked: Vec<PathBuf> = variable.map(|v| std::env::split_paths(v).collect()).unwrap_or_default();
    if variable.is_none() {
        looked.extend(defaults.iter().cloned());
        looked.extend(home.map(|h| h.join(".kube/config")));
    }
    if let Some(found) = looked.iter().find(|p| p.is_file()) {
        return Ok(found.clone());
    }
    let looked: Vec<String> = looked.iter().map(|p| p.display().to_string()).collect();
    Err(Error::NoKubeconfig { looked: looked.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
apiVersion: v1
kind: Config
current-context: here
clusters:
- name: c
  cluster: {server: 'https://127.0.0.1:6443/', certificate-authority-data: aGVsbG8=}
users:
- name: u
  user: {client-certificate: crt.pem, client-key-data: a2V5, token: abc}
contexts:
- name: here
  context: {cluster: c, user: u, namespace: work}
";

    #[test]
    fn reads_data_and_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("crt.pem"), b"crt").unwrap();
        std::fs::write(dir.path().join("config"), GOOD).unwrap();
        let config = Kubeconfig::load(&dir.path().join("config")).unwrap();
        assert_eq!(config.server, "https://127.0.0.1:6443");
        assert_eq!(config.certificate_authority, b"hello");
        assert_eq!(config.client_certificate.as_deref(), Some(&b"crt"[..]));
        assert_eq!(config.client_key.as_deref(), Some(&b"key"[..]));
        assert_eq!(config.token.as_deref(), Some("abc"));
        assert_eq!(config.namespace.as_deref(), Some("work"));
        assert!(!format!("{config:?}").contains("abc"), "a secret in the debug output");
    }

    #[test]
    fn says_what_is_wrong() {
        for (from, to, says) in [
            ("current-context: here", "current-context: there", "\"there\""),
            ("current-context: here", "current-context: ''", "no current-context"),
            ("aGVsbG8=", "'!'", "certificate-authority-data is not base64"),
            ("cluster: c,", "cluster: d,", "\"d\""),
            ("user: u,", "user: v,", "\"v\""),
            ("token: abc", "exec: {command: x}", "plugin"),
            (
                "certificate-authority-data: aGVsbG8=",
                "insecure-skip-tls-verify: true",
                "insecure-skip-tls-verify",
            ),
            ("crt.pem", "gone.pem", "gone.pem"),
            ("clusters:", "clusters: [", "cannot be used"),
            ("clusters:", &format!("clusters: {}", "{a: ".repeat(300_000)), "nested more than"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from} is not in the example");
            let error = Kubeconfig::parse(&text, Path::new("/nowhere"), "x").unwrap_err().to_string();
            assert!(error.contains(says), "{from} -> {to}: {error}");
        }
    }

    #[test]
    fn chooses_the_first_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&b, "").unwrap();
        assert_eq!(choose(Some(&a), None, &[], None).unwrap(), a, "the one given is meant, there or not");
        assert_eq!(choose(None, Some(b.as_os_str()), &[], None).unwrap(), b);
        assert_eq!(choose(None, None, &[a.clone(), b.clone()], None).unwrap(), b);
        assert!(choose(None, Some(a.as_os_str()), &[b], None).is_err(), "$KUBECONFIG is meant alone");
    }
}
