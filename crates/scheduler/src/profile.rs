//! By which names pods ask to be placed here, and how each of these places them: upstream's scheduling profiles.

use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use objects::Pod;

use crate::rule::{Rule, Rules};

/// The name that pods without one mean.
pub(crate) const DEFAULT: &str = "default-scheduler";

/// How pods with one `spec.schedulerName` are placed. What a plugin of upstream's decides by one host is a [`Rule`]; what it decides
/// by pods of other hosts is a field here.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The name.
    pub name: String,
    /// What each host is asked.
    pub rules: Rules,
    /// `PodTopologySpread`.
    pub spread: Sides,
    /// `InterPodAffinity`.
    pub company: Sides,
    /// Whether hosts with taints that discourage a pod come last (`TaintToleration`).
    pub sees_discouraging_taints: bool,
    /// Whether the node affinities that a pod prefers count (`NodeAffinity`).
    pub sees_preferred_nodes: bool,
    /// Whether others go for a pod without a place (`DefaultPreemption`).
    pub preempts: bool,
    /// The spread constraints of pods that have none, of whatever labels: pods of the same controller are counted.
    pub constraints: Vec<TopologySpreadConstraint>,
}

/// Which sides of a plugin take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// What must be.
    pub filters: bool,
    /// What should be.
    pub scores: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Profile {
            name: DEFAULT.to_owned(),
            rules: Rules::default(),
            spread: Sides { filters: true, scores: true },
            company: Sides { filters: true, scores: true },
            sees_discouraging_taints: true,
            sees_preferred_nodes: true,
            preempts: true,
            constraints: Vec::new(),
        }
    }
}

impl Profile {
    /// Leaves the filter of one of upstream's plugins out; false if no filter has this name.
    pub fn skip_filter(&mut self, plugin: &str) -> bool {
        match plugin {
            "PodTopologySpread" => self.spread.filters = false,
            "InterPodAffinity" => self.company.filters = false,
            _ => return self.rules.skip_filter(plugin),
        }
        true
    }

    /// Gives the score of one of upstream's plugins another weight; without one it is left out. False if no score has this name, or
    /// if it is one that is not added to others and has no weight.
    pub fn weigh(&mut self, plugin: &str, weight: u32) -> bool {
        let counts = match plugin {
            "PodTopologySpread" => &mut self.spread.scores,
            "InterPodAffinity" => &mut self.company.scores,
            "TaintToleration" => &mut self.sees_discouraging_taints,
            "NodeAffinity" => &mut self.sees_preferred_nodes,
            _ => return self.rules.weigh(plugin, weight),
        };
        *counts &= weight > 0;
        weight == 0
    }
}

/// All profiles.
#[derive(Debug, Clone)]
pub struct Profiles(Arc<[Arc<Profile>]>);

impl Default for Profiles {
    fn default() -> Self {
        Profiles(Arc::new([Arc::new(Profile::default())]))
    }
}

impl Profiles {
    /// These, with a name each; without any, the default one.
    pub fn new(profiles: impl IntoIterator<Item = Profile>) -> Self {
        let profiles: Arc<[Arc<Profile>]> = profiles.into_iter().map(Arc::new).collect();
        if profiles.is_empty() { Profiles::default() } else { Profiles(profiles) }
    }

    /// The default profile, with one more rule.
    pub fn with(rule: impl Rule) -> Self {
        let rules = Rules::default().and(rule);
        Profiles::new([Profile { rules, ..Profile::default() }])
    }

    /// The one that a pod names; none if that is another scheduler's.
    pub(crate) fn of(&self, pod: &Pod) -> Option<&Arc<Profile>> {
        let name = name_of(pod);
        self.0.iter().find(|profile| profile.name == name)
    }

    /// The first one.
    pub(crate) fn first(&self) -> &Arc<Profile> {
        &self.0[0]
    }
}

/// The scheduler that a pod names.
pub(crate) fn name_of(pod: &Pod) -> &str {
    let named = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    named.filter(|name| !name.is_empty()).unwrap_or(DEFAULT)
}
