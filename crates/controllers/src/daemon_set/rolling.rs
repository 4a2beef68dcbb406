//! One step of a DaemonSet's rolling update (`rollingUpdate` of `pkg/controller/daemon/update.go`).

use std::sync::Arc;

use objects::Pod;

use super::fleet::{Changes, Fleet, Host, staying};

/// The pod of the current template and the other one on a host, as far as there is one; or more of them than that.
enum OnHost<'a> {
    Pair(Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>),
    TooMany,
}

/// Which old pods are deleted, and where new ones are made beside them. Nothing with the strategy `OnDelete`.
pub(super) fn step<'a>(fleet: &Fleet<'a>) -> Changes<'a> {
    let kind = fleet.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
    if kind == Some("OnDelete") {
        return Changes::default();
    }
    match fleet.limits() {
        (0, missing) => replace(fleet, missing),
        (surge, _) => surge_by(fleet, surge),
    }
}

fn on_host<'a>(fleet: &Fleet<'a>, host: &Host<'a>) -> OnHost<'a> {
    let (new, old): (Vec<_>, Vec<_>) = staying(&host.pods).partition(|pod| fleet.is_updated(pod));
    match (new.as_slice(), old.as_slice()) {
        ([] | [_], [] | [_]) => OnHost::Pair(new.first().copied(), old.first().copied()),
        _ => OnHost::TooMany,
    }
}

/// Hosts that have a pod or shall have one.
fn concerned<'f, 'a>(fleet: &'f Fleet<'a>) -> impl Iterator<Item = &'f Host<'a>> {
    fleet.hosts.iter().filter(|host| host.eligibility.starts || !host.pods.is_empty())
}

/// Old pods go, and the hosts get their new ones afterwards: never more than `most` are without a pod that serves.
fn replace<'a>(fleet: &Fleet<'a>, most: usize) -> Changes<'a> {
    let mut without = 0;
    let (mut gone, mut candidates) = (Vec::new(), Vec::new());
    for host in concerned(fleet) {
        match on_host(fleet, host) {
            OnHost::Pair(None, Some(old)) if fleet.is_available(old) => candidates.push(old),
            // It serves nobody: that it goes costs nothing, and its host is without one already. (Upstream doesn't count it, and
            // may have too many hosts without while one update follows upon another.)
            OnHost::Pair(None, Some(old)) => {
                gone.push(old);
                without += 1;
            }
            OnHost::Pair(Some(new), None) if fleet.is_available(new) => {}
            _ => without += 1,
        }
    }
    gone.extend(candidates.into_iter().take(most.saturating_sub(without)));
    Changes { on: Vec::new(), gone: gone.into_iter().map(|pod| (pod, None)).collect() }
}

/// New pods come beside old ones that serve, on `most` hosts at a time; an old one goes when the new one serves.
fn surge_by<'a>(fleet: &Fleet<'a>, most: usize) -> Changes<'a> {
    let (mut surging, mut serving) = (0, 0);
    let (mut gone, mut misplaced) = (Vec::new(), Vec::new());
    let (mut on, mut candidates) = (Vec::new(), Vec::new());
    for host in concerned(fleet) {
        let OnHost::Pair(new, old) = on_host(fleet, host) else {
            surging += 1;
            continue;
        };
        let serves = |pod: Option<&Arc<Pod>>| pod.is_some_and(|pod| fleet.is_available(pod));
        serving += usize::from(serves(new) || serves(old));
        match (new, old) {
            (_, None) => {}
            (None, Some(old)) if !host.eligibility.starts => misplaced.push(old),
            (None, Some(old)) if fleet.is_available(old) => candidates.push(host.name),
            (None, Some(_)) => on.push(host.name),
            (Some(new), Some(old)) if fleet.is_available(new) => gone.push(old),
            (Some(_), Some(_)) => surging += 1,
        }
    }
    // What is on a host that is no longer meant goes as others serve in its place.
    let meant = fleet.hosts.iter().filter(|host| host.eligibility.starts).count();
    gone.extend(misplaced.into_iter().take(serving.saturating_sub(meant)));
    on.extend(candidates.into_iter().take(most.saturating_sub(surging)));
    Changes { on, gone: gone.into_iter().map(|pod| (pod, None)).collect() }
}
