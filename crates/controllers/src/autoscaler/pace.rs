//! How fast a number of pods may follow what metrics ask for.
//!
//! Follows `normalizeDesiredReplicas` and `normalizeDesiredReplicasWithBehaviors` of
//! `pkg/controller/podautoscaler/horizontal.go` (KEP-853).

use std::time::{Duration, Instant};

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// The highest recommendation of so long counts on the way down, unless another time is asked for.
const DOWN: Duration = Duration::from_secs(300);
/// Without rules of its own, a target at most doubles, or gets this many.
const FEW: i32 = 4;
/// The longest time that rules may look back.
const LONGEST: Duration = Duration::from_secs(3600);

/// What an autoscaler remembers of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pace {
    /// When it last asked for its metrics.
    pub(super) asked: Option<Instant>,
    recommended: Vec<(Instant, i32)>,
    added: Vec<(Instant, i32)>,
    removed: Vec<(Instant, i32)>,
    /// A change that was written, and not seen yet.
    changes: Option<(Instant, i32, i32)>,
}

/// A condition's status, reason and message.
pub(super) type Said = (bool, &'static str, &'static str);

/// What becomes of a recommendation.
pub(super) struct Paced {
    pub replicas: i32,
    /// Of AbleToScale.
    pub able: Said,
    /// Of ScalingLimited.
    pub limited: Said,
}

const UNLIMITED: Said = (false, "DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Said =
    (true, "TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Said =
    (true, "TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FAST_UP: Said =
    (true, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const TOO_FAST_DOWN: Said =
    (true, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const STEADY: Said = (true, "ReadyForNewScale", "recommended size matches current size");
const HELD_UP: Said = (
    true,
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const HELD_DOWN: Said = (
    true,
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);

impl Pace {
    /// An autoscaler that begins recommends what there is.
    pub(super) fn begin(&mut self, current: i32, now: Instant) {
        // One that was refused doesn't count.
        if let Some((at, from, to)) = self.changes.take().filter(|(_, _, to)| *to == current) {
            let list = if to > from { &mut self.added } else { &mut self.removed };
            list.push((at, (to - from).abs()));
        }
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
        for list in [&mut self.recommended, &mut self.added, &mut self.removed] {
            list.retain(|(at, _)| now.saturating_duration_since(*at) < LONGEST);
        }
    }

    /// The number of pods is about to change.
    pub(super) fn changes(&mut self, from: i32, to: i32, now: Instant) {
        self.changes = Some((now, from, to));
    }

    /// How far a recommendation is followed now.
    pub(super) fn pace(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        (current, wanted): (i32, i32),
        (least, most): (i32, i32),
        now: Instant,
    ) -> Paced {
        let rules =
            |of: fn(&HorizontalPodAutoscalerBehavior) -> Option<&HPAScalingRules>| behavior.and_then(of);
        let (up, down) = (rules(|b| b.scale_up.as_ref()), rules(|b| b.scale_down.as_ref()));
        let held = self.hold((current, wanted), (up, down), behavior.is_none(), now);
        let able = match held == wanted {
            true => STEADY,
            false if behavior.is_some() && wanted >= current => HELD_DOWN,
            false => HELD_UP,
        };
        let (replicas, limited) = match behavior {
            None => plainly(current, held, least, most),
            Some(_) if held > current => self.up(up, current, held, most, now),
            Some(_) if held < current => self.down(down, current, held, least, now),
            Some(_) => (held, UNLIMITED),
        };
        Paced { replicas, able, limited }
    }

    /// The recommendation, unless recent ones speak against it.
    fn hold(
        &mut self,
        (current, wanted): (i32, i32),
        (up, down): (Option<&HPAScalingRules>, Option<&HPAScalingRules>),
        plain: bool,
        now: Instant,
    ) -> i32 {
        let window = |rules: Option<&HPAScalingRules>, otherwise| {
            let seconds = rules.and_then(|rules| rules.stabilization_window_seconds);
            seconds.map_or(otherwise, |s| Duration::from_secs(u64::try_from(s).unwrap_or(0)))
        };
        let within = |window: Duration| {
            let recent =
                self.recommended.iter().filter(move |(at, _)| now.saturating_duration_since(*at) < window);
            recent.map(|(_, replicas)| *replicas)
        };
        let lowest = within(window(up, Duration::ZERO)).fold(wanted, i32::min);
        let highest = within(window(down, DOWN)).fold(wanted, i32::max);
        self.recommended.push((now, wanted));
        // Without rules the highest counts, even if there are fewer now.
        if plain { highest } else { current.max(lowest).min(highest) }
    }

    fn up(
        &self,
        rules: Option<&HPAScalingRules>,
        current: i32,
        wanted: i32,
        most: i32,
        now: Instant,
    ) -> (i32, Said) {
        let usual = [("Percent", 100, 15), ("Pods", FEW, 15)];
        let limit = self.limit(rules, &usual, (current, true), now, |start, kind, value| match kind {
            "Pods" => start.saturating_add(value),
            _ => (f64::from(start) * (1.0 + f64::from(value) / 100.0)).ceil() as i32,
        });
        let (allowed, why) = match limit.max(current) {
            limit if most > limit => (limit, TOO_FAST_UP),
            _ => (most, TOO_MANY),
        };
        if wanted > allowed { (allowed, why) } else { (wanted, UNLIMITED) }
    }

    fn down(
        &self,
        rules: Option<&HPAScalingRules>,
        current: i32,
        wanted: i32,
        least: i32,
        now: Instant,
    ) -> (i32, Said) {
        let limit = self.limit(
            rules,
            &[("Percent", 100, 15)],
            (current, false),
            now,
            |start, kind, value| match kind {
                "Pods" => start.saturating_sub(value),
                _ => (f64::from(start) * (1.0 - f64::from(value) / 100.0)) as i32,
            },
        );
        let (allowed, why) = match limit.min(current) {
            limit if least < limit => (limit, TOO_FAST_DOWN),
            _ => (least, TOO_FEW),
        };
        if wanted < allowed { (allowed, why) } else { (wanted, UNLIMITED) }
    }

    /// What the policies of some rules let the number be: the one that changes most, or least, from what it was when its period began.
    fn limit(
        &self,
        rules: Option<&HPAScalingRules>,
        usual: &[(&str, i32, i32)],
        (current, is_up): (i32, bool),
        now: Instant,
        proposal: impl Fn(i32, &str, i32) -> i32,
    ) -> i32 {
        let select = rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let own = rules.and_then(|rules| rules.policies.as_ref()).filter(|policies| !policies.is_empty());
        let policies: Vec<(&str, i32, i32)> = match own {
            Some(own) => own.iter().map(|p| (p.type_.as_str(), p.value, p.period_seconds)).collect(),
            None => usual.to_vec(),
        };
        let sum = |list: &[(Instant, i32)], period: Duration| {
            let recent = list.iter().filter(|(at, _)| now.saturating_duration_since(*at) < period);
            recent.map(|(_, change)| *change).sum::<i32>()
        };
        let limits = policies.into_iter().map(|(kind, value, period)| {
            let period = Duration::from_secs(u64::try_from(period).unwrap_or(0));
            let start = current - sum(&self.added, period) + sum(&self.removed, period);
            proposal(start, kind, value)
        });
        // Up, the highest number changes most, and down the lowest.
        let chosen = if (select == "Min") == is_up { limits.min() } else { limits.max() };
        chosen.unwrap_or(current)
    }
}

/// Without rules: within the bounds, and at most twice what there is.
fn plainly(current: i32, wanted: i32, least: i32, most: i32) -> (i32, Said) {
    let fast = current.saturating_mul(2).max(FEW);
    let (allowed, why) = if most > fast { (fast, TOO_FAST_UP) } else { (most, TOO_MANY) };
    if wanted < least {
        (least, TOO_FEW)
    } else if wanted > allowed {
        (allowed, why)
    } else {
        (wanted, UNLIMITED)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    // The start of a test's own time.
    #[allow(clippy::disallowed_methods)]
    fn start() -> Instant {
        Instant::now()
    }

    fn behavior(value: Value) -> HorizontalPodAutoscalerBehavior {
        serde_json::from_value(value).unwrap()
    }

    /// What is made of recommendations, each after some seconds: the number of pods, and why not more or less.
    fn run(
        behavior: Option<Value>,
        from: i32,
        wanted: &[(u64, i32)],
    ) -> Vec<(i32, &'static str, &'static str)> {
        let behavior = behavior.map(self::behavior);
        let (mut notes, mut current, mut now) = (Pace::default(), from, start());
        let step = |(seconds, wanted): &(u64, i32)| {
            now += Duration::from_secs(*seconds);
            notes.begin(current, now);
            let paced = notes.pace(behavior.as_ref(), (current, *wanted), (1, 100), now);
            if paced.replicas != current {
                notes.changes(current, paced.replicas, now);
            }
            current = paced.replicas;
            (paced.replicas, paced.able.1, paced.limited.1)
        };
        wanted.iter().map(step).collect()
    }

    #[test]
    fn without_rules_it_doubles_at_most_and_sinks_after_five_minutes() {
        let steady = "ReadyForNewScale";
        assert_eq!(
            run(None, 3, &[(0, 50), (15, 50), (15, 50), (15, 50), (15, 50), (15, 200)]),
            [
                (6, steady, "ScaleUpLimit"),
                (12, steady, "ScaleUpLimit"),
                (24, steady, "ScaleUpLimit"),
                (48, steady, "ScaleUpLimit"),
                (50, steady, "DesiredWithinRange"),
                (100, steady, "TooManyReplicas"),
            ]
        );
        assert_eq!(
            run(None, 10, &[(0, 2), (15, 5), (290, 2), (15, 0)]),
            [
                (10, "ScaleDownStabilized", "DesiredWithinRange"),
                (10, "ScaleDownStabilized", "DesiredWithinRange"),
                (5, "ScaleDownStabilized", "DesiredWithinRange"),
                (2, "ScaleDownStabilized", "DesiredWithinRange"),
            ]
        );
    }

    #[test]
    fn rules_say_how_fast_it_grows() {
        let pods = |value: i32, period: i32| json!({"type": "Pods", "value": value, "periodSeconds": period});
        let rules = json!({"scaleUp": {"policies": [pods(2, 60)]}});
        let steady = "ReadyForNewScale";
        assert_eq!(
            run(Some(rules), 3, &[(0, 50), (15, 50), (46, 50)]),
            [(5, steady, "ScaleUpLimit"), (5, steady, "ScaleUpLimit"), (7, steady, "ScaleUpLimit")]
        );
        let percent = json!({"type": "Percent", "value": 50, "periodSeconds": 15});
        let both =
            |select: &str| json!({"scaleUp": {"policies": [pods(10, 15), percent], "selectPolicy": select}});
        assert_eq!(run(Some(both("Max")), 3, &[(0, 50)])[0].0, 13);
        assert_eq!(run(Some(both("Min")), 3, &[(0, 50)])[0].0, 5);
        assert_eq!(run(Some(both("Disabled")), 3, &[(0, 50)])[0], (3, steady, "ScaleUpLimit"));
        assert_eq!(run(Some(json!({})), 3, &[(0, 50)])[0].0, 7, "as upstream by default");
    }

    #[test]
    fn rules_say_how_fast_it_shrinks() {
        let rules = json!({"scaleDown": {"stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 10, "periodSeconds": 60}]}});
        let steady = "ReadyForNewScale";
        assert_eq!(
            run(Some(rules), 80, &[(0, 1), (15, 1), (46, 1)]),
            [(72, steady, "ScaleDownLimit"), (72, steady, "ScaleDownLimit"), (64, steady, "ScaleDownLimit")]
        );
        let off = json!({"scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Disabled"}});
        assert_eq!(run(Some(off), 80, &[(0, 1)])[0], (80, steady, "ScaleDownLimit"));
        let now = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
        assert_eq!(run(Some(now), 80, &[(0, 0)])[0], (1, steady, "TooFewReplicas"));
    }

    #[test]
    fn recent_recommendations_hold_it_both_ways() {
        let slow = json!({"scaleUp": {"stabilizationWindowSeconds": 60}});
        let held: Vec<_> = run(Some(slow), 3, &[(0, 6), (15, 5), (50, 6)]);
        assert_eq!(held[0], (3, "ScaleUpStabilized", "DesiredWithinRange"));
        assert_eq!(held[1], (3, "ScaleUpStabilized", "DesiredWithinRange"));
        assert_eq!(held[2], (5, "ScaleUpStabilized", "DesiredWithinRange"), "the lowest of a minute");
        assert_eq!(run(Some(json!({})), 9, &[(0, 3)])[0], (9, "ScaleDownStabilized", "DesiredWithinRange"));
    }
}
