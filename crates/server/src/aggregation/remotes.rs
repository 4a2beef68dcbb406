//! APIServices that stand for other servers.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use store::{KeyRange, Revision, State};

pub(super) const PREFIX: &str = "/registry/apiregistration.k8s.io/apiservices/";
const HTTPS: u64 = 443;

/// A group and version that another server answers for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote {
    /// The APIService's name.
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) port: String,
    /// The authority of the server's certificate, as PEM.
    pub(crate) authority: Option<String>,
    /// Whether its certificate isn't looked at.
    pub(crate) insecure: bool,
    /// How far its group and its version stand ahead of others.
    pub(crate) priorities: (i64, i64),
    /// Whether it answers, as its condition says.
    pub(crate) available: bool,
    pub(crate) revision: Revision,
}

/// All of them, those that stand ahead first; and the names of APIServices that stand for what is served here but
/// don't say that they are available.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    pub(crate) list: Vec<Arc<Remote>>,
    pub(crate) silent_locals: Vec<String>,
}

impl Remotes {
    pub(super) fn of(state: &State) -> Self {
        let mut remotes = Remotes::default();
        for kv in state.range(&KeyRange::prefix(PREFIX)) {
            let Ok(value) = serde_json::from_slice::<Value>(&kv.value.bytes()) else { continue };
            match Remote::of(&value, kv.mod_revision) {
                Some(remote) => remotes.list.push(Arc::new(remote)),
                None if !is_available(&value) => {
                    let name = value.pointer("/metadata/name").and_then(Value::as_str);
                    remotes.silent_locals.extend(name.map(str::to_owned));
                }
                None => {}
            }
        }
        remotes
            .list
            .sort_by(|a, b| (b.priorities, &a.group, &b.version).cmp(&(a.priorities, &b.group, &a.version)));
        remotes
    }

    pub(crate) fn find(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        self.list.iter().find(|remote| remote.group == group && remote.version == version)
    }
}

pub(super) fn is_available(value: &Value) -> bool {
    let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Available" && condition["status"] == "True")
}

impl Remote {
    /// Nothing for an APIService without a service, and for groups that are built in.
    fn of(value: &Value, revision: Revision) -> Option<Self> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |path: &str| value.pointer(path).and_then(Value::as_i64).unwrap_or_default();
        value.pointer("/spec/service").filter(|service| service.is_object())?;
        let (group, version) = (text("/spec/group"), text("/spec/version"));
        if group.is_empty() || api::resources().any(|r| r.group == group && r.version == version) {
            return None;
        }
        let port = value.pointer("/spec/service/port").and_then(Value::as_u64).unwrap_or(HTTPS);
        let bundle = STANDARD.decode(text("/spec/caBundle")).ok();
        let authority = bundle.and_then(|pem| String::from_utf8(pem).ok()).filter(|pem| !pem.is_empty());
        Some(Remote {
            name: text("/metadata/name"),
            group,
            version,
            namespace: text("/spec/service/namespace"),
            service: text("/spec/service/name"),
            port: port.to_string(),
            authority,
            insecure: value.pointer("/spec/insecureSkipTLSVerify") == Some(&Value::Bool(true)),
            priorities: (number("/spec/groupPriorityMinimum"), number("/spec/versionPriority")),
            available: is_available(value),
            revision,
        })
    }

    /// The name in the server's certificate.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// `/apis/GROUP/VERSION`
    pub(crate) fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}
