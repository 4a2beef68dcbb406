//! `PriorityLevelConfiguration`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::{Value, json};

use super::EXEMPT;
use crate::kinds::field::{self, between, default, part, text};

pub(crate) struct PriorityLevelConfiguration;

const MOST_QUEUES: i64 = 10_000_000;

impl Rules for PriorityLevelConfiguration {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 0)
    }

    fn set_defaults(&self, object: &mut Object) {
        let Some(spec) = object.0.get_mut("spec") else { return };
        if spec["type"] == "Exempt" {
            default(spec, "exempt", json!({}));
        }
        if let Some(exempt) = spec.get_mut("exempt") {
            default(exempt, "nominalConcurrencyShares", 0);
            default(exempt, "lendablePercent", 0);
        }
        let Some(limited) = spec.get_mut("limited") else { return };
        default(limited, "nominalConcurrencyShares", 30);
        default(limited, "lendablePercent", 0);
        if let Some(queuing) = limited.get_mut("limitResponse").and_then(|it| it.get_mut("queuing")) {
            for (field, number) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                if queuing[field].as_i64().unwrap_or_default() == 0 {
                    queuing[field] = number.into();
                }
            }
        }
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        let kind = text(spec, "type");
        if (object.name() == EXEMPT) != (kind == "Exempt") && matches!(kind, "Exempt" | "Limited") {
            let why = "type must be 'Exempt' if and only if name is 'exempt'";
            faults.push(Cause::invalid("spec.type", &spec["type"], why));
        }
        let (limited, exempt) = (&spec["limited"], &spec["exempt"]);
        match kind {
            "Exempt" => {
                if !limited.is_null() {
                    let why = "must be nil if the type is not Limited";
                    faults.push(Cause::forbidden("spec.limited", why));
                }
                validate_shares(exempt, "spec.exempt", faults);
            }
            "Limited" => {
                if !exempt.is_null() {
                    faults.push(Cause::forbidden("spec.exempt", "must be nil if the type is Limited"));
                }
                if field::require(limited, "spec.limited", "must not be empty when type is Limited", faults) {
                    validate_limited(limited, faults);
                }
            }
            _ => field::one_of(&spec["type"], "spec.type", &["Exempt", "Limited"], faults),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Type"),
                Column::text("NominalConcurrencyShares"),
                Column::text("Queues"),
                Column::text("HandSize"),
                Column::text("QueueLengthLimit"),
                Column::text("Age"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let spec = part(object, "spec");
        let or_none = |value: &Value| if value.is_null() { "<none>".into() } else { value.clone() };
        let queuing = &spec["limited"]["limitResponse"]["queuing"];
        let shares = match text(spec, "type") {
            "Limited" => &spec["limited"]["nominalConcurrencyShares"],
            _ => &spec["exempt"]["nominalConcurrencyShares"],
        };
        vec![
            object.name().into(),
            text(spec, "type").into(),
            or_none(shares),
            or_none(&queuing["queues"]),
            or_none(&queuing["handSize"]),
            or_none(&queuing["queueLengthLimit"]),
            age(object, now),
        ]
    }
}

fn validate_shares(level: &Value, path: &str, faults: &mut Faults) {
    let shares = &level["nominalConcurrencyShares"];
    if shares.as_i64().is_some_and(|shares| shares < 0) {
        let why = "must be a non-negative integer";
        faults.push(Cause::invalid(format!("{path}.nominalConcurrencyShares"), shares, why));
    }
    between(&level["lendablePercent"], format!("{path}.lendablePercent"), 0, 100, faults);
}

fn validate_limited(limited: &Value, faults: &mut Faults) {
    validate_shares(limited, "spec.limited", faults);
    let borrowing = &limited["borrowingLimitPercent"];
    if borrowing.as_i64().is_some_and(|percent| percent < 0) {
        let why = "if specified, must be a non-negative integer";
        faults.push(Cause::invalid("spec.limited.borrowingLimitPercent", borrowing, why));
    }
    let response = &limited["limitResponse"];
    let path = "spec.limited.limitResponse";
    let queuing = &response["queuing"];
    match text(response, "type") {
        "Reject" if !queuing.is_null() => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            faults.push(Cause::forbidden(format!("{path}.queuing"), why));
        }
        "Reject" => {}
        "Queue" if queuing.is_null() => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            faults.push(Cause::required(format!("{path}.queuing"), why));
        }
        "Queue" => validate_queuing(queuing, &format!("{path}.queuing"), faults),
        _ => field::one_of(&response["type"], format!("{path}.type"), &["Queue", "Reject"], faults),
    }
}

fn validate_queuing(queuing: &Value, path: &str, faults: &mut Faults) {
    let number = |field: &str| queuing[field].as_i64().unwrap_or_default();
    let mut invalid = |field: &str, why: &str| {
        faults.push(Cause::invalid(format!("{path}.{field}"), &queuing[field], why));
    };
    if number("queueLengthLimit") <= 0 {
        invalid("queueLengthLimit", "must be positive");
    }
    if number("queues") <= 0 {
        invalid("queues", "must be positive");
    } else if number("queues") > MOST_QUEUES {
        invalid("queues", &format!("must not be greater than {MOST_QUEUES}"));
    }
    if number("handSize") <= 0 {
        invalid("handSize", "must be positive");
    } else if number("handSize") > number("queues") {
        invalid("handSize", "should not be greater than queues");
    } else if entropy_bits(number("queues"), number("handSize")) > 60.0 {
        invalid("handSize", "too many bits of entropy are needed to shuffle the queues: take fewer of them");
    }
}

/// How many bits it takes to deal a hand of queues.
fn entropy_bits(queues: i64, hand: i64) -> f64 {
    // i64 to f64 is exact for what was let through above.
    #[allow(clippy::cast_precision_loss, reason = "at most 10 million")]
    (0..hand.min(64)).map(|dealt| ((queues - dealt) as f64).log2()).sum()
}
