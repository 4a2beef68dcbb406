//! `--datastore`: an etcd of the user's own that a cluster's state lies in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use config::Datastore;
use etcd::Endpoint;
use http::Uri;
use pki::{Identity, SecretText, Trust};
use rustls::ClientConfig;

use crate::tell::say;

const DEFAULT_PORT: u16 = 2379;

/// Arguments about the etcd.
#[derive(clap::Args)]
pub struct DatastoreArgs {
    /// An etcd (3.4 or newer) to keep the cluster's state in, like https://HOST:2379,... [default: the hosts' own
    /// store]
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    datastore: Vec<String>,
    /// The certificate of the authority that signed etcd's certificates
    #[arg(long, value_name = "FILE", requires = "datastore")]
    datastore_ca: Option<PathBuf>,
    /// The certificate to show to etcd
    #[arg(long, value_name = "FILE", requires = "datastore", requires = "datastore_key")]
    datastore_cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "datastore", requires = "datastore_cert")]
    datastore_key: Option<PathBuf>,
    /// What the cluster's keys in etcd begin with [default: /holdfast; a drill takes a new one and removes it]
    #[arg(long, value_name = "PREFIX", requires = "datastore")]
    datastore_prefix: Option<String>,
}

impl DatastoreArgs {
    /// The etcd, if one is asked for; `prefix` is what its keys begin with unless that is given too.
    pub fn datastore(self, prefix: &str) -> anyhow::Result<Option<Datastore>> {
        if self.datastore.is_empty() {
            return Ok(None);
        }
        let prefix = self.datastore_prefix.as_deref().unwrap_or(prefix).trim_end_matches('/').to_owned();
        ensure!(
            prefix.len() > 1 && prefix.starts_with('/') && !prefix.contains('\0'),
            "--datastore-prefix must be like /holdfast, not {prefix:?}"
        );
        let whole = |path: Option<PathBuf>| -> anyhow::Result<Option<PathBuf>> {
            let find = |path: PathBuf| fs::canonicalize(&path).with_context(|| cant_read(&path));
            path.map(find).transpose()
        };
        let datastore = Datastore {
            endpoints: self.datastore,
            via: Vec::new(),
            prefix,
            ca: whole(self.datastore_ca)?,
            cert: whole(self.datastore_cert)?,
            key: whole(self.datastore_key)?,
        };
        // What can't be used is refused now.
        config(&datastore, "", "")?;
        if datastore.endpoints.iter().any(|endpoint| !endpoint.starts_with("https://")) {
            say!("warning: what goes to etcd, Secrets included, is not encrypted: take https:// endpoints");
        }
        Ok(Some(datastore))
    }
}

/// The engine's configuration.
pub fn config(datastore: &Datastore, name: &str, cluster: &str) -> anyhow::Result<etcd::Config> {
    let mut endpoints = Vec::new();
    for (n, text) in datastore.endpoints.iter().enumerate() {
        endpoints.push(Endpoint { uri: endpoint(text)?, address: datastore.via.get(n).copied() });
    }
    Ok(etcd::Config::new(name, cluster, endpoints, tls(datastore)?, &datastore.prefix))
}

/// The host and port of an endpoint.
pub fn place(endpoint_url: &str) -> anyhow::Result<(String, u16)> {
    let uri = endpoint(endpoint_url)?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    Ok((host, uri.port_u16().unwrap_or(DEFAULT_PORT)))
}

fn endpoint(text: &str) -> anyhow::Result<Uri> {
    let uri: Uri = text.parse().with_context(|| format!("--datastore: {text:?} is no URL"))?;
    let plain = uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
    ensure!(
        matches!(uri.scheme_str(), Some("http" | "https")) && plain && uri.host().is_some(),
        "--datastore: {text:?} must be like https://HOST:{DEFAULT_PORT}"
    );
    Ok(uri)
}

fn tls(datastore: &Datastore) -> anyhow::Result<Option<Arc<ClientConfig>>> {
    if !datastore.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
        return Ok(None);
    }
    let Some(ca) = &datastore.ca else {
        bail!("--datastore with https:// needs --datastore-ca, the authority of etcd's certificates")
    };
    let not_usable = |path: &Path| format!("{} can't be used", path.display());
    let trust = Trust::from_pem(read(ca)?).with_context(|| not_usable(ca))?;
    let config = match (&datastore.cert, &datastore.key) {
        (Some(cert), Some(key)) => {
            let identity = Identity::from_pem(read(cert)?, SecretText::new(read(key)?))
                .with_context(|| format!("{} with {} can't be used", cert.display(), key.display()))?;
            identity.client_config_for_any_age(&trust, &[]).with_context(|| not_usable(cert))?
        }
        _ => trust.client_config(&[])?,
    };
    Ok(Some(config))
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| cant_read(path))
}

fn cant_read(path: &Path) -> String {
    format!("can't read {}", path.display())
}
