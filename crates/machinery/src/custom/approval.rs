//! What a definition says of the Kubernetes project's approval of its kind, if it is in one of the project's groups.
//!
//! Follows `GetAPIApprovalState` of `pkg/apihelpers` of apiextensions-apiserver.

/// Groups that are or end in these are the Kubernetes project's.
const PROTECTED: [&str; 2] = ["k8s.io", "kubernetes.io"];

/// What is said of the approval of a kind in a protected group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// Nothing.
    Missing,
    /// That there is none.
    Withheld,
    /// Where it was approved.
    Approved,
    /// Something else.
    Unclear,
}

impl Approval {
    /// The annotation that says it.
    pub const ANNOTATION: &str = "api-approved.kubernetes.io";

    /// What the annotation's value says, if there is one; nothing in a group that needs no approval.
    pub fn of(group: &str, said: Option<&str>) -> Option<Self> {
        let is_protected = PROTECTED.iter().any(|domain| {
            group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        is_protected.then(|| match said.unwrap_or_default() {
            "" => Approval::Missing,
            said if said.starts_with("unapproved") => Approval::Withheld,
            said if has_host(said) => Approval::Approved,
            _ => Approval::Unclear,
        })
    }

    /// That in a sentence, of the annotation's value, in upstream's words.
    pub fn message(self, said: &str) -> String {
        let must = |rest: &str| {
            let annotation = Approval::ANNOTATION;
            format!(
                "protected groups must have approval annotation {annotation:?}{rest}, see \
                 https://github.com/kubernetes/enhancements/pull/1111"
            )
        };
        match self {
            Approval::Missing => must(""),
            Approval::Withheld => format!("not approved: {said:?}"),
            Approval::Approved => format!("approved in {said}"),
            Approval::Unclear => must(" with either a URL or a reason starting with \"unapproved\""),
        }
    }
}

/// Whether a text is a URL with a scheme and a host.
fn has_host(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && !rest.starts_with(['/', '?', '#'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_approval_is_a_url_or_a_reason() {
        for (said, approval) in [
            (None, Approval::Missing),
            (Some(""), Approval::Missing),
            (Some("unapproved, an experiment"), Approval::Withheld),
            (Some("https://github.com/kubernetes/enhancements/pull/1"), Approval::Approved),
            (Some("yes"), Approval::Unclear),
            (Some("file:///a"), Approval::Unclear),
        ] {
            for group in ["k8s.io", "a.k8s.io", "a.kubernetes.io"] {
                assert_eq!(Approval::of(group, said), Some(approval), "{group} {said:?}");
            }
            assert_eq!(Approval::of("mk8s.io", said), None);
        }
    }
}
