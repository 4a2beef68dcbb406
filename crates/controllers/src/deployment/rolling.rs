//! One step of a rolling update: up with the new set, down with the old ones, within the limits
//! (`pkg/controller/deployment/rolling.go`).

use super::rollout::Rollout;

pub(super) fn step(rollout: &mut Rollout<'_>) {
    if rollout.created.is_some() {
        return;
    }
    let own = rollout.new_set().map_or(0, |set| set.replicas);
    let grown = if own > rollout.replicas { rollout.replicas } else { rollout.room_for_new() };
    if own != grown {
        rollout.grow_new_to(grown);
        return;
    }
    shrink_old(rollout);
}

fn shrink_old(rollout: &mut Rollout<'_>) {
    let sum = |values: &mut dyn Iterator<Item = i32>| values.fold(0, i32::saturating_add);
    if sum(&mut rollout.old().map(|set| set.replicas)) == 0 {
        return;
    }
    let all = sum(&mut rollout.sets.iter().map(|set| set.replicas));
    let available = sum(&mut rollout.sets.iter().map(|set| set.available()));
    let minimum = rollout.replicas - rollout.limits().1;
    let new_unavailable = rollout.new_set().map_or(0, |set| set.replicas - set.available());
    let mut may_go = all - minimum - new_unavailable;

    // First those that don't serve: nobody misses them, and they must not block the update.
    for set in rollout.old_mut() {
        if may_go <= 0 {
            return;
        }
        let unavailable = (set.replicas - set.available()).clamp(0, may_go);
        set.replicas -= unavailable;
        may_go -= unavailable;
    }
    let mut may_go = may_go.min(available - minimum);
    for set in rollout.old_mut() {
        let gone = set.replicas.min(may_go).max(0);
        set.replicas -= gone;
        may_go -= gone;
    }
}
