//! Who one is for a registry: Docker's configuration, as Secrets have it, found by an image's name as the kubelet finds it
//! (`k8s.io/kubernetes/pkg/credentialprovider/keyring.go`).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::Error;
use crate::config::or_default;

/// Padded or not: Docker writes both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// What Docker calls its own registry in its configuration.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// A name and a password.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password, or a token that serves as one.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials {{ user: {:?}, .. }}", self.user)
    }
}

/// Credentials by where they hold.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    /// Read from the last key to the first: longer paths come before shorter ones.
    keys: BTreeMap<String, Vec<Credentials>>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default, deserialize_with = "or_default")]
    auths: BTreeMap<String, Auth>,
}

#[derive(Deserialize, Default)]
struct Auth {
    #[serde(default, deserialize_with = "or_default")]
    auth: String,
    #[serde(default, deserialize_with = "or_default")]
    username: String,
    #[serde(default, deserialize_with = "or_default")]
    password: String,
}

impl Keyring {
    /// Adds what a Secret of type `kubernetes.io/dockerconfigjson` has under `.dockerconfigjson`: Docker's `config.json`.
    ///
    /// # Errors
    /// [`Error::Credentials`], without any of them in it.
    pub fn add_docker_config_json(&mut self, content: &[u8]) -> Result<(), Error> {
        let config: DockerConfig = read(content)?;
        self.add_auths(config.auths)
    }

    /// Adds what a Secret of type `kubernetes.io/dockercfg` has under `.dockercfg`: Docker's older file.
    ///
    /// # Errors
    /// As [`Keyring::add_docker_config_json`].
    pub fn add_docker_cfg(&mut self, content: &[u8]) -> Result<(), Error> {
        self.add_auths(read(content)?)
    }

    fn add_auths(&mut self, auths: BTreeMap<String, Auth>) -> Result<(), Error> {
        for (location, auth) in auths {
            let credentials = auth.credentials().map_err(|why| Error::Credentials(why.to_owned()))?;
            self.add(&location, credentials);
        }
        Ok(())
    }

    /// Adds credentials for a registry, or for what lies below a path in it: `HOST[:PORT][/PATH]`, with `*` in parts of the host.
    pub fn add(&mut self, location: &str, credentials: Credentials) {
        let location = location
            .strip_prefix("https://")
            .or_else(|| location.strip_prefix("http://"))
            .unwrap_or(location);
        let (host, path) = split_path(location);
        // `/v1/` and `/v2/` are the protocol's.
        let path = ["/v1/", "/v2/"]
            .iter()
            .find_map(|version| path.strip_prefix(version).map(|_| &path[3..]))
            .unwrap_or(path);
        let path = if path == "/" { "" } else { path };
        let there = self.keys.entry(format!("{host}{path}")).or_default();
        if !there.contains(&credentials) {
            there.push(credentials);
        }
    }

    /// What may be tried for an image in a repository (`REGISTRY/PATH`), best first.
    pub fn lookup(&self, repository: &str) -> Vec<Credentials> {
        let fitting = self.keys.iter().rev().filter(|(key, _)| matches(key, repository));
        let mut found: Vec<Credentials> = fitting.flat_map(|(_, credentials)| credentials).cloned().collect();
        if repository.starts_with("docker.io/") {
            found.extend(self.keys.get(DEFAULT_REGISTRY).into_iter().flatten().cloned());
        }
        found
    }
}

impl Auth {
    fn credentials(self) -> Result<Credentials, &'static str> {
        if self.auth.is_empty() {
            return Ok(Credentials { user: self.username, password: self.password });
        }
        let text = BASE64.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let parts = text.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) =
            parts.ok_or("unable to parse auth field, must be formatted as base64(username:password)")?;
        // Old versions of Docker fill the field up with zeros.
        let password = password.trim_end_matches('\0');
        Ok(Credentials { user: user.to_owned(), password: password.to_owned() })
    }
}

fn read<T: for<'de> Deserialize<'de>>(content: &[u8]) -> Result<T, Error> {
    // Not what the parser says: it quotes what it reads.
    serde_json::from_slice(content).map_err(|why| {
        let (line, column) = (why.line(), why.column());
        Error::Credentials(format!("they are no Docker configuration (line {line}, column {column})"))
    })
}

fn split_path(location: &str) -> (&str, &str) {
    let end = location.find('/').unwrap_or(location.len());
    location.split_at(end)
}

/// The kubelet's `URLsMatch`: the same port, as many parts of the host, each as its pattern says, and a path that begins so.
fn matches(pattern: &str, repository: &str) -> bool {
    let ((pattern, path), (host, in_registry)) = (split_path(pattern), split_path(repository));
    let ((pattern, port), (host, its_port)) = (split_port(pattern), split_port(host));
    let parts = |host: &str| host.split('.').count();
    port == its_port
        && parts(pattern) == parts(host)
        && in_registry.starts_with(path)
        // An IPv6 address has brackets, as a class of characters has.
        && pattern
            .split('.')
            .zip(host.split('.'))
            .all(|(pattern, part)| pattern == part || glob(pattern.as_bytes(), part.as_bytes()))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (host, ""),
    }
}

/// Go's `filepath.Match` on a part of a host's name: `*`, `?`, `[a-z]`, `[^a-z]`. Linear in the text for each star.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if at < pattern.len() && pattern[at] == b'*' {
            star = Some((at + 1, read));
            at += 1;
            continue;
        }
        if read == text.len() && at == pattern.len() {
            return true;
        }
        let step = text.get(read).and_then(|byte| one(&pattern[at..], *byte));
        match (step, &mut star) {
            (Some(length), _) => {
                at += length;
                read += 1;
            }
            (None, Some((after, from))) if *from < text.len() => {
                *from += 1;
                (at, read) = (*after, *from);
            }
            (None, _) => return false,
        }
    }
}

/// How much of the pattern a byte takes; nothing if it doesn't fit.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().skip(2).position(|each| *each == b']')? + 2;
            let class = &pattern[1..end];
            let (negated, mut class) = match class.strip_prefix(b"^") {
                Some(rest) => (true, rest),
                None => (false, class),
            };
            let mut within = false;
            while let [first, rest @ ..] = class {
                (within, class) = match rest {
                    [b'-', last, rest @ ..] => (within || (*first..=*last).contains(&byte), rest),
                    rest => (within || *first == byte, rest),
                };
            }
            (within != negated).then_some(end + 1)
        }
        plain => (*plain == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(locations: &[&str]) -> Keyring {
        let mut keyring = Keyring::default();
        for location in locations {
            keyring.add(location, Credentials { user: (*location).to_owned(), password: "p".into() });
        }
        keyring
    }

    /// Cases of upstream's `keyring_test.go`, and some more.
    #[test]
    fn credentials_are_found_as_by_the_kubelet() {
        for (location, repository, fits) in [
            ("hello.kubernetes.io", "hello.kubernetes.io/foo/bar", true),
            ("*.kubernetes.io", "hello.kubernetes.io/foo", true),
            ("*.kubernetes.io", "kubernetes.io/foo", false),
            ("*.kubernetes.io", "a.b.kubernetes.io/foo", false),
            ("*.*.kubernetes.io", "a.b.kubernetes.io/foo", true),
            ("prefix.*.io", "prefix.kubernetes.io/foo", true),
            ("prefix*.kubernetes.io", "prefix1.kubernetes.io/foo", true),
            ("*suffix.kubernetes.io", "asuffix.kubernetes.io/foo", true),
            ("a[0-9].io", "a7.io/foo", true),
            ("a[^0-9].io", "a7.io/foo", false),
            ("a?.io", "a.io/foo", false),
            ("*", "kubernetes/foo", true),
            ("kubernetes.io/foo", "kubernetes.io/foo/bar", true),
            ("kubernetes.io/foo", "kubernetes.io/fo", false),
            ("kubernetes.io:5000", "kubernetes.io/foo", false),
            ("kubernetes.io", "kubernetes.io:5000/foo", false),
            ("https://kubernetes.io:5000/v2/", "kubernetes.io:5000/foo", true),
            ("http://kubernetes.io/v1/foo", "kubernetes.io/foo/bar", true),
            ("[::1]:5000", "[::1]:5000/foo", true),
            ("https://index.docker.io/v1/", "docker.io/library/busybox", true),
            ("index.docker.io", "quay.io/foo", false),
            ("docker.io", "docker.io/library/busybox", true),
            ("a[", "a[.io/foo", false),
            ("", "quay.io/foo", false),
        ] {
            assert_eq!(!keyring(&[location]).lookup(repository).is_empty(), fits, "{location} {repository}");
        }
        let longest = keyring(&["quay.io", "quay.io/a/b", "quay.io/a", "*.io"]).lookup("quay.io/a/b/c");
        let order: Vec<_> = longest.iter().map(|each| each.user.as_str()).collect();
        assert_eq!(order, ["quay.io/a/b", "quay.io/a", "quay.io", "*.io"]);
    }

    #[test]
    fn docker_s_files_are_read_and_never_quoted() {
        let mut keyring = Keyring::default();
        // user:pass:word, padded and not.
        keyring
            .add_docker_config_json(br#"{"auths": {"a.io": {"auth": "dXNlcjpwYXNzOndvcmQ="}, "b.io": {"auth": "dXNlcjpwYXNzOndvcmQ"},
                "c.io": {"username": "u", "password": "p", "auth": null}}, "credsStore": "x"}"#)
            .unwrap();
        keyring.add_docker_cfg(br#"{"d.io": {"auth": "dTpw", "email": "e"}}"#).unwrap();
        for (host, user, password) in [
            ("a.io", "user", "pass:word"),
            ("b.io", "user", "pass:word"),
            ("c.io", "u", "p"),
            ("d.io", "u", "p"),
        ] {
            let found = keyring.lookup(&format!("{host}/x"));
            assert_eq!((found[0].user.as_str(), found[0].password.as_str()), (user, password));
        }
        assert!(!format!("{keyring:?}").contains("word"));
        for wrong in [
            &br#"{"auths": {"a": {"auth": "c2VjcmV0"}}}"#[..],
            b"secret",
            br#"{"auths": {"a": {"auth": 5}}}"#,
        ] {
            let error = Keyring::default().add_docker_config_json(wrong).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_ends() {
        let pattern = "*a".repeat(30);
        assert!(!glob(
            pattern.as_bytes(),
            "a".repeat(2000)
                .as_bytes()
                .split_last()
                .map(|(_, rest)| [rest, b"b"].concat())
                .unwrap()
                .as_slice()
        ));
        assert!(glob(pattern.as_bytes(), "a".repeat(2000).as_bytes()));
        assert!(glob(b"*", b"") && glob(b"**", b"a") && !glob(b"", b"a"));
    }
}
