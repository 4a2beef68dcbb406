//! Where an object lies: `/registry/GROUP/RESOURCE/[NAMESPACE/]NAME`, with `core` for the empty group.

/// The parts of an object's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectKey<'a> {
    /// The API group, empty for core.
    pub group: &'a str,
    /// The resource: plural, lower case.
    pub resource: &'a str,
    /// The namespace, empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
}

/// The key of one object; `namespace` is empty for cluster-scoped ones.
pub fn key(group: &str, resource: &str, namespace: &str, name: &str) -> String {
    let mut key = namespace_prefix(group, resource, namespace);
    key.push_str(name);
    key
}

/// What the keys of all objects of one resource start with.
pub fn kind_prefix(group: &str, resource: &str) -> String {
    let group = if group.is_empty() { "core" } else { group };
    format!("/registry/{group}/{resource}/")
}

/// What the keys of one resource in one namespace start with.
pub fn namespace_prefix(group: &str, resource: &str, namespace: &str) -> String {
    let mut prefix = kind_prefix(group, resource);
    if !namespace.is_empty() {
        prefix.push_str(namespace);
        prefix.push('/');
    }
    prefix
}

/// The parts of a key, or nothing if it is not an object's.
pub fn parse(key: &[u8]) -> Option<ObjectKey<'_>> {
    let mut parts = std::str::from_utf8(key).ok()?.strip_prefix("/registry/")?.split('/');
    let group = parts.next().map(|group| if group == "core" { "" } else { group })?;
    let (resource, first) = (parts.next()?, parts.next()?);
    let (namespace, name) = match (parts.next(), parts.next()) {
        (None, _) => ("", first),
        (Some(name), None) => (first, name),
        _ => return None,
    };
    Some(ObjectKey { group, resource, namespace, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_parsed_back_into_its_parts() {
        for (group, resource, namespace, name) in
            [("", "pods", "default", "a"), ("", "nodes", "", "n1"), ("apps", "deployments", "x", "y")]
        {
            let key = key(group, resource, namespace, name);
            assert_eq!(parse(key.as_bytes()), Some(ObjectKey { group, resource, namespace, name }));
        }
        assert_eq!(parse(b"/other"), None);
        assert_eq!(parse(b"/registry/core/pods/a/b/c"), None);
    }
}
