//! A container's environment, from its spec and the objects that it names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret, Service,
};
use objects::Reader;
use store::State;

use super::{expand, quantity, service_links};
use crate::pod;
use crate::pods::PodTokens;

/// Something that the spec names does not exist.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Missing(pub String);

/// Where values come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources<'a> {
    /// The objects.
    pub state: &'a State,
    /// The pod.
    pub pod: &'a Pod,
    /// The pod's address.
    pub pod_address: IpAddr,
    /// The host's address.
    pub host_address: IpAddr,
    /// The host's cpus (in thousandths) and memory (in bytes): limits where none are given.
    pub capacity: (u64, u64),
    /// The host's folder for the volumes of claims.
    pub volumes: &'a Path,
    /// The tokens of the pod's service account.
    pub tokens: &'a PodTokens,
}

/// The container's variables: `base`, then services, `envFrom` and `env`, later ones winning; `$(NAME)` in
/// `env` is expanded by what stands before.
///
/// # Errors
/// [`Missing`] if an object or a key that is not optional isn't there.
pub(crate) fn environment(
    container: &Container,
    base: &[(String, String)],
    sources: Sources<'_>,
) -> Result<Vec<(String, String)>, Missing> {
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut list = Variables::default();
    let links = sources.pod.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    if links {
        for service in Reader::<Service>::list_in(sources.state, namespace) {
            service_links::variables(&service).into_iter().for_each(|(name, value)| list.set(name, value));
        }
    }
    base.iter().for_each(|(name, value)| list.set(name.clone(), value.clone()));
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(source) = &from.config_map_ref {
            let data = config_map(sources.state, namespace, &source.name, source.optional)?;
            data.into_iter().for_each(|(k, v)| list.set_text(format!("{prefix}{k}"), v));
        }
        if let Some(source) = &from.secret_ref {
            let data = secret(sources.state, namespace, &source.name, source.optional)?;
            data.into_iter().for_each(|(k, v)| list.set_text(format!("{prefix}{k}"), v));
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(from) => value_from(container, from, sources)?,
            None => variable.value.as_deref().map(|value| expand(value, |name| list.get(name))),
        };
        match value {
            Some(value) => list.set_text(variable.name.clone(), value.into_bytes()),
            None if variable.value_from.is_none() => list.set(variable.name.clone(), String::new()),
            None => {}
        }
    }
    Ok(list.0)
}

#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Sets a variable from an object, unless it can't be one: a name with `=`, bytes with a NUL.
    fn set_text(&mut self, name: String, value: Vec<u8>) {
        if !name.is_empty() && !name.contains(['=', '\0']) && !value.contains(&0) {
            self.set(name, String::from_utf8_lossy(&value).into_owned());
        }
    }

    fn get(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

/// The data of a ConfigMap, binary data too; empty if it is optional and not there.
pub(super) fn config_map(
    state: &State,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, Vec<u8>>, Missing> {
    match Reader::<ConfigMap>::get(state, namespace, name) {
        Some(map) => {
            let text = map.data.into_iter().flatten().map(|(k, v)| (k, v.into_bytes()));
            Ok(text.chain(map.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0))).collect())
        }
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(Missing(format!("configmap {name:?} not found"))),
    }
}

/// The data of a Secret; empty if it is optional and not there.
pub(crate) fn secret(
    state: &State,
    namespace: &str,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, Vec<u8>>, Missing> {
    match Reader::<Secret>::get(state, namespace, name) {
        Some(secret) => {
            let mut data: BTreeMap<String, Vec<u8>> =
                secret.data.into_iter().flatten().map(|(k, v)| (k, v.0)).collect();
            data.extend(secret.string_data.into_iter().flatten().map(|(k, v)| (k, v.into_bytes())));
            Ok(data)
        }
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(Missing(format!("secret {name:?} not found"))),
    }
}

fn value_from(
    container: &Container,
    from: &EnvVarSource,
    sources: Sources<'_>,
) -> Result<Option<String>, Missing> {
    let namespace = sources.pod.metadata.namespace.as_deref().unwrap_or_default();
    let text = |bytes: Option<Vec<u8>>| bytes.map(|b| String::from_utf8_lossy(&b).into_owned());
    if let Some(select) = &from.config_map_key_ref {
        let mut data = config_map(sources.state, namespace, &select.name, select.optional)?;
        let value = data.remove(&select.key);
        return found(value, select.optional, &select.key, "ConfigMap", namespace, &select.name).map(text);
    }
    if let Some(select) = &from.secret_key_ref {
        let mut data = secret(sources.state, namespace, &select.name, select.optional)?;
        let value = data.remove(&select.key);
        return found(value, select.optional, &select.key, "Secret", namespace, &select.name).map(text);
    }
    if let Some(select) = &from.field_ref {
        return field(select, sources).map(Some);
    }
    if let Some(select) = &from.resource_field_ref {
        return resource(container, select, sources).map(Some);
    }
    Err(Missing("an environment variable's valueFrom names no source that this version knows".into()))
}

fn found(
    value: Option<Vec<u8>>,
    optional: Option<bool>,
    key: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<Vec<u8>>, Missing> {
    if value.is_none() && optional != Some(true) {
        return Err(Missing(format!("couldn't find key {key} in {kind} {namespace}/{name}")));
    }
    Ok(value)
}

/// The value of a `fieldRef`.
pub(super) fn field(select: &ObjectFieldSelector, sources: Sources<'_>) -> Result<String, Missing> {
    let Sources { pod, .. } = sources;
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let path = select.field_path.as_str();
    let of = |text: Option<&String>| text.cloned().unwrap_or_default();
    let all = |map: &Option<BTreeMap<String, String>>| -> String {
        map.iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n")
    };
    if let Some((which, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match which {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(Missing(format!("fieldPath {path:?} is not supported"))),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => of(meta.name.as_ref()),
        "metadata.namespace" => of(meta.namespace.as_ref()),
        "metadata.uid" => pod::uid(pod).to_owned(),
        "metadata.labels" => all(&meta.labels),
        "metadata.annotations" => all(&meta.annotations),
        "spec.nodeName" | "spec.host" => of(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => of(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.podIP" | "status.podIPs" => sources.pod_address.to_string(),
        "status.hostIP" | "status.hostIPs" => sources.host_address.to_string(),
        _ => return Err(Missing(format!("fieldPath {path:?} is not supported"))),
    })
}

/// The value of a `resourceFieldRef`.
pub(super) fn resource(
    container: &Container,
    select: &ResourceFieldSelector,
    sources: Sources<'_>,
) -> Result<String, Missing> {
    let wrong = || Missing(format!("resource {:?} is not supported", select.resource));
    let container = match select.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => Cow::Borrowed(container),
        Some(name) => pod::container(sources.pod, name)
            .ok_or_else(|| Missing(format!("resourceFieldRef names no container of the pod: {name:?}")))?,
    };
    let (which, name) = select.resource.split_once('.').ok_or_else(wrong)?;
    let resources = container.resources.as_ref();
    let map = match which {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(wrong()),
    };
    let quantity = match (map.and_then(|map| map.get(name)), which, name) {
        (Some(quantity), ..) => quantity.0.clone(),
        (None, "limits", "cpu") => format!("{}m", sources.capacity.0),
        (None, "limits", "memory") => sources.capacity.1.to_string(),
        _ => "0".to_owned(),
    };
    let divisor = select.divisor.as_ref().map(|d| d.0.as_str()).unwrap_or_default();
    quantity::in_units(&quantity, divisor).map(|value| value.to_string()).ok_or_else(wrong)
}
