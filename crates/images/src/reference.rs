//! Names of images as Docker, containerd and Kubernetes read them.
//!
//! The grammar is that of `distribution/reference` v0.6, with Docker's defaults: the registry `docker.io`, its folder
//! `library`, the tag `latest`.

use std::fmt;
use std::str::FromStr;

use crate::digest::shortened;
use crate::{Digest, Error};

/// The registry of a name that tells none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// What the registry was called once.
const OLD_DEFAULT_REGISTRY: &str = "index.docker.io";
/// Where images are in the default registry that are named by one word.
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// `distribution/reference`, `RepositoryNameTotalLengthMax`.
const LONGEST_REPOSITORY: usize = 255;
/// `distribution/reference`, `tag`: a first character and 127 more.
const LONGEST_TAG: usize = 128;

/// The name of an image: `[REGISTRY[:PORT]/]REPOSITORY[:TAG][@DIGEST]`, with all that Docker assumes where it isn't said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a name.
    ///
    /// # Errors
    /// [`Error::InvalidName`], which says what is wrong.
    pub fn parse(name: &str) -> Result<Self, Error> {
        read(name).map_err(|why| Error::InvalidName { name: shortened(name), why })
    }

    /// The registry, with its port if the name has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` if the name has neither tag nor digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// What the image is kept under: where there is a digest, the tag means nothing, as for containerd.
    pub(crate) fn key(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => self.with_digest(digest),
            (None, Some(tag)) => format!("{}:{tag}", self.name()),
            (None, None) => self.name(),
        }
    }

    /// The name of one of this repository's images by its digest.
    pub(crate) fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Reference::parse(name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn read(name: &str) -> Result<Reference, String> {
    // As Docker: it would be taken for the id of an image.
    if name.len() == 64 && name.bytes().all(is_lower_hex) {
        return Err(format!("invalid repository name ({name}), cannot specify 64-byte hexadecimal strings"));
    }
    let (registry, rest) = split_registry(name);
    let (rest, digest) = match rest.split_once('@') {
        None => (rest, None),
        Some((rest, digest)) => {
            let digest = Digest::parse(digest).map_err(|error| invalid(&error.to_string()))?;
            (rest, Some(digest))
        }
    };
    let (path, tag) = match rest.split_once(':') {
        None => (rest, None),
        Some((path, tag)) => (path, Some(tag)),
    };
    let repository = match registry {
        DEFAULT_REGISTRY if !path.contains('/') && !path.is_empty() => format!("{OFFICIAL}{path}"),
        _ => path.to_owned(),
    };
    check_registry(registry)?;
    check_repository(&repository)?;
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG),
        (tag, _) => tag,
    };
    Ok(Reference { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
}

fn invalid(why: &str) -> String {
    format!("invalid reference format: {why}")
}

/// What stands before the first slash is a registry if it looks like one; else all of the name is a path in Docker's.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (if first == OLD_DEFAULT_REGISTRY { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn check_registry(registry: &str) -> Result<(), String> {
    let wrong = || Err(invalid(&format!("{registry:?} is no registry's name")));
    let (host, port) = match registry.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        Some((address, port)) => {
            if address.is_empty() || !address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
                return wrong();
            }
            (None, port.strip_prefix(':').or_else(|| (!port.is_empty()).then_some("")))
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(registry), None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.is_some_and(|host| !host.split('.').all(is_label)) {
        return wrong();
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() || port.starts_with('+') => {
            Err(invalid(&format!("{port:?} is no port of the registry {registry:?}")))
        }
        _ => Ok(()),
    }
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.is_empty() {
        return Err(invalid("there is no repository's name"));
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(invalid(&format!("repository name ({repository}) must be lowercase")));
    }
    if !repository.split('/').all(is_path_component) {
        return Err(invalid(&format!(
            "repository name ({}) must consist of lower case letters and digits, separated by '/', '.', '_', '__' or dashes",
            shortened(repository)
        )));
    }
    if repository.len() > LONGEST_REPOSITORY {
        return Err(invalid(&format!(
            "repository name must not be more than {LONGEST_REPOSITORY} characters"
        )));
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.copied().is_some_and(is_word);
    if !ends_well(bytes.first()) || !ends_well(bytes.last()) {
        return false;
    }
    bytes.split(|byte| is_word(*byte)).all(|separator| {
        matches!(separator, [] | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
    })
}

fn check_tag(tag: &str) -> Result<(), String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let good = tag.len() <= LONGEST_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
    if good { Ok(()) } else { Err(invalid(&format!("{:?} is no tag", shortened(tag)))) }
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_get_what_docker_assumes() {
        for (name, whole) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
            ("user/thing", "docker.io/user/thing:latest"),
            ("localhost/thing", "localhost/thing:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("localhost:5000/thing:v1", "localhost:5000/thing:v1"),
            ("registry.k8s.io/e2e-test-images/agnhost:2.53", "registry.k8s.io/e2e-test-images/agnhost:2.53"),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("[fd00::1]/a", "[fd00::1]/a:latest"),
            ("UPPER/a", "UPPER/a:latest"),
            ("a__b/c.d/e--f_g", "docker.io/a__b/c.d/e--f_g:latest"),
        ] {
            let reference = Reference::parse(name).unwrap();
            assert_eq!(reference.to_string(), whole, "{name}");
            assert_eq!(Reference::parse(whole).unwrap(), reference);
        }
        let pinned = Reference::parse(&format!("quay.io/a/b:v1@{DIGEST}")).unwrap();
        assert_eq!((pinned.tag(), pinned.digest().unwrap().as_str()), (Some("v1"), DIGEST));
        assert_eq!(pinned.key(), format!("quay.io/a/b@{DIGEST}"), "the tag of a pinned name means nothing");
        assert_eq!(Reference::parse(&format!("a@{DIGEST}")).unwrap().tag(), None);
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        for (name, why) in [
            ("", "no repository's name"),
            ("a:", "no tag"),
            ("a: b", "no tag"),
            ("a:-b", "no tag"),
            (&format!("a:{}", "b".repeat(129)), "no tag"),
            ("Busybox", "repository name (library/Busybox) must be lowercase"),
            ("quay.io/A/b", "must be lowercase"),
            ("quay.io/", "no repository's name"),
            ("quay.io/a//b", "must consist of"),
            ("a___b", "must consist of"),
            ("a..b", "must consist of"),
            ("-a", "must consist of"),
            ("a-", "must consist of"),
            ("../../etc/passwd", "no registry's name"),
            ("a/../b", "must consist of"),
            ("http://quay.io/a", "no port"),
            ("quay.io:port/a", "no port"),
            ("quay.io:65536/a", "no port"),
            ("[::1/a", "no registry's name"),
            ("a..b.c/d", "no registry's name"),
            ("a@sha256:abc", "length"),
            ("a@md5:abc", "unsupported digest algorithm"),
            (&"a/".repeat(200), "must consist of"),
            (&"a".repeat(256), "not be more than 255"),
            (&DIGEST[7..], "cannot specify 64-byte hexadecimal strings"),
            ("a b", "must consist of"),
            ("é", "must consist of"),
        ] {
            let error = Reference::parse(name).expect_err(name);
            assert!(error.to_string().contains(why), "{name}: {error}");
            assert_eq!(error.reason().as_str(), "InvalidImageName");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_taken_is_told_and_taken_again(name in "[a-zA-Z0-9./:@_\\[\\]-]{0,40}") {
            if let Ok(reference) = Reference::parse(&name) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
            }
        }

        #[test]
        fn any_text_is_taken_or_refused(name in "\\PC{0,80}") {
            let _ = Reference::parse(&name);
        }
    }
}
