//! What class a request is of, as the schemas and levels in a state of the store say.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use store::{KeyRange, KeyValue, State};

use crate::Request;
use crate::deal::flow;
use crate::level::{self, PriorityLevel};
use crate::rules::{self, Distinguisher, Rule};

/// Below it lie all schemas and levels.
pub(crate) const PREFIX: &str = "/registry/flowcontrol.apiserver.k8s.io/";

/// All schemas and levels.
#[derive(Debug)]
pub(crate) struct Classes {
    pub(crate) levels: Vec<PriorityLevel>,
    schemas: Vec<FlowSchema>,
    last: FlowSchema,
}

/// A FlowSchema.
#[derive(Debug)]
pub(crate) struct FlowSchema {
    pub(crate) name: Arc<str>,
    pub(crate) uid: Arc<str>,
    precedence: i64,
    distinguisher: Option<Distinguisher>,
    rules: Vec<Rule>,
    /// Where its level stands among the levels.
    pub(crate) level: usize,
}

#[derive(Deserialize)]
struct Stored<T> {
    metadata: Metadata,
    spec: T,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    uid: String,
}

fn stored<T: DeserializeOwned>(kv: &KeyValue) -> Option<Stored<T>> {
    serde_json::from_slice(&kv.value.bytes()).ok()
}

impl Classes {
    /// The classes of a state. Where the two levels are missing that every cluster has, they are as upstream has them.
    pub(crate) fn of(state: &State) -> Self {
        let range = |plural: &str| KeyRange::prefix(format!("{PREFIX}{plural}/"));
        let mut levels: Vec<PriorityLevel> = state
            .range(&range("prioritylevelconfigurations"))
            .filter_map(|kv| stored::<level::Spec>(kv))
            .map(|found| PriorityLevel::new(&found.metadata.name, &found.metadata.uid, found.spec))
            .collect();
        let place =
            |levels: &[PriorityLevel], name: &str| levels.iter().position(|level| &*level.name == name);
        for needed in [PriorityLevel::exempt(), PriorityLevel::catch_all()] {
            if place(&levels, &needed.name).is_none() {
                levels.push(needed);
            }
        }
        // A schema whose level is missing means nothing.
        let mut schemas: Vec<FlowSchema> = state
            .range(&range("flowschemas"))
            .filter_map(|kv| stored::<rules::Spec>(kv))
            .filter_map(|found| {
                let rules::Spec { priority_level_configuration, .. } = &found.spec;
                let level = place(&levels, &priority_level_configuration.name)?;
                Some(FlowSchema::new(found.metadata, found.spec, level))
            })
            .collect();
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        let written = schemas.iter().find(|schema| &*schema.name == "catch-all");
        let uid = written.map(|schema| schema.uid.to_string()).unwrap_or_default();
        let level = place(&levels, "catch-all").unwrap_or_default();
        let method = rules::Method { kind: Distinguisher::ByUser };
        let spec = rules::Spec { distinguisher_method: Some(method), ..rules::Spec::default() };
        let last = FlowSchema::new(Metadata { name: "catch-all".into(), uid }, spec, level);
        Classes { levels, schemas, last }
    }

    /// The schema that means a request, and the flow within it.
    pub(crate) fn class(&self, request: &Request<'_>) -> (&FlowSchema, u64) {
        let meant = self.schemas.iter().find(|schema| schema.rules.iter().any(|rule| rule.means(request)));
        let schema = meant.unwrap_or(&self.last);
        let distinguisher = match schema.distinguisher {
            Some(Distinguisher::ByUser) => request.user,
            Some(Distinguisher::ByNamespace) => request.namespace(),
            None => "",
        };
        (schema, flow(&schema.name, distinguisher))
    }
}

impl FlowSchema {
    fn new(metadata: Metadata, spec: rules::Spec, level: usize) -> Self {
        FlowSchema {
            name: metadata.name.into(),
            uid: metadata.uid.into(),
            precedence: spec.matching_precedence,
            distinguisher: spec.distinguisher_method.map(|method| method.kind),
            rules: spec.rules,
            level,
        }
    }
}
