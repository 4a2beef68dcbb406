//! What a runtime of others says that it can do, where not every one can: users of a pod's own, and cgroups beneath one that it is given.

use cri::messages::{CgroupDriver, StatusResponse};
use serde_json::Value;

use super::Sandbox;
use super::runtime::{ForeignRuntime, system};
use crate::runtime::RunError;

/// How to have what the runtime can't.
pub(crate) const ELSEWHERE: &str = "leave it out, or name a RuntimeClass with the handler oci";

/// Whether a handler of a runtime says that its pods may have users of their own (KEP-127).
fn gives_users(status: &StatusResponse, handler: &str) -> bool {
    let mut handlers = status.runtime_handlers.iter().filter(|known| known.name == handler);
    handlers.any(|known| known.features.as_ref().is_some_and(|features| features.user_namespaces))
}

/// Who makes the cgroups of a handler's containers, by the settings that containerd shows; nothing where it shows none.
fn cgroup_driver(status: &StatusResponse, handler: &str) -> Option<CgroupDriver> {
    let settings: Value = serde_json::from_str(status.info.get("config")?).ok()?;
    let containerd = &settings["containerd"];
    let handler = if handler.is_empty() { containerd["defaultRuntimeName"].as_str()? } else { handler };
    let options = containerd["runtimes"].get(handler)?;
    let by_systemd = options["options"]["SystemdCgroup"] == true;
    Some(if by_systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs })
}

impl ForeignRuntime {
    /// Whether the runtime makes the cgroups of a pod beneath one that it is given.
    ///
    /// # Errors
    /// What the pod asks for that the runtime can't do.
    pub(super) async fn check_features(&self, wanted: &Sandbox) -> Result<bool, RunError> {
        let (users, has_cgroups) = (wanted.has_users(), wanted.is_limited || self.cgroups.is_some());
        if !users && !has_cgroups {
            return Ok(false);
        }
        let cant = |what: &str| Err(RunError::Config(format!("{what}: {ELSEWHERE}")));
        let status = self.client.status().await.map_err(system)?;
        if users && !gives_users(&status, &wanted.handler) {
            return cant(
                "users of its own (hostUsers: false): this host's runtime doesn't say that it gives them",
            );
        }
        if !has_cgroups {
            return Ok(false);
        }
        let driver = match self.client.runtime_config().await {
            Ok(told) => told.linux.map(|linux| linux.cgroup_driver()),
            Err(failure) if failure.is_unsupported() => cgroup_driver(&status, &wanted.handler),
            Err(failure) => return Err(system(failure)),
        };
        match driver {
            Some(CgroupDriver::Cgroupfs) => Ok(true),
            _ if !wanted.is_limited => Ok(false),
            Some(CgroupDriver::Systemd) => cant(
                "limits of the whole pod (spec.resources): this host's runtime has systemd make its cgroups, which takes none of the host's",
            ),
            None => cant(
                "limits of the whole pod (spec.resources): this host's runtime doesn't say how it makes cgroups",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use cri::messages::{RuntimeHandler, RuntimeHandlerFeatures, Texts};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_runtime_gives_users_where_it_says_so() {
        let handler = |name: &str, user_namespaces| RuntimeHandler {
            name: name.into(),
            features: Some(RuntimeHandlerFeatures { user_namespaces }),
        };
        let runtime_handlers = vec![handler("", true), handler("kata", false)];
        let status = StatusResponse { runtime_handlers, ..StatusResponse::default() };
        assert!(gives_users(&status, "") && !gives_users(&status, "kata") && !gives_users(&status, "other"));
        assert!(!gives_users(&StatusResponse::default(), ""), "older ones say nothing");
    }

    #[test]
    fn who_makes_cgroups_stands_in_containerds_settings() {
        let of = |text: String, handler: &str| {
            let info = Texts::from([("config".to_owned(), text)]);
            cgroup_driver(&StatusResponse { info, ..StatusResponse::default() }, handler)
        };
        let told = json!({"containerd": {"defaultRuntimeName": "runc", "runtimes": {
            "runc": {"options": {"SystemdCgroup": false}}, "other": {"options": {"SystemdCgroup": true}}, "kata": {}}}});
        for (handler, expected) in [
            ("", Some(CgroupDriver::Cgroupfs)),
            ("other", Some(CgroupDriver::Systemd)),
            ("kata", Some(CgroupDriver::Cgroupfs)),
            ("none", None),
        ] {
            assert_eq!(of(told.to_string(), handler), expected, "{handler}");
        }
        for odd in ["", "[runtime]", "{}", r#"{"containerd": {"defaultRuntimeName": 7}}"#] {
            assert_eq!(of(odd.to_owned(), ""), None, "{odd}");
        }
    }
}
