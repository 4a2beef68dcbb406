//! Spreading by the pod's own constraints (KEP-895).

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use objects::{Meta, Pod, PodSpec, selects};

use crate::affinity::{wants_node, with_keys};
use crate::class::Class;
use crate::filter::repels;
use crate::host_row::HostRow;
use crate::node::Node;
use crate::profile::Profile;

/// One constraint of a pod.
#[derive(Debug, Clone)]
pub(crate) struct Constraint {
    pub key: String,
    /// Whether it must be kept, or should be.
    pub required: bool,
    pub max_skew: i64,
    /// With fewer domains than this, the emptiest counts as having no pod (KEP-3022).
    pub min_domains: usize,
    counted: Counted,
    honors_affinity: bool,
    honors_taints: bool,
}

/// Which pods of the same namespace count.
#[derive(Debug, Clone)]
enum Counted {
    /// Those that are selected; none without a selector.
    Selected(Option<LabelSelector>),
    /// Those that do the same work.
    Siblings,
}

impl Constraint {
    /// The constraints of a pod, or those that its profile has for pods without any.
    pub fn all(pod: &Pod, spec: &PodSpec, profile: &Profile) -> Vec<Constraint> {
        let own = spec.topology_spread_constraints.iter().flatten();
        let mut all: Vec<_> = own.map(|constraint| Constraint::of(pod, constraint)).collect();
        // As upstream, only where something says which pods belong together.
        let has_owner = pod.metadata.owners().iter().any(|owner| owner.controller == Some(true));
        if all.is_empty() && has_owner {
            let siblings =
                |constraint| Constraint { counted: Counted::Siblings, ..Constraint::of(pod, constraint) };
            all.extend(profile.constraints.iter().map(siblings));
        }
        all.retain(|c| if c.required { profile.spread.filters } else { profile.spread.scores });
        all
    }

    fn of(pod: &Pod, constraint: &TopologySpreadConstraint) -> Self {
        let keys = constraint.match_label_keys.as_ref();
        let own = pod.metadata.labels.as_deref();
        let honors = |policy: Option<&String>, default| policy.map_or(default, |policy| policy == "Honor");
        Constraint {
            key: constraint.topology_key.clone(),
            required: constraint.when_unsatisfiable != "ScheduleAnyway",
            max_skew: i64::from(constraint.max_skew),
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(0),
            counted: Counted::Selected(
                constraint.label_selector.as_ref().map(|s| with_keys(s, keys, "In", own)),
            ),
            honors_affinity: honors(constraint.node_affinity_policy.as_ref(), true),
            honors_taints: honors(constraint.node_taints_policy.as_ref(), false),
        }
    }

    /// Whether pods of a class count, for a pod of the class `own`.
    pub fn means(&self, own: &Class, other: &Class) -> bool {
        let counts = match &self.counted {
            Counted::Selected(selector) => {
                selector.as_ref().is_some_and(|selector| selects(selector, other.labels.as_deref()))
            }
            Counted::Siblings => own.is_sibling(other),
        };
        own.namespace == other.namespace && counts
    }

    /// Whether a host's pods count: `nodeAffinityPolicy` and `nodeTaintsPolicy` (KEP-3094).
    pub fn counts(&self, spec: &PodSpec, host: &HostRow, node: &Node) -> bool {
        (!self.honors_affinity || wants_node(spec, node))
            && (!self.honors_taints || !repels(spec, host, node))
    }
}
