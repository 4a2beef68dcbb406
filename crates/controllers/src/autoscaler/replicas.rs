//! How many pods a metric asks for.
//!
//! Follows `pkg/controller/podautoscaler/replica_calculator.go`: pods that say nothing, or are not ready yet, are taken for what
//! keeps a decision from being too bold.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use machinery::Quantity;
use serde_json::Value;

/// The use of a processor by a pod this young counts only once it is ready (`--horizontal-pod-autoscaler-cpu-initialization-period`).
const INITIALIZATION: Duration = Duration::from_secs(300);
/// A pod that was last ready before this, after its start, has never been (`--horizontal-pod-autoscaler-initial-readiness-delay`).
const READINESS_DELAY: Duration = Duration::from_secs(30);
/// By so much more or less than the target nothing changes (`--horizontal-pod-autoscaler-tolerance`).
pub(super) const TOLERANCE: f64 = 0.1;

/// By how much less and more than the target a metric may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn bear(&self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What a pod was measured at, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measure {
    pub value: i128,
    pub at: Timestamp,
    pub window: Duration,
}

/// Measures by the names of pods.
pub(super) type Measures = BTreeMap<String, Measure>;

/// A pod that is scaled.
#[derive(Debug, Clone)]
pub(super) struct Member {
    name: String,
    /// It has failed or is being deleted.
    leaves: bool,
    phase: String,
    /// Whether it is ready (nothing if neither True nor False), and since when.
    ready: Option<(Option<bool>, Timestamp)>,
    started: Option<Timestamp>,
    spec: Value,
}

/// A number of pods, and what it was made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Count {
    pub replicas: i32,
    /// Percent of what is asked for.
    pub utilization: Option<i32>,
    /// Of each pod, in thousandths.
    pub average: i128,
}

impl Member {
    /// What matters of a pod as it is stored.
    pub fn of(mut pod: Value) -> Self {
        let spec = pod.get_mut("spec").map(Value::take).unwrap_or_default();
        let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let time = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse().ok());
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
        let ready = ready.map(|ready| {
            let status = match ready["status"].as_str() {
                Some("True") => Some(true),
                Some("False") => Some(false),
                _ => None,
            };
            (status, time(ready.get("lastTransitionTime")).unwrap_or(Timestamp::MIN))
        });
        Member {
            name: text("/metadata/name").to_owned(),
            leaves: !text("/metadata/deletionTimestamp").is_empty() || text("/status/phase") == "Failed",
            phase: text("/status/phase").to_owned(),
            ready,
            started: time(pod.pointer("/status/startTime")),
            spec,
        }
    }

    /// What it asks for of a resource, of one container or of all.
    fn request(&self, resource: &str, container: Option<&str>) -> Result<i128, String> {
        let amount = |of: &Value| {
            let text = of.pointer(&format!("/resources/requests/{resource}")).and_then(Value::as_str)?;
            Quantity::parse(text).ok().map(|quantity| quantity.milli())
        };
        if let Some(whole) = amount(&self.spec).filter(|_| container.is_none()) {
            return Ok(whole);
        }
        let list = |field: &str| self.spec.get(field).and_then(Value::as_array).into_iter().flatten();
        let sidecars = list("initContainers").filter(|c| c["restartPolicy"] == "Always");
        let mut sum = 0;
        for one in list("containers").chain(sidecars) {
            let name = one["name"].as_str().unwrap_or_default();
            if container.is_none_or(|wanted| wanted == name) {
                let missing =
                    || format!("missing request for {resource} in container {name} of Pod {}", self.name);
                sum += amount(one).ok_or_else(missing)?;
            }
        }
        Ok(sum)
    }

    /// Whether what it uses of the processors is no measure yet: it is starting.
    fn starts(&self, measure: &Measure, now: Timestamp) -> bool {
        let (Some((ready, since)), Some(started)) = (self.ready, self.started) else { return true };
        // Times come from agents and metrics' servers: their differences always fit, their sums don't.
        let is_within = |later: Timestamp, earlier: Timestamp, time: Duration| {
            later.duration_since(earlier) < SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
        };
        if is_within(now, started, INITIALIZATION) {
            return ready == Some(false) || is_within(measure.at, since, measure.window);
        }
        ready == Some(false) && is_within(since, started, READINESS_DELAY)
    }
}

/// Pods by what is known of them.
#[derive(Default)]
struct Groups {
    ready: usize,
    unready: Vec<String>,
    missing: Vec<String>,
}

/// Sorts pods, and takes the measures of those away that don't count.
fn group(members: &[Member], measures: &mut Measures, resource: &str, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for member in members {
        let measure = measures.get(&member.name).copied();
        if member.leaves {
            measures.remove(&member.name);
        } else if member.phase == "Pending" {
            measures.remove(&member.name);
            groups.unready.push(member.name.clone());
        } else {
            match measure {
                None => groups.missing.push(member.name.clone()),
                Some(measure) if resource == "cpu" && member.starts(&measure, now) => {
                    measures.remove(&member.name);
                    groups.unready.push(member.name.clone());
                }
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

/// How many pods a share of what they ask for means.
pub(super) fn for_utilization(
    current: i32,
    members: &[Member],
    mut measures: Measures,
    target: i32,
    (resource, container): (&str, Option<&str>),
    tolerances: Tolerances,
    now: Timestamp,
) -> Result<Count, String> {
    let groups = prepare(members, &mut measures, resource, now)?;
    let requests =
        members.iter().map(|member| Ok((member.name.clone(), member.request(resource, container)?)));
    let requests: BTreeMap<String, i128> = requests.collect::<Result<_, String>>()?;
    let utilization = |measures: &Measures| -> Result<(i32, i128), String> {
        let known = measures.iter().filter_map(|(name, measure)| Some((measure.value, *requests.get(name)?)));
        let (used, asked, count) = known.fold((0, 0, 0), |(used, asked, count), (value, request)| {
            (used + value, asked + request, count + 1)
        });
        if asked == 0 {
            return Err("no metrics returned matched known pods".to_owned());
        }
        Ok((i32::try_from(used * 100 / asked).unwrap_or(i32::MAX), used / count))
    };
    let (percent, average) = utilization(&measures)?;
    let ratio = |measures: &Measures| {
        utilization(measures).map(|(percent, _)| f64::from(percent) / f64::from(target))
    };
    // On the way down a pod of which nothing is known uses all that it asks for.
    let low = |name: &str| requests.get(name).copied().unwrap_or(0) * i128::from(target.max(100)) / 100;
    let replicas = settle(current, &groups, measures, ratio, low, tolerances)?;
    Ok(Count { replicas, utilization: Some(percent), average })
}

/// How many pods an amount for each of them means, in thousandths; `resource` is empty for what is none.
pub(super) fn for_average(
    current: i32,
    members: &[Member],
    mut measures: Measures,
    target: i128,
    resource: &str,
    tolerances: Tolerances,
    now: Timestamp,
) -> Result<Count, String> {
    let groups = prepare(members, &mut measures, resource, now)?;
    let mean = |measures: &Measures| {
        let count = i128::try_from(measures.len()).unwrap_or(i128::MAX).max(1);
        measures.values().map(|measure| measure.value).sum::<i128>() / count
    };
    let average = mean(&measures);
    let ratio = |measures: &Measures| Ok(mean(measures) as f64 / target as f64);
    let replicas = settle(current, &groups, measures, ratio, |_| target, tolerances)?;
    Ok(Count { replicas, utilization: None, average })
}

fn prepare(
    members: &[Member],
    measures: &mut Measures,
    resource: &str,
    now: Timestamp,
) -> Result<Groups, String> {
    if members.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    if !resource.is_empty() {
        let known: HashSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
        measures.retain(|name, _| known.contains(name.as_str()));
    }
    let groups = group(members, measures, resource, now);
    if measures.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    Ok(groups)
}

/// The number of pods, with those of which too little is known taken for what speaks against a change.
fn settle(
    current: i32,
    groups: &Groups,
    mut measures: Measures,
    ratio: impl Fn(&Measures) -> Result<f64, String>,
    low: impl Fn(&str) -> i128,
    tolerances: Tolerances,
) -> Result<i32, String> {
    let first = ratio(&measures)?;
    let up_with_unready = !groups.unready.is_empty() && first > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        return Ok(if tolerances.bear(first) { current } else { times(first, groups.ready) });
    }
    let taken_for = |value| Measure { value, at: Timestamp::MIN, window: Duration::ZERO };
    for name in &groups.missing {
        if first < 1.0 {
            measures.insert(name.clone(), taken_for(low(name)));
        } else if first > 1.0 {
            measures.insert(name.clone(), taken_for(0));
        }
    }
    if up_with_unready {
        measures.extend(groups.unready.iter().map(|name| (name.clone(), taken_for(0))));
    }
    let ratio = ratio(&measures)?;
    if tolerances.bear(ratio) || (first < 1.0 && ratio > 1.0) || (first > 1.0 && ratio < 1.0) {
        return Ok(current);
    }
    let count = times(ratio, measures.len());
    let is_back = (ratio < 1.0 && count > current) || (ratio > 1.0 && count < current);
    Ok(if is_back { current } else { count })
}

/// The number of pods by a ratio, rounded up.
fn times(ratio: f64, count: usize) -> i32 {
    (ratio * count as f64).ceil() as i32
}

/// How many pods a value of the whole means: in proportion to those that are ready.
pub(super) fn for_value(
    current: i32,
    members: &[Member],
    (usage, target): (i128, i128),
    tolerances: Tolerances,
) -> Result<i32, String> {
    let ratio = usage as f64 / target as f64;
    if current == 0 {
        return Ok(times(ratio, 1));
    }
    if tolerances.bear(ratio) {
        return Ok(current);
    }
    if members.is_empty() {
        return Err(
            "unable to calculate ready pods: no pods returned by selector while calculating replica count"
                .into(),
        );
    }
    let serves =
        |member: &&Member| member.phase == "Running" && matches!(member.ready, Some((Some(true), _)));
    Ok(times(ratio, members.iter().filter(serves).count()))
}

/// How many pods a value of the whole means of which each takes `target`, of so many that there are.
pub(super) fn for_value_each(replicas: i32, (usage, target): (i128, i128), tolerances: Tolerances) -> Count {
    let whole = target as f64 * f64::from(replicas);
    let wanted = match replicas > 0 && tolerances.bear(usage as f64 / whole) {
        true => replicas,
        false => times(usage as f64 / target as f64, 1),
    };
    let each = (usage as f64 / f64::from(replicas.max(1))).ceil() as i128;
    Count { replicas: wanted, utilization: None, average: each }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EVEN: Tolerances = Tolerances { down: TOLERANCE, up: TOLERANCE };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// A pod that asks for a processor and has been ready for long.
    fn pod(number: usize, change: impl Fn(&mut Value)) -> Member {
        let mut pod = json!({
            "metadata": {"name": format!("p{number}")},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Running", "startTime": at(-4000).to_string(), "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": at(-3990).to_string()}]},
        });
        change(&mut pod);
        Member::of(pod)
    }

    fn measures(values: &[(usize, i128)]) -> Measures {
        let window = Duration::from_secs(15);
        values
            .iter()
            .map(|(n, value)| (format!("p{n}"), Measure { value: *value, at: at(0), window }))
            .collect()
    }

    fn cpu(current: i32, members: &[Member], values: &[(usize, i128)], target: i32) -> Result<i32, String> {
        let counted = for_utilization(current, members, measures(values), target, ("cpu", None), EVEN, at(0));
        counted.map(|count| count.replicas)
    }

    fn plain(count: usize) -> Vec<Member> {
        (0..count).map(|number| pod(number, |_| {})).collect()
    }

    #[test]
    fn replicas_follow_the_ratio_beyond_the_tolerance() {
        let three = plain(3);
        assert_eq!(cpu(3, &three, &[(0, 500), (1, 600), (2, 700)], 30), Ok(6), "upstream: scale up");
        assert_eq!(cpu(3, &three, &[(0, 320), (1, 330), (2, 340)], 30), Ok(3), "a tenth more is borne");
        assert_eq!(cpu(3, &three, &[(0, 100), (1, 100), (2, 100)], 30), Ok(1));
        let counted = for_utilization(
            3,
            &three,
            measures(&[(0, 500), (1, 600), (2, 700)]),
            30,
            ("cpu", None),
            EVEN,
            at(0),
        );
        assert_eq!(counted, Ok(Count { replicas: 6, utilization: Some(60), average: 600 }));
        let own = Tolerances { down: 0.1, up: 0.01 };
        let counted = |tolerances| {
            for_average(3, &three, measures(&[(0, 105), (1, 105), (2, 105)]), 100, "cpu", tolerances, at(0))
        };
        assert_eq!(counted(EVEN).unwrap().replicas, 3);
        assert_eq!(counted(own).unwrap().replicas, 4);
    }

    #[test]
    fn what_is_not_known_speaks_against_a_change() {
        let four = plain(4);
        // Missing ones use nothing on the way up, and all that they ask for on the way down.
        assert_eq!(cpu(4, &four, &[(0, 900), (1, 900), (2, 900)], 50), Ok(6));
        assert_eq!(cpu(4, &four, &[(0, 100), (1, 100), (2, 100)], 50), Ok(3));
        assert_eq!(cpu(4, &four, &[(0, 300), (1, 300)], 50), Ok(4), "it would turn round");
        // Those that start use nothing on the way up, and don't count on the way down.
        let starting = |pod: &mut Value| {
            pod["status"]["startTime"] = at(-60).to_string().into();
            pod["status"]["conditions"][0]["status"] = "False".into();
        };
        let mut some = plain(3);
        some.push(pod(3, starting));
        assert_eq!(cpu(4, &some, &[(0, 900), (1, 900), (2, 900), (3, 2000)], 50), Ok(6));
        assert_eq!(cpu(4, &some, &[(0, 100), (1, 100), (2, 100), (3, 2000)], 50), Ok(1));
        let pending = |pod: &mut Value| pod["status"] = json!({"phase": "Pending"});
        some[3] = pod(3, pending);
        assert_eq!(cpu(4, &some, &[(0, 900), (1, 900), (2, 900)], 50), Ok(6));
        // A pod that leaves is none.
        some[3] = pod(3, |pod| pod["metadata"]["deletionTimestamp"] = at(0).to_string().into());
        assert_eq!(cpu(4, &some, &[(0, 900), (1, 900), (2, 900), (3, 0)], 50), Ok(6));
    }

    #[test]
    fn a_fresh_pod_counts_once_it_was_measured_while_ready() {
        let ready_at = |since: i64| {
            pod(0, |pod| {
                pod["status"]["startTime"] = at(-60).to_string().into();
                pod["status"]["conditions"][0]["lastTransitionTime"] = at(since).to_string().into();
            })
        };
        let measure = measures(&[(0, 1)])["p0"];
        assert!(ready_at(-10).starts(&measure, at(0)), "part of the window lies before it was ready");
        assert!(!ready_at(-15).starts(&measure, at(0)));
        let failed_late = pod(0, |pod| {
            pod["status"]["conditions"][0]["status"] = "False".into();
        });
        assert!(failed_late.starts(&measure, at(0)), "it was never ready: its condition is from the start");
        let once = pod(0, |pod| {
            pod["status"]["conditions"][0] =
                json!({"type": "Ready", "status": "False", "lastTransitionTime": at(-10).to_string()});
        });
        assert!(!once.starts(&measure, at(0)), "it was ready once");
    }

    #[test]
    fn why_nothing_can_be_said_is_said() {
        let says = |result: Result<i32, String>| result.unwrap_err();
        assert_eq!(
            says(cpu(1, &[], &[], 50)),
            "no pods returned by selector while calculating replica count"
        );
        assert!(says(cpu(1, &plain(1), &[], 50)).starts_with("did not receive metrics for targeted pods"));
        let free = pod(0, |pod| pod["spec"]["containers"][0]["resources"] = json!({}));
        assert_eq!(says(cpu(1, &[free], &[(0, 1)], 50)), "missing request for cpu in container c of Pod p0");
    }

    #[test]
    fn a_value_of_the_whole_is_shared() {
        let three = plain(3);
        assert_eq!(for_value(3, &three, (2000, 1000), EVEN), Ok(6));
        assert_eq!(for_value(3, &three, (1050, 1000), EVEN), Ok(3));
        assert_eq!(for_value(0, &[], (2500, 1000), EVEN), Ok(3), "from nothing");
        assert_eq!(for_value_each(3, (6000, 1000), EVEN).replicas, 6);
        assert_eq!(
            for_value_each(3, (3100, 1000), EVEN),
            Count { replicas: 3, utilization: None, average: 1034 }
        );
    }

    #[test]
    fn no_time_that_somebody_says_is_too_far_away() {
        let pod = json!({
            "metadata": {"name": "p"},
            "status": {"phase": "Running", "startTime": "9999-12-30T22:00:00Z", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "9999-12-30T22:00:00Z"}]},
        });
        let measure = Measure { value: 1, at: at(0), window: Duration::MAX };
        assert!(Member::of(pod).starts(&measure, at(0)));
    }
}
