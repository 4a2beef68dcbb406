//! How registries are reached: what a host's configuration says about mirrors, certificates and connections without TLS.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use crate::{Error, Reference};

/// Where Docker's registry really is.
const DOCKER: &str = "docker.io";
const DOCKER_HOST: &str = "registry-1.docker.io";

/// What is known about registries, by `HOST` or `HOST:PORT` as images' names have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Registries {
    /// Each registry of which there is something to say; mirrors have their own entries here too.
    pub hosts: BTreeMap<String, Registry>,
}

/// What is known about a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Registry {
    /// Where its images are looked for first, in this order: `HOST[:PORT][/PATH]`. Its own host is the last.
    pub mirrors: Vec<String>,
    /// It speaks HTTP without TLS. Loopback addresses do unless there is an entry for them.
    pub plain_http: bool,
    /// Whatever certificate it shows is believed.
    pub skip_verify: bool,
    /// A file of PEM certificates by which its own is believed, beside the system's.
    pub ca: Option<PathBuf>,
}

/// One place where an image may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// What the connection leads to.
    pub(super) host: String,
    /// What a path begins with, before `/v2/`.
    pub(super) prefix: String,
    /// By what its entry and its credentials are found.
    pub(super) name: String,
    /// Which registry it stands for, if it is a mirror.
    pub(super) mirrors: Option<String>,
}

impl Registries {
    /// Checks what can be checked before anybody asks.
    ///
    /// # Errors
    /// [`Error::Registries`], with the entry.
    pub fn check(&self) -> Result<(), Error> {
        for (host, registry) in &self.hosts {
            let wrong = |why: String| Error::Registries { registry: host.clone(), why };
            if !is_authority(host) {
                return Err(wrong("it must be HOST or HOST:PORT".into()));
            }
            for mirror in &registry.mirrors {
                let (authority, path) = mirror.split_once('/').unwrap_or((mirror, ""));
                if !is_authority(authority) || format!("/{path}").parse::<http::uri::PathAndQuery>().is_err()
                {
                    return Err(wrong(format!(
                        "its mirror {mirror:?} must be HOST[:PORT][/PATH], without a scheme"
                    )));
                }
            }
            if registry.plain_http && (registry.skip_verify || registry.ca.is_some()) {
                return Err(wrong(
                    "without TLS there is no certificate: plainHttp excludes ca and skipVerify".into(),
                ));
            }
        }
        Ok(())
    }

    /// Where an image is looked for, in this order.
    pub(super) fn endpoints(&self, image: &Reference) -> Vec<Endpoint> {
        let registry = image.registry();
        let mirrors = self.hosts.get(registry).into_iter().flat_map(|entry| &entry.mirrors);
        let mut endpoints: Vec<Endpoint> = mirrors
            .map(|mirror| {
                let (host, path) = mirror.split_once('/').unwrap_or((mirror, ""));
                let path = path.trim_matches('/');
                Endpoint {
                    host: host.to_owned(),
                    prefix: if path.is_empty() { String::new() } else { format!("/{path}") },
                    name: host.to_owned(),
                    mirrors: Some(registry.to_owned()),
                }
            })
            .collect();
        let host = if registry == DOCKER { DOCKER_HOST } else { registry };
        let (host, name) = (host.to_owned(), registry.to_owned());
        endpoints.push(Endpoint { host, prefix: String::new(), name, mirrors: None });
        endpoints
    }

    /// How to connect to a host, by its authority.
    pub(super) fn connection(&self, host: &str) -> Registry {
        let entry = self.hosts.get(host);
        let entry = entry.or_else(|| self.hosts.get(DOCKER).filter(|_| host == DOCKER_HOST));
        let default = || Registry { plain_http: is_loopback(host), ..Registry::default() };
        entry.cloned().unwrap_or_else(default)
    }
}

fn is_authority(text: &str) -> bool {
    text.parse::<http::uri::Authority>().is_ok() && !text.contains('@') && !text.ends_with(':')
}

fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> Registries {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn mirrors_come_first_and_docker_s_name_is_another() {
        let registries = registries(r#"{"docker.io": {"mirrors": ["mirror:5000", "cache.example/hub/"]}}"#);
        registries.check().unwrap();
        let endpoints = |name: &str| registries.endpoints(&Reference::parse(name).unwrap());
        let found: Vec<_> = endpoints("busybox")
            .into_iter()
            .map(|each| (each.host, each.prefix, each.mirrors.is_some()))
            .collect();
        let expected = [("mirror:5000", "", true), ("cache.example", "/hub", true), (DOCKER_HOST, "", false)];
        assert_eq!(found, expected.map(|(host, prefix, is)| (host.to_owned(), prefix.to_owned(), is)));
        assert_eq!(endpoints("quay.io/a/b").len(), 1);
    }

    #[test]
    fn only_loopback_is_spoken_to_without_tls_by_itself() {
        let registries = registries(r#"{"127.0.0.9:5000": {"ca": "/ca.pem"}, "old": {"plainHttp": true}}"#);
        for (host, plain) in [
            ("localhost", true),
            ("127.0.0.1:5000", true),
            ("[::1]:5000", true),
            ("127.0.0.9:5000", false),
            ("old", true),
            ("quay.io", false),
            ("localhost.example", false),
        ] {
            assert_eq!(registries.connection(host).plain_http, plain, "{host}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            r#"{"https://quay.io": {}}"#,
            r#"{"user@quay.io": {}}"#,
            r#"{"quay.io": {"mirrors": ["http://mirror"]}}"#,
            r#"{"quay.io": {"mirrors": ["mirror/a b"]}}"#,
            r#"{"quay.io": {"plainHttp": true, "skipVerify": true}}"#,
        ] {
            assert!(matches!(registries(text).check(), Err(Error::Registries { .. })), "{text}");
        }
        assert!(serde_json::from_str::<Registries>(r#"{"quay.io": {"insecure": true}}"#).is_err());
    }
}
