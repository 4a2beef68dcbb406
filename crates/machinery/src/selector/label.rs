//! Label selectors, in their text form (`a=b,c in (d,e),!f`) and as `LabelSelector` of meta/v1.
//!
//! Follows `k8s.io/apimachinery/pkg/labels`.

use std::fmt;

use serde_json::Value;

use crate::name::{label_value_fault, qualified_fault};
use crate::object::Object;
use crate::status::Status;

/// Labels that an object must have or not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

impl LabelSelector {
    /// The selector in `text`; empty text selects everything.
    ///
    /// # Errors
    /// 400, if the text is no selector.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let bad =
            |why: String| Status::bad_request(format!("unable to parse the label selector {text:?}: {why}"));
        let mut parser = Parser { rest: text };
        let mut requirements = Vec::new();
        parser.spaces();
        if parser.rest.is_empty() {
            return Ok(LabelSelector { requirements });
        }
        loop {
            requirements.push(parser.requirement().map_err(bad)?);
            parser.spaces();
            if parser.rest.is_empty() {
                return Ok(LabelSelector::sorted(requirements));
            }
            if !parser.take(",") {
                return Err(bad(format!("found {:?}, expected a comma or the end", parser.rest)));
            }
        }
    }

    /// The selector in a `LabelSelector` of meta/v1 (`matchLabels`, `matchExpressions`); nothing if it is none.
    pub fn from_value(value: &Value) -> Option<Self> {
        let mut requirements = Vec::new();
        let selector = value.as_object()?;
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let test = Test::In(vec![value.as_str()?.to_owned()]);
            requirements.push(Requirement { key: key.clone(), test });
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values: Vec<String> = values.filter_map(Value::as_str).map(str::to_owned).collect();
            let test = match expression.get("operator")?.as_str()? {
                "Exists" => Test::Exists,
                "DoesNotExist" => Test::Absent,
                "In" => Test::In(values),
                "NotIn" => Test::NotIn(values),
                // Node selectors have these two besides.
                "Gt" => Test::Greater(values.first()?.parse().ok()?),
                "Lt" => Test::Less(values.first()?.parse().ok()?),
                _ => return None,
            };
            requirements.push(Requirement { key: expression.get("key")?.as_str()?.to_owned(), test });
        }
        Some(LabelSelector::sorted(requirements))
    }

    /// The selector in a plain map of labels, as a Service's `spec.selector`.
    pub fn from_labels(labels: &Value) -> Option<Self> {
        let requirement = |(key, value): (&String, &Value)| {
            Some(Requirement { key: key.clone(), test: Test::In(vec![value.as_str()?.to_owned()]) })
        };
        Some(LabelSelector::sorted(labels.as_object()?.iter().map(requirement).collect::<Option<_>>()?))
    }

    /// In the order of the keys, as upstream writes them.
    fn sorted(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements }
    }

    /// Whether `object` is selected.
    pub fn matches(&self, object: &Object) -> bool {
        let labels = object.meta("labels");
        self.matches_labels(|key| labels?.get(key)?.as_str())
    }

    /// Whether something with these labels is selected.
    pub fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = label(&requirement.key);
            let number = || value.and_then(|value| value.parse::<i64>().ok());
            match &requirement.test {
                Test::Exists => value.is_some(),
                Test::Absent => value.is_none(),
                Test::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
                Test::NotIn(values) => value.is_none_or(|value| values.iter().all(|v| v != value)),
                Test::Greater(bound) => number().is_some_and(|number| number > *bound),
                Test::Less(bound) => number().is_some_and(|number| number < *bound),
            }
        })
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Requirement { key, test }) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match test {
                Test::Exists => write!(f, "{key}")?,
                Test::Absent => write!(f, "!{key}")?,
                Test::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Test::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Test::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Test::Greater(bound) => write!(f, "{key}>{bound}")?,
                Test::Less(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn spaces(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn take(&mut self, token: &str) -> bool {
        self.spaces();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Everything up to a space or a sign.
    fn word(&mut self) -> &'a str {
        self.spaces();
        let end = self.rest.find([' ', '\t', '\r', '\n', '=', '!', '<', '>', ',', '(', ')']);
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.take("!");
        let key = self.word();
        if let Some(fault) = qualified_fault(key) {
            return Err(format!("the key {key:?} {fault}"));
        }
        let key = key.to_owned();
        self.spaces();
        if absent {
            return Ok(Requirement { key, test: Test::Absent });
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Requirement { key, test: Test::Exists });
        }
        for sign in ["==", "=", "!=", ">", "<"] {
            if self.take(sign) {
                let value = self.value()?;
                let number = |value: String| {
                    value.parse().map_err(|_| format!("{value:?} must be an integer after {sign}"))
                };
                let test = match sign {
                    "!=" => Test::NotIn(vec![value]),
                    ">" => Test::Greater(number(value)?),
                    "<" => Test::Less(number(value)?),
                    _ => Test::In(vec![value]),
                };
                return Ok(Requirement { key, test });
            }
        }
        let test = match self.word() {
            "in" => Test::In(self.values()?),
            "notin" => Test::NotIn(self.values()?),
            other => return Err(format!("found {other:?}, expected one of =, ==, !=, >, <, in, notin")),
        };
        Ok(Requirement { key, test })
    }

    fn value(&mut self) -> Result<String, String> {
        let value = self.word();
        match label_value_fault(value) {
            Some(fault) => Err(format!("the value {value:?} {fault}")),
            None => Ok(value.to_owned()),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        if !self.take("(") {
            return Err(format!("found {:?}, expected an opening parenthesis", self.rest));
        }
        let mut values = vec![self.value()?];
        while self.take(",") {
            values.push(self.value()?);
        }
        if !self.take(")") {
            return Err(format!("found {:?}, expected a comma or a closing parenthesis", self.rest));
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: &Value) -> bool {
        let selector = LabelSelector::parse(selector).unwrap();
        selector.matches_labels(|key| labels.get(key).and_then(Value::as_str))
    }

    #[test]
    fn selectors_select() {
        let labels = json!({"n": "3", "app": "web", "x": ""});
        for yes in [
            "",
            "n=3",
            "n == 3",
            "n!=4",
            "n in (1, 3)",
            "n notin (1)",
            "x",
            "x=",
            "!y",
            "y!=1",
            "n>2",
            "n<4",
            "app=web,n",
            " app = web , !z ",
            "n in (3)",
        ] {
            assert!(matches(yes, &labels), "{yes}");
        }
        for no in ["n=4", "n!=3", "y", "y=", "!n", "n>3", "app>1", "n notin (3,4)", "app=web,n=1"] {
            assert!(!matches(no, &labels), "{no}");
        }
    }

    #[test]
    fn text_that_is_no_selector_is_told() {
        for bad in [
            "a b",
            "=",
            ",",
            "a=b,",
            "a in",
            "a in ()x",
            "a in (b",
            "!a=b",
            "a>x",
            "a=b=c",
            "bad key!=1",
            "a=b c",
        ] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_selector_of_an_object_selects() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "NotIn", "values": ["d"]}, {"key": "e", "operator": "DoesNotExist"}]});
        let selector = LabelSelector::from_value(&selector).unwrap();
        assert_eq!(selector.to_string(), "a=b,c!=d,!e");
        assert!(selector.matches_labels(|key| (key == "a").then_some("b")));
        assert!(
            LabelSelector::from_value(&json!({"matchExpressions": [{"key": "a", "operator": "?"}]}))
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_parsed_again(
            parts in prop::collection::vec("[a-c]( in \\([a-z]{0,3},[a-z]\\)| notin \\([0-9]\\)|=[a-z]{0,3}|!=x|>7|<8|)", 0..5)
        ) {
            let selector = LabelSelector::parse(&parts.join(",")).unwrap();
            prop_assert_eq!(&LabelSelector::parse(&selector.to_string()).unwrap(), &selector);
        }

        #[test]
        fn any_text_is_a_selector_or_an_error(text in "[a-z=!<>,() \\PC]{0,40}") {
            let _ = LabelSelector::parse(&text);
        }
    }
}
