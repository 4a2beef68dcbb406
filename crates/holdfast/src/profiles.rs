//! Scheduling profiles, from a host's configuration to its scheduler.

use anyhow::{bail, ensure};
use config::{Scheduling, WhenUnsatisfiable};
use scheduler::{Profile, Profiles, TopologySpreadConstraint};

/// The profiles that a configuration names, which was checked.
pub fn profiles(scheduling: &Scheduling) -> anyhow::Result<Profiles> {
    let profiles: anyhow::Result<Vec<Profile>> = scheduling.profiles.iter().map(profile).collect();
    Ok(Profiles::new(profiles?))
}

fn profile(configured: &config::Profile) -> anyhow::Result<Profile> {
    let settled = match configured.settled() {
        Ok(settled) => settled,
        Err((field, (what, remedy))) => bail!("{field}: {what}; {remedy}"),
    };
    let mut profile = Profile { name: configured.scheduler_name.clone(), ..Profile::default() };
    for plugin in &settled.filters_off {
        ensure!(profile.skip_filter(plugin), "the scheduler has no filter {plugin}");
    }
    for (plugin, weight) in &settled.weights {
        ensure!(profile.weigh(plugin, *weight), "the scheduler has no score {plugin} of weight {weight}");
    }
    profile.preempts = settled.preempts;
    profile.constraints = settled
        .constraints
        .iter()
        .map(|constraint| TopologySpreadConstraint {
            max_skew: constraint.max_skew,
            topology_key: constraint.topology_key.clone(),
            when_unsatisfiable: match constraint.when_unsatisfiable {
                WhenUnsatisfiable::DoNotSchedule => "DoNotSchedule".to_owned(),
                WhenUnsatisfiable::ScheduleAnyway => "ScheduleAnyway".to_owned(),
            },
            ..TopologySpreadConstraint::default()
        })
        .collect();
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheduler_knows_every_plugin_that_a_configuration_may_name() {
        let all = |names: &[&str]| {
            names.iter().map(|name| config::Plugin { name: (*name).into(), weight: None }).collect()
        };
        let mut configured: config::Profile = serde_json::from_str("{}").unwrap();
        configured.plugins.filter.disabled = all(config::FREE_FILTERS);
        configured.plugins.score.disabled = all(&["*"]);
        profiles(&Scheduling { profiles: vec![configured.clone()] }).unwrap();
        let weighed = |name: &str| config::Plugin { name: name.into(), weight: Some(7) };
        configured.plugins.score.enabled = config::WEIGHED_SCORES.iter().copied().map(weighed).collect();
        profiles(&Scheduling { profiles: vec![configured] }).unwrap();
    }
}
