//! Changes that would give somebody more than who makes them has: roles, bindings, approvals of certificates, and which certificates
//! were taken back.
//!
//! Follows upstream's `pkg/registry/rbac/escalation_check.go` and its admission plugins CertificateApproval and
//! CertificateSigning.

use machinery::{Object, Status};
use objects::Named;
use serde_json::Value;
use store::State;

use crate::authorizer::everything;
use crate::roles::GROUP;
use crate::{Attributes, Authorizer, MASTERS, RevocationList, Rule, UserInfo, Wanted};

const CERTIFICATES: &str = "certificates.k8s.io";

/// A change of one object, as far as it is decided.
#[derive(Debug, Clone, Copy)]
pub struct Decided<'a> {
    /// Which object.
    pub named: Named<'a>,
    /// Such as `status`, or empty for the object itself.
    pub subresource: &'a str,
    /// The object as it shall be.
    pub new: &'a Object,
    /// Nothing for an object that is created.
    pub old: Option<&'a Object>,
}

impl Authorizer {
    /// Whether the change gives no more than `who` may give.
    ///
    /// # Errors
    /// 403 if it gives more.
    pub fn check_privilege(
        &self,
        state: &State,
        who: &UserInfo,
        decided: &Decided<'_>,
    ) -> Result<(), Status> {
        if who.is_in(MASTERS) {
            return Ok(());
        }
        let resource = decided.named.resource;
        match (resource.group, resource.plural) {
            (GROUP, "roles" | "clusterroles") => self.check_role(state, who, decided),
            (GROUP, _) => self.check_binding(state, who, decided),
            (CERTIFICATES, "certificatesigningrequests") => self.check_signer(state, who, decided),
            ("", "configmaps") => self.check_revocation(state, who, &decided.named),
            _ => Ok(()),
        }
    }

    /// Whether `who` may change or delete the object, as far as it may be the list of what was taken back: more than the right to write
    /// ConfigMaps, by which one could shut out all hosts and administrators, or let a machine in again that was replaced.
    ///
    /// # Errors
    /// 403 without the verb `revoke` on all signers.
    pub fn check_revocation(&self, state: &State, who: &UserInfo, named: &Named<'_>) -> Result<(), Status> {
        let at = (named.resource.group, named.resource.plural, named.namespace, named.name);
        let is_list = at == ("", "configmaps", RevocationList::NAMESPACE, RevocationList::NAME);
        let may = || self.may(state, who, "revoke", (CERTIFICATES, "signers"), ("", ""));
        if !is_list || who.is_in(MASTERS) || may() {
            return Ok(());
        }
        Err(named.forbidden(&format!(
            "user {:?} may not take certificates back: that takes the verb \"revoke\" on signers of {CERTIFICATES}",
            who.user
        )))
    }

    fn may(
        &self,
        state: &State,
        who: &UserInfo,
        verb: &str,
        resource: (&str, &str),
        at: (&str, &str),
    ) -> bool {
        let wanted = Attributes {
            verb,
            group: resource.0,
            resource: resource.1,
            subresource: "",
            namespace: at.0,
            name: at.1,
            fields: "",
        };
        self.allows(state, who, &Wanted::Object(wanted)).is_some()
    }

    fn check_role(&self, state: &State, who: &UserInfo, decided: &Decided<'_>) -> Result<(), Status> {
        let Decided { named, new, .. } = *decided;
        if unchanged(decided, &["rules", "aggregationRule"]) {
            return Ok(());
        }
        let resource = (GROUP, named.resource.plural);
        if self.may(state, who, "escalate", resource, (named.namespace, named.name)) {
            return Ok(());
        }
        let mut granted = rules_of(new);
        // Nobody knows what will be aggregated.
        if new.0.get("aggregationRule").is_some_and(Value::is_object) {
            granted.extend(everything().iter().cloned());
        }
        self.check_held(state, who, &named, &granted)
    }

    fn check_binding(&self, state: &State, who: &UserInfo, decided: &Decided<'_>) -> Result<(), Status> {
        let Decided { named, new, .. } = *decided;
        if unchanged(decided, &["subjects", "roleRef"]) {
            return Ok(());
        }
        let text = |field: &str| {
            new.0.get("roleRef").and_then(|role| role[field].as_str()).unwrap_or_default().to_owned()
        };
        let (kind, name) = (text("kind"), text("name"));
        let plural = if kind == "Role" { "roles" } else { "clusterroles" };
        if self.may(state, who, "bind", (GROUP, plural), (named.namespace, &name)) {
            return Ok(());
        }
        let granted = self.role(state, &kind, named.namespace, &name).ok_or_else(|| match decided.old {
            None => Status::not_found(GROUP, plural, &name),
            // The binding itself is there.
            Some(_) => named.forbidden(&format!("there is no {kind} {name:?}")),
        })?;
        self.check_held(state, who, &named, &granted)
    }

    fn check_held(
        &self,
        state: &State,
        who: &UserInfo,
        named: &Named<'_>,
        granted: &[Rule],
    ) -> Result<(), Status> {
        let held = self.rules(state, who, named.namespace);
        let missing: Vec<String> =
            granted.iter().filter(|rule| !rule.is_covered_by(&held)).map(describe).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(named.forbidden(&format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            who.user,
            who.groups,
            missing.join("\n")
        )))
    }

    /// A user that approves requests for certificates, or signs them, must be allowed to for their signer.
    fn check_signer(&self, state: &State, who: &UserInfo, decided: &Decided<'_>) -> Result<(), Status> {
        let Decided { named, subresource, new, old } = *decided;
        let verb = match (subresource, old) {
            ("approval", Some(_)) => "approve",
            ("status", Some(old)) if old.0.get("status") != new.0.get("status") => "sign",
            _ => return Ok(()),
        };
        let signer = new.pointer("/spec/signerName").and_then(Value::as_str).unwrap_or_default();
        let domain = signer.split_once('/').map_or(signer, |(domain, _)| domain);
        let all = format!("{domain}/*");
        let may = |name: &str| self.may(state, who, verb, (CERTIFICATES, "signers"), ("", name));
        if may(signer) || may(&all) {
            return Ok(());
        }
        Err(named.forbidden(&format!("user not permitted to {verb} requests with signerName {signer:?}")))
    }
}

fn unchanged(decided: &Decided<'_>, fields: &[&str]) -> bool {
    decided.old.is_some_and(|old| fields.iter().all(|field| old.0.get(*field) == decided.new.0.get(*field)))
}

fn rules_of(role: &Object) -> Vec<Rule> {
    let rules = role.0.get("rules").cloned().filter(Value::is_array);
    rules.and_then(|rules| serde_json::from_value(rules).ok()).unwrap_or_default()
}

fn describe(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("NonResourceURLs", &rule.urls),
        ("Verbs", &rule.verbs),
    ];
    let said = parts.iter().filter(|(_, words)| !words.is_empty());
    let said: Vec<String> = said.map(|(name, words)| format!("{name}:{words:?}")).collect();
    format!("{{{}}}", said.join(", "))
}
