//! `/metrics`: what a host serves, what the page about it says, and what the dashboard asks for have the same names.

use std::collections::{BTreeMap, BTreeSet};

use http::Request;
use kube::Client;
use serde_json::Value;

use crate::harness::{Cluster, wait_for};

const PAGE: &str = include_str!("../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../docs/grafana.json");
/// Words of PromQL with the underscore by which names of figures are known here.
const WORDS: [&str; 2] = ["histogram_quantile", "__rate_interval"];

/// What only hosts tell that have it configured.
const ELSEWHERE: [&str; 7] = [
    "apiserver_audit_error_total",
    "apiserver_audit_event_total",
    "apiserver_audit_level_total",
    "holdfast_audit_log_stuck",
    "holdfast_audit_waiting",
    "holdfast_sealed_values_opened_total",
    "holdfast_watchdog_timeout_seconds",
];

/// The families with their kinds, as a host tells them.
async fn told(client: &Client) -> Option<BTreeMap<String, String>> {
    let request = Request::get("/metrics").body(Vec::new()).unwrap();
    let text = client.request_text(request).await.ok()?;
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    Some(families.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect())
}

/// The families with their kinds, as the page's tables name them.
fn explained() -> BTreeMap<String, String> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let kinds = ["counter", "gauge", "histogram", "summary"];
    let families = rows.filter_map(|(name, rest)| Some((name, rest.split_once(" | ")?.0)));
    let families = families.filter(|(_, kind)| kinds.contains(kind));
    families.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// The names of figures in an expression: what has an underscore, outside of the braces with labels.
fn figures_in(expression: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for part in expression.split('{') {
        let outside = part.split_once('}').map_or(part, |(_, outside)| outside);
        let words = outside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        names.extend(words.filter(|word| word.contains('_') && !WORDS.contains(word)).map(str::to_owned));
    }
    names
}

/// All expressions of the dashboard.
fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_is_told_is_explained_and_what_the_dashboard_asks_for_is_told() {
    let cluster = Cluster::with(1, "auto").await;
    let client = cluster.client().await.unwrap();
    // The controllers' figures are there once they work.
    let told = wait_for("all figures", || async {
        told(&client).await.filter(|told| told.contains_key("workqueue_depth"))
    })
    .await;
    let mut explained = explained();
    for name in ELSEWHERE {
        assert!(explained.remove(name).is_some(), "docs/metrics.md doesn't name {name}");
    }
    assert_eq!(told, explained, "docs/metrics.md and the program name the same");

    let expressions = expressions();
    assert!(expressions.len() > 20, "{expressions:?}");
    for expression in &expressions {
        let names = figures_in(expression);
        assert!(!names.is_empty(), "{expression} asks for nothing");
        for name in names {
            let mut parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| name.strip_suffix(part));
            let is_part = |whole: &str| {
                told.get(whole).is_some_and(|kind| matches!(kind.as_str(), "histogram" | "summary"))
            };
            let is_told = told.contains_key(&name) || parts.any(is_part);
            assert!(is_told, "no host serves {name} in {expression}");
        }
    }
}

#[test]
fn names_are_found_in_expressions() {
    let of = |expression: &str| figures_in(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        of(r#"histogram_quantile(0.5, sum by (le) (rate(a_bucket{some_label=~"$x"}[$__rate_interval])))"#),
        ["a_bucket"]
    );
    assert_eq!(of(r#"b_c{x="y"} - scalar(max(d_e{x="y"}))"#), ["b_c", "d_e"]);
}
