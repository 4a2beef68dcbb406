//! When a host's pods are evicted: its configuration, as its agent takes it.

use std::time::Duration;

use node::Threshold;

/// How often the agent looks: the kubelet's `evictionMonitoringPeriod`.
const EVERY: Duration = Duration::from_secs(10);

/// What a configuration says about it.
pub fn eviction(said: &config::Eviction) -> node::Eviction {
    let threshold = |of: (&config::Signal, &config::Bound), grace| Threshold {
        signal: signal(*of.0),
        below: bound(*of.1),
        grace,
        reclaim: said.minimum_reclaim.get(of.0).map(|more| bound(*more)),
    };
    let hard = said.hard.iter().map(|of| threshold(of, None));
    let soft = said.soft.iter().map(|of| {
        let grace = said.soft_grace_period.get(of.0).map_or(Duration::ZERO, |grace| grace.0);
        threshold(of, Some(grace))
    });
    node::Eviction {
        thresholds: hard.chain(soft).collect(),
        longest_grace: said.max_pod_grace_period,
        transition: said.pressure_transition_period,
        every: EVERY,
    }
}

fn signal(of: config::Signal) -> node::Signal {
    match of {
        config::Signal::Memory => node::Signal::Memory,
        config::Signal::Nodefs => node::Signal::Nodefs,
        config::Signal::NodefsInodes => node::Signal::NodefsInodes,
        config::Signal::Imagefs => node::Signal::Imagefs,
        config::Signal::ImagefsInodes => node::Signal::ImagefsInodes,
        config::Signal::Pid => node::Signal::Pid,
    }
}

fn bound(of: config::Bound) -> node::Bound {
    match of {
        config::Bound::Amount(amount) => node::Bound::Amount(amount),
        config::Bound::Percent(hundredths) => node::Bound::Percent(f64::from(hundredths) / 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_kubelets_on_both_sides() {
        assert_eq!(eviction(&config::Eviction::default()), node::Eviction::default());
    }

    #[test]
    fn a_soft_threshold_has_its_grace() {
        let mut said = config::Eviction::default();
        let memory = config::Signal::Memory;
        said.soft.insert(memory, config::Bound::Percent(2000));
        said.soft_grace_period.insert(memory, config::Grace(Duration::from_secs(90)));
        said.minimum_reclaim.insert(memory, config::Bound::Amount(7));
        let last = *eviction(&said).thresholds.last().unwrap();
        let expected = Threshold {
            grace: Some(Duration::from_secs(90)),
            reclaim: Some(node::Bound::Amount(7)),
            ..Threshold::hard(node::Signal::Memory, node::Bound::Percent(20.0))
        };
        assert_eq!(last, expected);
    }
}
