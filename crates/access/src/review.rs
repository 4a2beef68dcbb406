//! The questions of `authentication.k8s.io` and `authorization.k8s.io`: they are answered, not kept.

use jiff::Timestamp;
use machinery::{Cause, Object, Status};
use objects::rfc3339;
use serde_json::{Map, Value, json};
use store::State;

use crate::{Attributes, Authorizer, Rule, UserInfo, Wanted};

impl Authorizer {
    /// Answers the question in `review`, an object of `resource` that `who` sends at `now`.
    ///
    /// # Errors
    /// 400 and 422 if it is no question.
    pub fn review(
        &self,
        state: &State,
        who: &UserInfo,
        resource: &machinery::Resource,
        mut review: Object,
        now: Timestamp,
    ) -> Result<Object, Status> {
        let spec = review.0.get("spec").cloned().unwrap_or_else(|| json!({}));
        let invalid = |causes| Status::invalid(resource.group, resource.kind, "", causes);
        let status = match resource.plural {
            "selfsubjectreviews" => {
                review.set_meta("creationTimestamp", rfc3339(now));
                json!({"userInfo": who.user_info()})
            }
            "selfsubjectaccessreviews" => {
                check_question(&spec).map_err(invalid)?;
                answer(self, state, who, &spec)
            }
            "selfsubjectrulesreviews" => {
                let namespace = spec["namespace"].as_str().unwrap_or_default();
                if namespace.is_empty() {
                    return Err(Status::bad_request("no namespace on request"));
                }
                rules(&self.rules(state, who, namespace))
            }
            _ => {
                let mut causes = check_question(&spec).err().unwrap_or_default();
                let other = subject(&spec);
                if other.user.is_empty() && other.groups.is_empty() {
                    let why = "at least one of user or group must be specified";
                    causes.push(Cause::required("spec.user", why));
                }
                if resource.namespaced && spec["resourceAttributes"]["namespace"] != review.namespace() {
                    let why = "must match metadata.namespace";
                    let namespace = &spec["resourceAttributes"]["namespace"];
                    causes.push(Cause::invalid("spec.resourceAttributes.namespace", namespace, why));
                }
                if !causes.is_empty() {
                    return Err(invalid(causes));
                }
                answer(self, state, &other, &spec)
            }
        };
        review.0.insert("status".into(), status);
        Ok(review)
    }
}

/// A question is about objects or about a path.
fn check_question(spec: &Value) -> Result<(), Vec<Cause>> {
    match (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, true) => {
            let why = "cannot be specified in combination with resourceAttributes";
            Err(vec![Cause::invalid("spec.nonResourceAttributes", &spec["nonResourceAttributes"], why)])
        }
        (false, false) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Err(vec![Cause::invalid("spec.resourceAttributes", &Value::Null, why)])
        }
        _ => Ok(()),
    }
}

fn subject(spec: &Value) -> UserInfo {
    let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    UserInfo::new(spec["user"].as_str().unwrap_or_default(), groups)
}

fn answer(authorizer: &Authorizer, state: &State, who: &UserInfo, spec: &Value) -> Value {
    let objects = &spec["resourceAttributes"];
    let of = |value: &'_ Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let fields = field_selector(&objects["fieldSelector"]);
    let texts =
        ["verb", "group", "resource", "subresource", "namespace", "name"].map(|field| of(objects, field));
    let [verb, group, resource, subresource, namespace, name] = &texts;
    let (path_verb, path) =
        (of(&spec["nonResourceAttributes"], "verb"), of(&spec["nonResourceAttributes"], "path"));
    let wanted = if objects.is_object() {
        Wanted::Object(Attributes { verb, group, resource, subresource, namespace, name, fields: &fields })
    } else {
        Wanted::Path { verb: &path_verb, path: &path }
    };
    let reason = authorizer.allows(state, who, &wanted);
    let mut status = json!({"allowed": reason.is_some()});
    let reason = reason.map(|reason| reason.to_string()).filter(|reason| !reason.is_empty());
    if let Some(reason) = reason {
        status["reason"] = reason.into();
    }
    status
}

/// A field selector in words, of those terms that ask for a value.
fn field_selector(selector: &Value) -> String {
    if let Some(raw) = selector["rawSelector"].as_str() {
        return raw.to_owned();
    }
    let terms = selector["requirements"].as_array().into_iter().flatten().filter_map(|term| {
        let value = term["values"].as_array().filter(|values| values.len() == 1)?[0].as_str()?;
        (term["operator"] == "In").then(|| format!("{}={value}", term["key"].as_str().unwrap_or_default()))
    });
    terms.collect::<Vec<_>>().join(",")
}

/// Rules in the form of the answer: those on objects and those on paths.
fn rules(rules: &[Rule]) -> Value {
    let list = |of_paths: bool| -> Value {
        let kept = rules.iter().filter(|rule| rule.urls.is_empty() != of_paths);
        kept.map(|rule| {
            let mut map = Map::new();
            map.insert("verbs".into(), json!(rule.verbs));
            let parts = [
                ("apiGroups", &rule.api_groups),
                ("resources", &rule.resources),
                ("resourceNames", &rule.resource_names),
                ("nonResourceURLs", &rule.urls),
            ];
            for (field, words) in parts.into_iter().filter(|(_, words)| !words.is_empty()) {
                map.insert(field.into(), json!(words));
            }
            Value::Object(map)
        })
        .collect()
    };
    json!({"resourceRules": list(false), "nonResourceRules": list(true), "incomplete": false})
}
