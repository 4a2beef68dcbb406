//! The policy: rules, of which the first that fits counts.

use serde::Deserialize;
use serde_json::Value;

use crate::rule::{Asked, Rule};
use crate::{Level, Stage};

/// The most rules that one policy may have: each request looks at them one by one.
const MOST_RULES: usize = 1000;

/// Why a policy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is neither YAML nor JSON.
    #[error("it is no YAML: {0}")]
    Text(values::YamlError),
    /// A field stands there twice.
    #[error("{0}; keep one of them")]
    Twice(String),
    /// A field is missing, unknown, or not what it has to be.
    #[error("{field}: {why}")]
    Field {
        /// Which field; `.` for the whole.
        field: String,
        /// What is wrong with it.
        why: serde_json::Error,
    },
    /// It is something else.
    #[error("it is a {kind:?} of {version:?}; write a Policy of audit.k8s.io/v1")]
    Kind {
        /// What it says that it is.
        kind: String,
        /// In which version.
        version: String,
    },
    /// It has no rule, or too many.
    #[error("it has {0} rules; write 1 to {MOST_RULES}")]
    Rules(usize),
    /// A rule can't be meant as it stands there.
    #[error("rules[{rule}].{field}: {what}")]
    Rule {
        /// Which rule, counted from 0.
        rule: usize,
        /// Which of its fields.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

/// The file, as Kubernetes has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    /// Of no effect, as upstream.
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

/// A policy of `audit.k8s.io/v1`.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

/// What a policy wants of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// How much it wants to know.
    pub level: Level,
    /// Whether objects are recorded without their managed fields.
    pub omit_managed_fields: bool,
    omitted: Vec<Stage>,
}

impl Decision {
    /// Whether it wants to hear of a stage.
    pub fn wants(&self, stage: Stage) -> bool {
        self.level != Level::None && !self.omitted.contains(&stage)
    }
}

impl Policy {
    /// Reads a policy, YAML or JSON.
    ///
    /// # Errors
    /// If it can't be meant as it stands there.
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        let (value, twice) = values::yaml_and_duplicates(text).map_err(PolicyError::Text)?;
        if let Some(what) = twice.into_iter().next() {
            return Err(PolicyError::Twice(what));
        }
        let file: File = serde_path_to_error::deserialize(value).map_err(|error| {
            let field = error.path().to_string();
            PolicyError::Field { field, why: error.into_inner() }
        })?;
        if (file.kind.as_str(), file.api_version.as_str()) != ("Policy", "audit.k8s.io/v1") {
            return Err(PolicyError::Kind { kind: file.kind, version: file.api_version });
        }
        if !(1..=MOST_RULES).contains(&file.rules.len()) {
            return Err(PolicyError::Rules(file.rules.len()));
        }
        for (rule, said) in file.rules.iter().enumerate() {
            if let Some((field, what)) = said.faults().into_iter().next() {
                return Err(PolicyError::Rule { rule, field, what });
            }
        }
        let File { rules, omit_stages, omit_managed_fields, .. } = file;
        Ok(Policy { rules, omit_stages, omit_managed_fields })
    }

    /// What it wants of a request: by the first rule that fits, and nothing where none does.
    pub fn decide(&self, asked: &Asked<'_>) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.fits(asked));
        let own = rule.map_or(&[][..], |rule| &rule.omit_stages);
        Decision {
            level: rule.map_or(Level::None, |rule| rule.level),
            omit_managed_fields: rule
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
            omitted: self.omit_stages.iter().chain(own).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::About;

    fn policy(rules: &str) -> Result<Policy, String> {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}\n");
        Policy::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    /// `VERB GROUP/RESOURCE[/SUBRESOURCE] NAMESPACE NAME`, or `VERB /PATH`.
    fn level(policy: &Policy, user: Option<&str>, groups: &[&str], asked: &str) -> Level {
        let words: Vec<&str> = asked.split(' ').collect();
        let about = match words[1].strip_prefix('/') {
            Some(_) => About::Path(words[1]),
            None => {
                let parts: Vec<&str> = words[1].split('/').collect();
                About::Objects {
                    group: parts[0].trim_start_matches('-'),
                    resource: parts[1],
                    subresource: parts.get(2).copied().unwrap_or_default(),
                    namespace: words[2].trim_start_matches('-'),
                    name: words[3].trim_start_matches('-'),
                }
            }
        };
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        policy.decide(&Asked { user, groups: &groups, verb: words[0], about }).level
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let policy = policy(
            "- {level: None, users: ['system:kube-proxy'], verbs: [watch], resources: [{resources: [endpoints, services]}]}
- {level: None, userGroups: ['system:authenticated'], nonResourceURLs: ['/api*', /version]}
- {level: Request, resources: [{resources: [configmaps], resourceNames: [one]}], namespaces: [kube-system]}
- {level: Metadata, resources: [{resources: [secrets, 'pods/log', 'services/*', '*/scale']}]}
- {level: RequestResponse, resources: [{group: apps}]}
- {level: Request, namespaces: [''], resources: [{resources: [nodes]}]}
- {level: Request, users: [jane]}
- {level: Metadata, nonResourceURLs: ['*']}",
        )
        .unwrap();
        let all = &["system:authenticated"][..];
        for (user, asked, expected) in [
            ("system:kube-proxy", "watch -/services - -", Level::None),
            ("system:kube-proxy", "list -/services - -", Level::Metadata),
            ("bob", "watch -/services shop web", Level::Metadata),
            ("bob", "get /api/v1", Level::None),
            ("bob", "get /version", Level::None),
            ("bob", "get /versions", Level::Metadata),
            ("bob", "get -/configmaps kube-system one", Level::Request),
            ("bob", "get -/configmaps kube-system two", Level::None),
            ("bob", "get -/configmaps shop one", Level::None),
            ("bob", "get -/secrets shop key", Level::Metadata),
            ("bob", "get -/pods shop web", Level::None),
            ("bob", "get -/pods/log shop web", Level::Metadata),
            ("bob", "get -/services/proxy shop web", Level::Metadata),
            ("bob", "update -/replicationcontrollers/scale shop web", Level::Metadata),
            ("bob", "update apps/deployments/scale shop web", Level::RequestResponse),
            ("bob", "update apps/deployments shop web", Level::RequestResponse),
            ("bob", "get batch/jobs shop once", Level::None),
            ("jane", "get batch/jobs shop once", Level::Request),
            ("bob", "get -/nodes - n1", Level::Request),
        ] {
            assert_eq!(level(&policy, Some(user), all, asked), expected, "{user}: {asked}");
        }
        // Of somebody whom nobody knows no rule counts that names users or groups.
        assert_eq!(level(&policy, None, &[], "get /api/v1"), Level::Metadata);
        assert_eq!(level(&policy, None, &[], "get batch/jobs shop once"), Level::None);
    }

    #[test]
    fn stages_and_managed_fields_are_left_out_by_the_rule_and_by_the_policy() {
        let text = "apiVersion: audit.k8s.io/v1
kind: Policy
metadata: {name: any}
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: Metadata, users: [a], omitStages: [ResponseStarted], omitManagedFields: false}
- {level: None, users: [b]}
- {level: Request}";
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let of = |user| {
            policy.decide(&Asked { user: Some(user), groups: &[], verb: "get", about: About::Path("/") })
        };
        let stages = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];
        let wanted = |user| stages.map(|stage| of(user).wants(stage));
        assert_eq!((wanted("a"), of("a").omit_managed_fields), ([false, false, true, true], false));
        assert_eq!(wanted("b"), [false; 4]);
        assert_eq!((wanted("c"), of("c").omit_managed_fields), ([false, true, true, true], true));
    }

    #[test]
    fn the_example_of_the_documentation_keeps_secrets_to_themselves() {
        let page = include_str!("../../../docs/audit.md");
        let indented = page.lines().skip_while(|line| !line.starts_with("    apiVersion: audit.k8s.io/"));
        let lines = indented.map_while(|line| line.strip_prefix("    "));
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let groups = &["system:masters"][..];
        for asked in [
            "create -/secrets shop -",
            "update -/secrets shop key",
            "create -/serviceaccounts/token shop robot",
            "create authentication.k8s.io/tokenreviews - -",
        ] {
            assert_eq!(level(&policy, Some("jane"), groups, asked), Level::Metadata, "{asked}");
        }
        assert_eq!(level(&policy, Some("jane"), groups, "patch apps/deployments shop web"), Level::Request);
        assert_eq!(level(&policy, Some("jane"), groups, "get /readyz"), Level::None);
    }

    #[test]
    fn what_can_t_be_meant_is_refused_with_its_field() {
        for (rules, told) in [
            ("- {level: Some}", "unknown variant `Some`"),
            ("- {users: [a]}", "rules[0]: missing field `level`"),
            ("- {level: None, user: [a]}", "rules[0].user: unknown field `user`"),
            ("- {level: None, omitStages: [Begun]}", "unknown variant `Begun`"),
            (
                "- {level: None}\n- {level: None, nonResourceURLs: [api]}",
                "rules[1].nonResourceURLs: \"api\" doesn't",
            ),
            ("- {level: None, nonResourceURLs: ['/a*b']}", "rules[0].nonResourceURLs: \"/a*b\" has a *"),
            ("- {level: None, nonResourceURLs: ['/*é']}", "rules[0].nonResourceURLs: \"/*é\" has a *"),
            ("- {level: None, nonResourceURLs: ['']}", "rules[0].nonResourceURLs: \"\" doesn't"),
            (
                "- {level: None, nonResourceURLs: [/a], namespaces: [b]}",
                "rules[0].nonResourceURLs: stand beside",
            ),
            (
                "- {level: None, resources: [{group: apps/v1}]}",
                "rules[0].resources: \"apps/v1\" is no API group",
            ),
            ("- {level: None, resources: [{resourceNames: [a]}]}", "rules[0].resources: resourceNames"),
            (" []", "it has 0 rules"),
            ("- {level: None, level: Request}", "level"),
        ] {
            let error = policy(rules).unwrap_err();
            assert!(error.contains(told), "{rules}: {error}");
        }
        for (text, told) in [
            (
                "{kind: Policy, apiVersion: audit.k8s.io/v1beta1, rules: [{level: None}]}",
                "audit.k8s.io/v1beta1",
            ),
            ("{kind: Pod, apiVersion: v1}", "it is a \"Pod\" of \"v1\""),
            ("a: [", "it is no YAML"),
        ] {
            let error = Policy::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
