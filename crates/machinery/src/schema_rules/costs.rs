//! What the rules of a schema may cost: too much is refused when it is written.
//!
//! Follows `pkg/apis/apiextensions/validation` of apiextensions-apiserver.

use cel::Sizes;
use serde_json::Value;

use crate::faults::Faults;
use crate::status::Cause;

/// The most that one rule may cost in all places of an object where it applies, as upstream (`StaticEstimatedCostLimit`).
const MOST_OF_RULE: u64 = 10_000_000;
/// The most that all rules of a schema may cost together, as upstream (`StaticEstimatedCRDCostLimit`).
const MOST_OF_ALL: u64 = 100_000_000;
/// The most rules that are named where all together cost too much, as upstream.
const MOST_NAMED: usize = 4;

/// The costs of a schema's rules, counted up.
#[derive(Default)]
pub(super) struct Costs<'s> {
    pub(super) sizes: Sizes<'s>,
    total: u64,
    expensive: Vec<(u64, String)>,
    faults: Vec<Cause>,
}

impl<'s> Costs<'s> {
    /// Counts a rule of `schema`, of whose values there are as many as `count` in an object, where that is limited.
    pub(super) fn rule(&mut self, schema: &'s Value, count: Option<u64>, cost: u64, path: String) {
        let count = count.unwrap_or_else(|| self.sizes.most_often(schema));
        self.count("estimated rule cost", cost.saturating_mul(count), path);
    }

    /// Counts a message, which is made once.
    pub(super) fn message(&mut self, cost: u64, path: String) {
        self.count("estimated messageExpression cost", cost, path);
    }

    fn count(&mut self, what: &str, cost: u64, path: String) {
        if cost > MOST_OF_RULE {
            self.faults.push(Cause::forbidden(&path, &exceeds(what, cost, MOST_OF_RULE)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= MOST_OF_ALL / 100 {
            self.expensive.push((cost, path));
        }
    }

    /// What is too expensive in the schema at `path`.
    pub(super) fn finish(mut self, path: &str, faults: &mut Faults) {
        faults.extend(std::mem::take(&mut self.faults));
        if self.total <= MOST_OF_ALL {
            return;
        }
        self.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        faults.extend(self.expensive.iter().take(MOST_NAMED).map(|(_, path)| Cause::forbidden(path, why)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        faults.push(Cause::forbidden(path, &exceeds(what, self.total, MOST_OF_ALL)));
    }
}

fn exceeds(what: &str, cost: u64, most: u64) -> String {
    let factor = match cost as f64 / most as f64 {
        factor if factor > 100.0 => "more than 100x".to_owned(),
        factor if factor < 1.5 => format!("{factor:.6}x"),
        factor => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
        maxLength where arrays, maps, and strings are declared)"
    )
}

/// How many values there are at most below each value of a schema; nothing where that isn't limited.
pub(super) fn below(schema: &Value) -> Option<u64> {
    let limit = |key: &str| schema.get(key)?.as_i64().map(|most| u64::try_from(most).unwrap_or(0));
    match schema.get("type").and_then(Value::as_str) {
        Some("object") if schema.get("additionalProperties").is_some() => limit("maxProperties"),
        Some("array") => limit("maxItems"),
        _ => Some(1),
    }
}
