//! How pods are placed: scheduling profiles, in the words of upstream's `KubeSchedulerConfiguration`
//! (kubescheduler.config.k8s.io/v1).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::Findings;

/// The name of the profile for pods that name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";
/// The most profiles.
const MOST_PROFILES: usize = 32;
/// The most that one score may weigh more than another.
const LARGEST_WEIGHT: u32 = 100;

/// How pods are placed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scheduling {
    /// One for each `spec.schedulerName` that is served; without any, `default-scheduler` is, as by default.
    #[serde(default)]
    pub profiles: Vec<Profile>,
}

/// How pods with one `spec.schedulerName` are placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// The name.
    #[serde(default = "default_scheduler")]
    pub scheduler_name: String,
    /// Which plugins take part.
    #[serde(default)]
    pub plugins: Plugins,
    /// Arguments of some of them.
    #[serde(default)]
    pub plugin_config: Vec<PluginConfig>,
}

/// Plugins that are switched on and off, by the point where they take part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Plugins {
    /// At every point.
    pub multi_point: PluginSet,
    /// Where nodes are left out.
    pub filter: PluginSet,
    /// Where there is no node, and others may go.
    pub post_filter: PluginSet,
    /// Where nodes are compared.
    pub score: PluginSet,
}

/// What is switched on and off at one point; `*` in `disabled` is all that is on by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginSet {
    /// Switched on, with a weight where nodes are compared.
    pub enabled: Vec<Plugin>,
    /// Switched off.
    pub disabled: Vec<Plugin>,
}

/// A plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// How much its score weighs; its default without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// A plugin's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PluginConfig {
    /// Its name.
    pub name: String,
    /// The arguments.
    pub args: Value,
}

/// A spread constraint of pods that have none of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefaultConstraint {
    /// How many more pods one domain may have than another.
    pub max_skew: i32,
    /// The label whose values are the domains.
    pub topology_key: String,
    /// Whether it must be kept.
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// Whether a constraint must be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhenUnsatisfiable {
    /// It must be.
    DoNotSchedule,
    /// It should be.
    ScheduleAnyway,
}

/// What a profile comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Filters that are off.
    pub filters_off: BTreeSet<&'static str>,
    /// Scores that don't weigh what they weigh by default; one that weighs nothing is off.
    pub weights: BTreeMap<&'static str, u32>,
    /// Whether other pods may go for one without a place.
    pub preempts: bool,
    /// Constraints of pods that have none of their own.
    pub constraints: Vec<DefaultConstraint>,
}

fn default_scheduler() -> String {
    DEFAULT_SCHEDULER.to_owned()
}

/// Upstream's default plugins whose filter can be off.
pub const FREE_FILTERS: &[&str] = &[
    "NodeUnschedulable",
    "TaintToleration",
    "NodeAffinity",
    "NodePorts",
    "NodeResourcesFit",
    "NodeVolumeLimits",
    "VolumeZone",
    "PodTopologySpread",
    "InterPodAffinity",
];
/// Those whose filter stays on, and why.
const KEPT_FILTERS: &[(&str, &str)] = &[
    ("NodeName", "a pod that names its node is not placed by a scheduler"),
    ("VolumeRestrictions", "two pods would have a volume that only one may have"),
    ("VolumeBinding", "pods would be bound where their volumes can't be"),
    ("DynamicResources", "pods would be bound where their devices aren't"),
];
/// Those whose score is on or off, and comes before or after others whatever it weighs.
pub const RANKED_SCORES: &[&str] =
    &["TaintToleration", "NodeAffinity", "PodTopologySpread", "InterPodAffinity"];
/// Those whose score is added to others, times its weight.
pub const WEIGHED_SCORES: &[&str] = &["NodeResourcesFit", "NodeResourcesBalancedAllocation", "ImageLocality"];
const PREEMPTION: &str = "DefaultPreemption";
const ALL: &str = "*";

/// What is wrong, and what to do.
pub type Refused = (String, &'static str);

impl Scheduling {
    /// Whether it says nothing.
    pub(crate) fn is_default(&self) -> bool {
        self.profiles.is_empty()
    }

    pub(crate) fn check(&self, findings: &mut Findings) {
        findings.require(
            self.profiles.len() <= MOST_PROFILES,
            "scheduling.profiles",
            format!("{} profiles are more than {MOST_PROFILES}", self.profiles.len()),
            "name fewer",
        );
        let mut names = BTreeSet::new();
        for (at, profile) in self.profiles.iter().take(MOST_PROFILES).enumerate() {
            let field = format!("scheduling.profiles[{at}]");
            findings.require(
                !profile.scheduler_name.is_empty() && names.insert(&profile.scheduler_name),
                &format!("{field}.schedulerName"),
                format!("{:?} is empty, or the name of an earlier profile", profile.scheduler_name),
                "give each profile a name of its own",
            );
            if let Err((path, (what, remedy))) = profile.settled() {
                findings.problem(format!("{field}.{path}"), what, remedy);
            }
        }
    }
}

impl Profile {
    /// What it comes to.
    ///
    /// # Errors
    /// The field that can't be as it is, what is wrong with it and what to do.
    pub fn settled(&self) -> Result<Settled, (String, Refused)> {
        let mut settled = Settled { preempts: true, ..Settled::default() };
        let Plugins { multi_point, filter, post_filter, score } = &self.plugins;
        let every = Point { filter: true, score: true, preemption: true };
        let none = Point { filter: false, score: false, preemption: false };
        // As upstream, what is said of one point counts more than what is said of all.
        for (name, point, set) in [
            ("multiPoint", every, multi_point),
            ("filter", Point { filter: true, ..none }, filter),
            ("postFilter", Point { preemption: true, ..none }, post_filter),
            ("score", Point { score: true, ..none }, score),
        ] {
            for (list, plugins, on) in [("disabled", &set.disabled, false), ("enabled", &set.enabled, true)] {
                for (at, plugin) in plugins.iter().enumerate() {
                    settled
                        .switch(point, plugin, on)
                        .map_err(|refused| (format!("plugins.{name}.{list}[{at}]"), refused))?;
                }
            }
        }
        for (at, config) in self.plugin_config.iter().enumerate() {
            settled.configure(config).map_err(|refused| (format!("pluginConfig[{at}]"), refused))?;
        }
        Ok(settled)
    }
}

/// Where a plugin takes part.
#[derive(Clone, Copy)]
struct Point {
    filter: bool,
    score: bool,
    preemption: bool,
}

impl Settled {
    fn switch(&mut self, point: Point, plugin: &Plugin, on: bool) -> Result<(), Refused> {
        let name = plugin.name.as_str();
        if plugin.weight.is_some_and(|weight| !(1..=LARGEST_WEIGHT).contains(&weight)) {
            return Err((format!("a weight is from 1 to {LARGEST_WEIGHT}"), "take one of these"));
        }
        if name == ALL && !on {
            return self.switch_all_off(point);
        }
        if name == PREEMPTION && point.preemption {
            self.preempts = on;
            return Ok(());
        }
        let find = |list: &[&'static str]| list.iter().copied().find(|known| *known == name);
        let (free, ranked, weighed) = (find(FREE_FILTERS), find(RANKED_SCORES), find(WEIGHED_SCORES));
        let kept = KEPT_FILTERS.iter().find(|(known, _)| *known == name);
        if free.or(ranked).or(weighed).is_none() && kept.is_none() {
            let what = format!("{name:?} is no plugin that filters or scores here");
            return Err((
                what,
                "leave it out; docs/scheduling.md names those that there are, and says how to add a rule",
            ));
        }
        let filter = free.filter(|_| point.filter);
        let (ranked, weighed) = (ranked.filter(|_| point.score), weighed.filter(|_| point.score));
        if let Some((name, why)) = kept.filter(|_| point.filter) {
            return if on { Ok(()) } else { Err((format!("{name} can't be off: {why}"), "leave it out")) };
        }
        if filter.or(ranked).or(weighed).is_none() {
            return Err((format!("{name} has no part in this"), "leave it out"));
        }
        if ranked.is_some() && on && plugin.weight.is_some() {
            return Err((
                format!("{name} has no weight: it comes before or after others, however much they differ"),
                "leave the weight out",
            ));
        }
        if let Some(filter) = filter {
            if on {
                self.filters_off.remove(filter)
            } else {
                self.filters_off.insert(filter)
            };
        }
        if let Some(score) = ranked.or(weighed) {
            match plugin.weight.filter(|_| on).or((!on).then_some(0)) {
                Some(weight) => self.weights.insert(score, weight),
                None => self.weights.remove(score),
            };
        }
        Ok(())
    }

    fn switch_all_off(&mut self, point: Point) -> Result<(), Refused> {
        if point.filter {
            return Err((
                format!("{ALL:?} would switch off filters that stay on"),
                "name each plugin that is to be off",
            ));
        }
        if point.preemption {
            self.preempts = false;
        }
        if point.score {
            self.weights.extend(RANKED_SCORES.iter().chain(WEIGHED_SCORES).map(|name| (*name, 0)));
        }
        Ok(())
    }

    fn configure(&mut self, config: &PluginConfig) -> Result<(), Refused> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Spread {
            #[serde(default, rename = "apiVersion")]
            _version: Option<String>,
            #[serde(default, rename = "kind")]
            _kind: Option<String>,
            #[serde(default)]
            default_constraints: Vec<DefaultConstraint>,
            #[serde(default)]
            defaulting_type: Option<DefaultingType>,
        }
        #[derive(Deserialize, PartialEq)]
        enum DefaultingType {
            System,
            List,
        }
        if config.name != "PodTopologySpread" {
            let what = format!("the arguments of {} can't be set here", config.name);
            return Err((what, "leave them out: what counts is what docs/scheduling.md says"));
        }
        let spread: Spread = serde_json::from_value(config.args.clone())
            .map_err(|why| (format!("args: {why}"), "write PodTopologySpreadArgs"))?;
        let is_list = spread.defaulting_type == Some(DefaultingType::List);
        if !spread.default_constraints.is_empty() && !is_list {
            let what = "args.defaultConstraints count only where args.defaultingType is List".to_owned();
            return Err((what, "say so, or leave them out"));
        }
        if spread.default_constraints.iter().any(|c| c.max_skew < 1 || c.topology_key.is_empty()) {
            let what =
                "a constraint of args.defaultConstraints has no topologyKey, or a maxSkew below 1".to_owned();
            return Err((what, "give it both"));
        }
        self.constraints = spread.default_constraints;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settled(profile: Value) -> Result<Settled, String> {
        let profile: Profile = serde_json::from_value(profile).map_err(|error| error.to_string())?;
        profile.settled().map_err(|(field, (what, remedy))| format!("{field}: {what}; {remedy}"))
    }

    #[test]
    fn a_profile_switches_plugins_as_upstream_reads_it() {
        let plain = settled(json!({})).unwrap();
        assert_eq!(plain, Settled { preempts: true, ..Settled::default() });
        let off = |name: &str| json!({"disabled": [{"name": name}]});
        let both = settled(json!({"plugins": {"multiPoint": off("NodeResourcesFit")}})).unwrap();
        assert_eq!(both.filters_off, ["NodeResourcesFit"].into());
        assert_eq!(both.weights, [("NodeResourcesFit", 0)].into());
        let score = settled(json!({"plugins": {"score": {
            "disabled": [{"name": "*"}], "enabled": [{"name": "ImageLocality", "weight": 5}, {"name": "NodeAffinity"}],
        }}}));
        let weights = score.unwrap().weights;
        assert_eq!((weights["ImageLocality"], weights["NodeResourcesFit"]), (5, 0));
        assert!(!weights.contains_key("NodeAffinity"), "on, as by default");
        assert!(!settled(json!({"plugins": {"postFilter": off("DefaultPreemption")}})).unwrap().preempts);
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"});
        let args = json!({"defaultingType": "List", "defaultConstraints": [constraint]});
        let spread = settled(json!({"pluginConfig": [{"name": "PodTopologySpread", "args": args}]})).unwrap();
        assert_eq!(spread.constraints[0].topology_key, "zone");
    }

    #[test]
    fn what_is_not_supported_is_refused_with_the_reason() {
        let plugins = |point: &str, set: Value| json!({"plugins": {point: set}});
        let args = |name: &str, args: Value| json!({"pluginConfig": [{"name": name, "args": args}]});
        let constraints = json!({"defaultConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]});
        for (profile, expected) in [
            (
                plugins("filter", json!({"disabled": [{"name": "VolumeBinding"}]})),
                "VolumeBinding can't be off: pods would",
            ),
            (plugins("filter", json!({"disabled": [{"name": "*"}]})), "name each plugin"),
            (
                plugins("score", json!({"enabled": [{"name": "NodeAffinity", "weight": 9}]})),
                "NodeAffinity has no weight",
            ),
            (plugins("score", json!({"enabled": [{"name": "ImageLocality", "weight": 0}]})), "from 1 to 100"),
            (plugins("score", json!({"disabled": [{"name": "NodePorts"}]})), "NodePorts has no part in this"),
            (plugins("filter", json!({"enabled": [{"name": "Coscheduling"}]})), "is no plugin"),
            (plugins("permit", json!({})), "unknown field `permit`"),
            (args("NodeResourcesFit", json!({})), "the arguments of NodeResourcesFit can't be set"),
            (args("PodTopologySpread", constraints), "only where args.defaultingType is List"),
        ] {
            let refused = settled(profile.clone()).unwrap_err();
            assert!(refused.contains(expected), "{profile}: {refused}");
        }
        let mut findings = Findings::default();
        let profile: Profile = serde_json::from_value(json!({})).unwrap();
        Scheduling { profiles: vec![profile.clone(), profile] }.check(&mut findings);
        assert_eq!(findings.problems[0].field, "scheduling.profiles[1].schedulerName");
    }
}
