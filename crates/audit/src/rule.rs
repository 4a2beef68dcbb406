//! One rule of a policy, and whether it is about a request.
//!
//! Follows `k8s.io/apiserver/pkg/audit/policy` (`checker.go`).

use serde::Deserialize;

use crate::{Level, Stage};

/// What is asked, as far as a policy looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The user's name; none where nobody knows who asks.
    pub user: Option<&'a str>,
    /// The user's groups.
    pub groups: &'a [String],
    /// Such as `get`; of what is no object the method in small letters.
    pub verb: &'a str,
    /// What it is about.
    pub about: About<'a>,
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub enum About<'a> {
    /// Objects.
    Objects {
        /// Empty for the core group.
        group: &'a str,
        /// The plural, such as `pods`.
        resource: &'a str,
        /// Empty for the objects themselves.
        subresource: &'a str,
        /// Empty for the whole cluster.
        namespace: &'a str,
        /// Empty for more than one object, and for one that has no name yet.
        name: &'a str,
    },
    /// Something else, such as `/healthz`.
    Path(&'a str),
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    urls: Vec<String>,
    #[serde(default)]
    pub(crate) omit_stages: Vec<Stage>,
    pub(crate) omit_managed_fields: Option<bool>,
}

/// Resources of a group.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

impl Rule {
    /// Whether it is about a request.
    pub(crate) fn fits(&self, asked: &Asked<'_>) -> bool {
        let has = |list: &[String], text: &str| list.iter().any(|item| item == text);
        if !self.users.is_empty() && !asked.user.is_some_and(|user| has(&self.users, user)) {
            return false;
        }
        if !self.user_groups.is_empty() && !asked.groups.iter().any(|group| has(&self.user_groups, group)) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, asked.verb) {
            return false;
        }
        let wants_objects = !self.namespaces.is_empty() || !self.resources.is_empty();
        match asked.about {
            About::Objects { group, resource, subresource, namespace, name } if wants_objects => {
                (self.namespaces.is_empty() || has(&self.namespaces, namespace))
                    && (self.resources.is_empty()
                        || self.resources.iter().any(|of| of.has(group, resource, subresource, name)))
            }
            About::Path(_) if wants_objects => false,
            About::Path(path) => self.urls.is_empty() || self.urls.iter().any(|url| leads_to(url, path)),
            About::Objects { .. } => self.urls.is_empty(),
        }
    }

    /// What can't be meant by it: the field, and what is wrong.
    pub(crate) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        for url in self.urls.iter().filter(|url| *url != "*") {
            if !url.starts_with('/') {
                faults.push(("nonResourceURLs", format!("{url:?} doesn't begin with /")));
            } else if url.find('*').is_some_and(|at| at + 1 < url.len()) {
                faults.push(("nonResourceURLs", format!("{url:?} has a * that isn't its last character")));
            }
        }
        let names_objects = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.urls.is_empty() && names_objects {
            let what = "stand beside resources or namespaces; write two rules";
            faults.push(("nonResourceURLs", what.to_owned()));
        }
        for of in &self.resources {
            if of.group.contains(|c: char| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '.')) {
                faults.push((
                    "resources",
                    format!("{:?} is no API group; write it without its version", of.group),
                ));
            }
            if !of.resource_names.is_empty() && of.resources.is_empty() {
                faults.push(("resources", "resourceNames stand there without resources".to_owned()));
            }
        }
        faults
    }
}

impl GroupResources {
    fn has(&self, group: &str, resource: &str, subresource: &str, name: &str) -> bool {
        if self.group != group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|known| known == name) {
            return false;
        }
        self.resources.iter().any(|pattern| match pattern.split_once('/') {
            None => pattern == "*" || (subresource.is_empty() && pattern == resource),
            Some((of, "*")) => of == resource,
            Some((of, part)) => {
                !subresource.is_empty() && part == subresource && (of == "*" || of == resource)
            }
        })
    }
}

fn leads_to(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => url == path,
    }
}
