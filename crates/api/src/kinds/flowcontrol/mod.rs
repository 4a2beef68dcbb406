//! `flowcontrol.apiserver.k8s.io`.

mod flow_schema;
mod priority_level;

pub(crate) use flow_schema::FlowSchema;
pub(crate) use priority_level::PriorityLevelConfiguration;

/// What requests of a node's or a cluster's last resort are matched by.
const EXEMPT: &str = "exempt";
