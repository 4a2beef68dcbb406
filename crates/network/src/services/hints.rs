//! Whose callers an endpoint is for, by zone and by node.
//!
//! Follows `k8s.io/kubernetes/pkg/proxy`, `CategorizeEndpoints` and `topologyModeFromHints` (KEP-2433, KEP-3015), with one thing more:
//! what is far comes after what is near, for callers whom nobody near answers.

use k8s_openapi::api::discovery::v1;

use super::Endpoint;

/// The label of a node's zone (`k8s.io/api/core/v1`, `LabelTopologyZone`).
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

/// What a hint of one kind says of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hint {
    /// There is none.
    #[default]
    Missing,
    /// It is for callers elsewhere.
    Elsewhere,
    /// It is for callers on this host, maybe beside others.
    Here,
}

/// Whose callers an endpoint is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hints {
    /// Whether for those on this node.
    pub node: Hint,
    /// Whether for those in this host's zone.
    pub zone: Hint,
}

/// What an endpoint's hints name, before this host's zone is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Named {
    node: Hint,
    zones: Box<[Box<str>]>,
}

impl Named {
    pub fn of(endpoint: &v1::Endpoint, host: &str) -> Self {
        let Some(hints) = &endpoint.hints else { return Named::default() };
        let nodes = hints.for_nodes.iter().flatten().map(|node| node.name.as_str());
        let zones = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str().into());
        Named { node: hint(nodes, Some(host)), zones: zones.collect() }
    }

    /// Whether they depend on the zone.
    pub fn name_zones(&self) -> bool {
        !self.zones.is_empty()
    }

    /// On a host in a zone, if it is in one.
    pub fn seen_from(&self, zone: Option<&str>) -> Hints {
        Hints { node: self.node, zone: hint(self.zones.iter().map(|zone| &**zone), zone) }
    }
}

fn hint<'a>(names: impl Iterator<Item = &'a str>, own: Option<&str>) -> Hint {
    names.fold(Hint::Missing, |hint, name| match hint {
        Hint::Here => Hint::Here,
        _ if Some(name) == own => Hint::Here,
        _ => Hint::Elsewhere,
    })
}

/// Sorts those who may serve a caller, near ones first, and answers how many those are: all of them, unless all have a hint and
/// some of those are for this node, or else for this zone. Within both parts the order stays.
pub(crate) fn near_first(endpoints: &mut [Endpoint]) -> usize {
    let kinds: [fn(&Hints) -> Hint; 2] = [|hints| hints.node, |hints| hints.zone];
    for kind in kinds {
        let is_here = |endpoint: &&Endpoint| kind(&endpoint.hints) == Hint::Here;
        let near = endpoints.iter().filter(is_here).count();
        if near > 0 && endpoints.iter().all(|endpoint| kind(&endpoint.hints) != Hint::Missing) {
            endpoints.sort_by_key(|endpoint| kind(&endpoint.hints) != Hint::Here);
            return near;
        }
    }
    endpoints.len()
}
