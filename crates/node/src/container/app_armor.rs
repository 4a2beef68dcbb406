//! What a pod asks of AppArmor, without I/O: by the fields of its security contexts, or by the annotations that were before these
//! (KEP-24).

use std::fmt;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};

use super::of_pod;

/// What such an annotation's name begins with; the container's follows.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const UNCONFINED: &str = "unconfined";

/// The profile that a container asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskedProfile<'a> {
    /// None.
    Unconfined,
    /// The runtime's own.
    RuntimeDefault,
    /// One that somebody loaded on the host, by its name.
    Localhost(&'a str),
}

impl fmt::Display for AskedProfile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unconfined => f.write_str("Unconfined"),
            Self::RuntimeDefault => f.write_str("RuntimeDefault"),
            Self::Localhost(name) => write!(f, "Localhost ({name})"),
        }
    }
}

impl<'a> AskedProfile<'a> {
    /// The container's, by its own field, else its annotation, else the pod's field (`apparmor.GetProfile`).
    ///
    /// # Errors
    /// What of it makes no sense.
    pub(crate) fn of(pod: &'a Pod, container: &'a Container) -> Result<Option<Self>, String> {
        let own = container.security_context.as_ref().and_then(|own| own.app_armor_profile.as_ref());
        if let Some(profile) = own {
            return Self::of_field(profile).map(Some);
        }
        let annotations = pod.metadata.annotations.as_ref();
        let said = annotations.and_then(|all| all.get(&format!("{ANNOTATION}{}", container.name)));
        if let Some(said) = said.filter(|said| !said.is_empty()) {
            return Self::of_annotation(said).map(Some);
        }
        let shared = of_pod(pod).and_then(|shared| shared.app_armor_profile.as_ref());
        shared.map(Self::of_field).transpose()
    }

    fn of_field(profile: &'a AppArmorProfile) -> Result<Self, String> {
        match profile.type_.as_str() {
            "Unconfined" => Ok(Self::Unconfined),
            "RuntimeDefault" => Ok(Self::RuntimeDefault),
            "Localhost" => Self::named(profile.localhost_profile.as_deref().unwrap_or_default()),
            other => Err(format!("appArmorProfile {other:?}: there is no such type")),
        }
    }

    fn of_annotation(said: &'a str) -> Result<Self, String> {
        match (said, said.strip_prefix("localhost/")) {
            (UNCONFINED, _) => Ok(Self::Unconfined),
            ("runtime/default", _) => Ok(Self::RuntimeDefault),
            (_, Some(name)) => Self::named(name),
            _ => Err(format!("invalid AppArmor profile name: {said:?}")),
        }
    }

    fn named(name: &'a str) -> Result<Self, String> {
        match name.trim() {
            "" => Err(format!("invalid empty AppArmor profile name: {name:?}")),
            _ => Ok(Self::Localhost(name)),
        }
    }
}

/// Whether a pod asks for any profile, so that it must not run where there are none (`apparmor.isRequired`).
pub(crate) fn needs_app_armor(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let all = spec.iter().flat_map(|spec| &spec.containers).chain(init);
    let own = all.filter_map(|container| container.security_context.as_ref()?.app_armor_profile.as_ref());
    let shared = of_pod(pod).and_then(|shared| shared.app_armor_profile.as_ref());
    let annotations = pod.metadata.annotations.iter().flatten();
    let mut said = annotations.filter(|(name, _)| name.starts_with(ANNOTATION));
    own.chain(shared).any(|profile| profile.type_ != "Unconfined")
        || said.any(|(_, said)| !matches!(said.as_str(), "" | UNCONFINED))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(annotation: Option<&str>, shared: Value, own: Value) -> Pod {
        let context = |profile: Value| match profile {
            Value::Null => json!({}),
            profile => json!({"appArmorProfile": profile}),
        };
        let name = format!("{ANNOTATION}c");
        let annotations = annotation.map_or(json!({}), |said| json!({name: said}));
        let spec = json!({"securityContext": context(shared), "containers": [
            {"name": "c", "securityContext": context(own)}, {"name": "d"}]});
        serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec})).unwrap()
    }

    #[test]
    fn the_container_s_own_word_counts_first_and_its_pod_s_last() {
        let named = |name: &str| json!({"type": "Localhost", "localhostProfile": name});
        let of = |kind: &str| json!({"type": kind});
        let none = || Value::Null;
        for (annotation, shared, own, told, needed) in [
            (None, none(), none(), "Ok(None)", false),
            (None, of("Unconfined"), none(), "Ok(Some(Unconfined))", false),
            (None, of("RuntimeDefault"), none(), "Ok(Some(RuntimeDefault))", true),
            (None, of("RuntimeDefault"), of("Unconfined"), "Ok(Some(Unconfined))", true),
            (None, of("Unconfined"), named("web"), "Ok(Some(Localhost(\"web\")))", true),
            (Some("runtime/default"), named("web"), none(), "Ok(Some(RuntimeDefault))", true),
            (Some("localhost/a/b"), none(), none(), "Ok(Some(Localhost(\"a/b\")))", true),
            (Some("localhost/web"), none(), of("Unconfined"), "Ok(Some(Unconfined))", true),
            (Some("unconfined"), none(), none(), "Ok(Some(Unconfined))", false),
            (Some(""), of("RuntimeDefault"), none(), "Ok(Some(RuntimeDefault))", true),
            (Some("docker/default"), none(), none(), "Err(\"invalid AppArmor profile name", true),
            (Some("localhost/"), none(), none(), "Err(\"invalid empty AppArmor profile name", true),
            (None, none(), named(" "), "Err(\"invalid empty AppArmor profile name", true),
            (None, none(), of("Other"), "Err(\"appArmorProfile \\\"Other\\\": there is no", true),
        ] {
            let pod = pod(annotation, shared, own);
            let asked = AskedProfile::of(&pod, &pod.spec.as_ref().unwrap().containers[0]);
            assert!(format!("{asked:?}").starts_with(told), "{told}: {asked:?}");
            assert_eq!(needs_app_armor(&pod), needed, "{told} {pod:?}");
        }
        let pod = pod(Some("localhost/web"), Value::Null, Value::Null);
        let other = AskedProfile::of(&pod, &pod.spec.as_ref().unwrap().containers[1]);
        assert_eq!(other, Ok(None), "it is of another container");
    }
}
