//! What an autoscaler asks for, and what the answers say.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricSource, ExternalMetricSource, HorizontalPodAutoscaler, MetricIdentifier,
    MetricSpec, MetricTarget, ObjectMetricSource, PodsMetricSource,
};
use machinery::{LabelSelector, Quantity};
use objects::{Question, key};
use serde_json::{Value, json};

use super::replicas::{
    Count, Measure, Measures, Member, Tolerances, for_average, for_utilization, for_value, for_value_each,
};
use crate::view::View;

/// What was answered to each question.
pub type Answers = Vec<(Question, Result<Value, String>)>;

/// Without its own, a measure is an average of so long (`metricServerDefaultMetricWindow`).
const WINDOW: Duration = Duration::from_secs(60);

/// What a metric asks for.
pub(super) struct Proposal {
    pub replicas: i32,
    /// The metric's name in messages.
    pub name: String,
    /// What stands in the status.
    pub status: Value,
}

/// Why a metric says nothing: the reason in Events and conditions, and what failed.
pub(super) struct Fault {
    pub reason: &'static str,
    /// For the Event and the condition.
    pub why: String,
    /// For the sum of all faults.
    pub what: String,
}

/// What is known when metrics are looked at.
pub(super) struct Situation<'a> {
    pub view: &'a View,
    pub namespace: &'a str,
    /// The target's selector.
    pub selector: &'a str,
    pub members: &'a [Member],
    /// What the target asks for, and what it has.
    pub current: i32,
    pub there: i32,
    pub tolerances: Tolerances,
    pub now: Timestamp,
}

/// What is to be asked for the metrics of an autoscaler; nothing for those that can't be asked for.
pub(super) fn questions(view: &View, autoscaler: &HorizontalPodAutoscaler, selector: &str) -> Vec<Question> {
    let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
    let metrics = autoscaler.spec.metrics.iter().flatten();
    let questions = metrics.filter_map(|metric| question(view, namespace, selector, metric));
    let mut asked = HashSet::new();
    questions.filter(|question| asked.insert(question.clone())).collect()
}

fn question(view: &View, namespace: &str, selector: &str, metric: &MetricSpec) -> Option<Question> {
    let of_pods = || vec![("labelSelector", selector.to_owned())];
    let of_metric = |metric: &MetricIdentifier| {
        let selector =
            metric.selector.as_ref().and_then(|selector| LabelSelector::from_value(&json!(selector)));
        selector.map(|selector| selector.to_string()).filter(|text| !text.is_empty())
    };
    if metric.resource.is_some() || metric.container_resource.is_some() {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        return Some(Question { path, query: of_pods() });
    }
    let custom = || format!("/apis/custom.metrics.k8s.io/{}/namespaces/{namespace}", version(view));
    if let Some(PodsMetricSource { metric, .. }) = &metric.pods {
        let mut query = of_pods();
        query.extend(of_metric(metric).map(|selector| ("metricLabelSelector", selector)));
        return Some(Question { path: format!("{}/pods/*/{}", custom(), metric.name), query });
    }
    if let Some(ObjectMetricSource { described_object: object, metric, .. }) = &metric.object {
        let query = of_metric(metric).map(|selector| ("metricLabelSelector", selector)).into_iter().collect();
        let path = match object.kind.as_str() {
            "Namespace" => format!("{}/metrics/{}", custom(), metric.name),
            kind => {
                let version = object.api_version.as_deref().unwrap_or("v1");
                let lies = view.graph.kinds().find(version, kind)?;
                let resource = match lies.group {
                    "" => lies.plural.to_owned(),
                    group => format!("{}.{group}", lies.plural),
                };
                format!("{}/{resource}/{}/{}", custom(), object.name, metric.name)
            }
        };
        return Some(Question { path, query });
    }
    let ExternalMetricSource { metric, .. } = metric.external.as_ref()?;
    let query = of_metric(metric).map(|selector| ("labelSelector", selector)).into_iter().collect();
    let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{}", metric.name);
    Some(Question { path, query })
}

/// The version of custom metrics that somebody serves.
fn version(view: &View) -> &'static str {
    let name = "v1beta2.custom.metrics.k8s.io";
    let newer = view.state().get(key("apiregistration.k8s.io", "apiservices", "", name).as_bytes());
    if newer.is_some() { "v1beta2" } else { "v1beta1" }
}

/// How many pods a metric asks for.
pub(super) fn propose(it: &Situation<'_>, metric: &MetricSpec, answers: &Answers) -> Result<Proposal, Fault> {
    let asked = question(it.view, it.namespace, it.selector, metric);
    let answer = || -> Result<&Value, &str> {
        let asked = asked.as_ref().ok_or("the object's kind is not known")?;
        let found = answers.iter().find(|(question, _)| question == asked);
        found.ok_or("it was not asked for")?.1.as_ref().map_err(String::as_str)
    };
    let fault = |reason, what: &str| {
        let what = what.to_owned();
        move |why: String| Fault { reason, what: format!("{what}: {why}"), why }
    };
    if let Some(source) = &metric.resource {
        let fault =
            fault("FailedGetResourceMetric", &format!("failed to get {} resource metric value", source.name));
        let measured = |target| resource(it, (&source.name, None), target, answer());
        let (count, what) = measured(&source.target).map_err(fault)?;
        let current = value_of(&count);
        return Ok(Proposal {
            replicas: count.replicas,
            name: format!("{} resource{what}", source.name),
            status: json!({"type": "Resource", "resource": {"name": source.name, "current": current}}),
        });
    }
    if let Some(ContainerResourceMetricSource { container, name, target }) = &metric.container_resource {
        let fault = fault(
            "FailedGetContainerResourceMetric",
            &format!("failed to get {name} container metric value"),
        );
        let (count, what) = resource(it, (name, Some(container)), target, answer()).map_err(fault)?;
        let current = value_of(&count);
        let status = json!({"name": name, "container": container, "current": current});
        return Ok(Proposal {
            replicas: count.replicas,
            name: format!("{name} container resource{what}"),
            status: json!({"type": "ContainerResource", "containerResource": status}),
        });
    }
    if let Some(PodsMetricSource { metric, target }) = &metric.pods {
        let fault = fault("FailedGetPodsMetric", "failed to get pods metric value");
        let count = answer()
            .map_err(|why| format!("unable to fetch metrics from custom metrics API: {why}"))
            .and_then(custom)
            .map_err(|why| format!("unable to get metric {}: {why}", metric.name))
            .and_then(|measures| {
                let target = milli(target.average_value.as_ref())
                    .ok_or("invalid pods metric source: no average value")?;
                for_average(it.current, it.members, measures, target, "", it.tolerances, it.now)
            })
            .map_err(fault)?;
        return Ok(Proposal {
            replicas: count.replicas,
            name: format!("pods metric {}", metric.name),
            status: json!({"type": "Pods", "pods": {"metric": metric, "current": value_of(&count)}}),
        });
    }
    if let Some(ObjectMetricSource { described_object: object, metric, target }) = &metric.object {
        let fault = fault("FailedGetObjectMetric", "failed to get object metric value");
        let usage = answer()
            .map_err(|why| format!("unable to fetch metrics from custom metrics API: {why}"))
            .and_then(|value| custom(value).map(|measures| measures.values().map(|m| m.value).sum()));
        let usage = usage.map_err(|why| {
            format!(
                "unable to get metric {}: {} on {} {}/{why}",
                metric.name, object.kind, it.namespace, object.name
            )
        });
        let (replicas, current) = usage.and_then(|usage| of_whole(it, target, usage)).map_err(fault)?;
        let status = json!({"metric": metric, "describedObject": object, "current": current});
        return Ok(Proposal {
            replicas,
            name: format!("{} metric {}", object.kind, metric.name),
            status: json!({"type": "Object", "object": status}),
        });
    }
    if let Some(ExternalMetricSource { metric, target }) = &metric.external {
        let fault =
            fault("FailedGetExternalMetric", &format!("failed to get {} external metric value", metric.name));
        let usage =
            answer().map_err(|why| format!("unable to fetch metrics from external metrics API: {why}"));
        let usage = usage
            .and_then(external)
            .map_err(|why| format!("unable to get external metric {}/{}: {why}", it.namespace, metric.name));
        let (replicas, current) = usage.and_then(|usage| of_whole(it, target, usage)).map_err(fault)?;
        return Ok(Proposal {
            replicas,
            name: format!("external metric {}", metric.name),
            status: json!({"type": "External", "external": {"metric": metric, "current": current}}),
        });
    }
    let why = format!("unknown metric source type {:?}", metric.type_);
    Err(Fault { reason: "InvalidMetricSourceType", what: why.clone(), why })
}

/// What a resource of all containers, or of one, asks for, and how that is called.
fn resource(
    it: &Situation<'_>,
    (name, container): (&str, Option<&str>),
    target: &MetricTarget,
    answer: Result<&Value, &str>,
) -> Result<(Count, &'static str), String> {
    let measures = answer
        .map_err(|why| format!("unable to fetch metrics from resource metrics API: {why}"))
        .and_then(|answer| of_pods(answer, it.namespace, name, container))
        .map_err(|why| format!("unable to get metrics for resource {name}: {why}"));
    if let Some(average) = milli(target.average_value.as_ref()) {
        let count = measures.and_then(|measures| {
            for_average(it.current, it.members, measures, average, name, it.tolerances, it.now)
        });
        return Ok((count.map_err(|why| format!("failed to get {name} usage: {why}"))?, ""));
    }
    let Some(percent) = target.average_utilization else {
        return Err("invalid resource metric source: neither an average utilization target nor an average value (usage) \
                    target was set"
            .to_owned());
    };
    let count = measures.and_then(|measures| {
        for_utilization(it.current, it.members, measures, percent, (name, container), it.tolerances, it.now)
    });
    let what = " utilization (percentage of request)";
    Ok((count.map_err(|why| format!("failed to get {name} utilization: {why}"))?, what))
}

/// The measures in a list of PodMetrics.
fn of_pods(
    answer: &Value,
    namespace: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<Measures, String> {
    let items = answer["items"].as_array().filter(|items| !items.is_empty());
    let items = items.ok_or("no metrics returned from resource metrics API")?;
    let mut measures = Measures::new();
    for item in items {
        let pod = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let all = item["containers"].as_array().into_iter().flatten();
        let meant: Vec<&Value> = match container {
            None => all.collect(),
            Some(name) => all.filter(|container| container["name"] == name).collect(),
        };
        if let (Some(name), true) = (container, meant.is_empty()) {
            return Err(format!("container {name} not present in metrics for pod {namespace}/{pod}"));
        }
        let amount = |container: &&Value| {
            let text = container.pointer(&format!("/usage/{resource}")).and_then(Value::as_str)?;
            Quantity::parse(text).ok().map(|quantity| quantity.milli())
        };
        // A pod of which something is missing is one of which nothing is known.
        if let Some(value) = meant.iter().map(amount).sum::<Option<i128>>() {
            measures.insert(pod.to_owned(), measure(item, value));
        }
    }
    Ok(measures)
}

fn measure(item: &Value, value: i128) -> Measure {
    let at = item["timestamp"].as_str().and_then(|at| at.parse().ok()).unwrap_or(Timestamp::MIN);
    let window = item["window"].as_str().and_then(|window| window.parse::<SignedDuration>().ok());
    let seconds = item["windowSeconds"].as_u64().map(Duration::from_secs);
    let window = window.and_then(|window| Duration::try_from(window).ok()).or(seconds).unwrap_or(WINDOW);
    Measure { value, at, window }
}

/// The measures in a list of MetricValues, by the names of what they describe.
fn custom(answer: &Value) -> Result<Measures, String> {
    let items = answer["items"].as_array().filter(|items| !items.is_empty());
    let items = items.ok_or("no metrics returned from custom metrics API")?;
    let one = |item: &Value| {
        let name = item.pointer("/describedObject/name")?.as_str()?.to_owned();
        let value = Quantity::parse(item["value"].as_str()?).ok()?.milli();
        Some((name, measure(item, value)))
    };
    Ok(items.iter().filter_map(one).collect())
}

/// The sum of a list of ExternalMetricValues.
fn external(answer: &Value) -> Result<i128, String> {
    let items = answer["items"].as_array().filter(|items| !items.is_empty());
    let items = items.ok_or("no metrics returned from external metrics API")?;
    let values =
        items.iter().map(|item| Quantity::parse(item["value"].as_str()?).ok().map(|value| value.milli()));
    values.sum::<Option<i128>>().ok_or_else(|| "a value is no quantity".to_owned())
}

/// How many pods a value of something as a whole asks for, and what stands in the status.
fn of_whole(it: &Situation<'_>, target: &MetricTarget, usage: i128) -> Result<(i32, Value), String> {
    if let Some(value) = milli(target.value.as_ref()) {
        let replicas = for_value(it.current, it.members, (usage, value), it.tolerances)?;
        return Ok((replicas, json!({"value": Quantity::from_milli(clamp(usage)).to_string()})));
    }
    let each = milli(target.average_value.as_ref());
    let each =
        each.ok_or("invalid metric source: neither a value target nor an average value target was set")?;
    let count = for_value_each(it.there, (usage, each), it.tolerances);
    Ok((count.replicas, value_of(&count)))
}

fn value_of(count: &Count) -> Value {
    let mut value = json!({"averageValue": Quantity::from_milli(clamp(count.average)).to_string()});
    if let Some(utilization) = count.utilization {
        value["averageUtilization"] = utilization.into();
    }
    value
}

fn clamp(milli: i128) -> i64 {
    i64::try_from(milli).unwrap_or(i64::MAX)
}

/// An amount in thousandths; nothing if there is none, or none that can be divided by.
fn milli(amount: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Option<i128> {
    Quantity::parse(&amount?.0).ok().map(|amount| amount.milli()).filter(|milli| *milli > 0)
}
