//! Scaling a deployment, in the middle of a rollout in proportion to its sets' sizes
//! (`scale` of `pkg/controller/deployment/sync.go`).

use super::rollout::Rollout;

pub(super) fn scale(rollout: &mut Rollout<'_>) {
    let active: Vec<usize> = (0..rollout.sets.len()).filter(|at| rollout.sets[*at].replicas > 0).collect();
    let single = match active.as_slice() {
        [] => rollout.new.or(rollout.sets.len().checked_sub(1)),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(at) = single {
        rollout.sets[at].replicas = rollout.replicas;
        rollout.note_size(at);
    } else if rollout.new_set().is_some_and(|set| rollout.is_saturated(set)) {
        rollout.retire_old();
    } else if !rollout.is_recreate() {
        in_proportion(rollout, active);
    }
}

fn in_proportion(rollout: &mut Rollout<'_>, mut active: Vec<usize>) {
    let all: i64 = active.iter().map(|at| i64::from(rollout.sets[*at].replicas)).sum();
    let allowed = if rollout.replicas > 0 { i64::from(rollout.maximum()) } else { 0 };
    let to_add = allowed - all;
    // The largest first; of two equal ones the newer grows first and the older shrinks first.
    active.sort_by_key(|at| {
        let age = i64::try_from(*at).unwrap_or(i64::MAX);
        (-i64::from(rollout.sets[*at].replicas), if to_add > 0 { -age } else { age })
    });
    let mut added = 0;
    for at in &active {
        let share = share(rollout, *at, to_add - added, to_add);
        added += share;
        resize(rollout, *at, share);
    }
    if let Some(first) = active.first() {
        resize(rollout, *first, to_add - added);
    }
    for at in active {
        rollout.note_size(at);
    }
}

fn resize(rollout: &mut Rollout<'_>, at: usize, by: i64) {
    let set = &mut rollout.sets[at];
    set.replicas = i32::try_from((i64::from(set.replicas) + by).max(0)).unwrap_or(i32::MAX);
}

/// What one set gets of the pods that are added or taken away, no more than is left of them.
fn share(rollout: &Rollout<'_>, at: usize, left: i64, to_add: i64) -> i64 {
    let set = &rollout.sets[at];
    let size = i64::from(set.replicas);
    if to_add == 0 || left == 0 || size == 0 {
        return 0;
    }
    let fraction = if rollout.replicas == 0 {
        -size
    } else {
        let now = f64::from(rollout.maximum());
        let status = rollout.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let before = set.maximum_before().filter(|max| *max > 0).unwrap_or(i64::from(status).max(1));
        // Sizes are far below 2^52: nothing is lost.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        let scaled = (size as f64 * now / before as f64).round() as i64;
        scaled - size
    };
    if to_add > 0 { fraction.clamp(0, left) } else { fraction.clamp(left, 0) }
}
