//! Requests for certificates: those that were approved are signed, old ones are removed.
//!
//! Follows `pkg/controller/certificates`: its `signer`, its `cleaner`, and the rules that each signer of
//! `kubernetes.io` has for subject, names and uses. Some things are stricter. Nobody is put into `system:masters`, as
//! upstream's admission plugin CertificateSubjectRestriction has it, nor gets a name of the cluster's own parts; and `kubernetes.io/legacy-unknown`, which has no rules,
//! is left to others.

mod signer;

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pki::{Authority, CertificateRequest, Validity};
use serde_json::{Value, json};

use crate::controller::{Controller, Due, Moment, Urgency};
use crate::key::Key;
use crate::plan::{Plan, delete, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// How long a request is kept after it was decided: upstream's `approvedExpiration` and `deniedExpiration`.
const DECIDED: Duration = Duration::from_secs(3600);
/// How long a request is kept that nobody decides: upstream's `pendingExpiration`.
const PENDING: Duration = Duration::from_secs(24 * 3600);
/// The longest time that a certificate is valid, and how long it is where the request names no time: upstream's default of
/// `--cluster-signing-duration`.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// The shortest, as the API takes no shorter `expirationSeconds`.
const SHORTEST: Duration = Duration::from_secs(600);
/// How long before its signing a certificate becomes valid, for clocks that are behind.
const BEHIND: Duration = Duration::from_secs(300);
/// What is valid for less loses none of it for being valid from before.
const SHORT: Duration = Duration::from_secs(8 * 3600);

/// Signs requests for certificates and removes old ones.
pub(crate) struct Certificates;

impl Controller for Certificates {
    fn name(&self) -> &'static str {
        "certificate"
    }

    fn component(&self) -> &'static str {
        "certificate-controller"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<CertificateSigningRequest>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<CertificateSigningRequest>().iter());
    }

    fn touched(&self, _: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<CertificateSigningRequest>(change);
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.name(), moment.now.wall)
    }
}

/// Signs one request, if it is to be, or removes it, once it is old.
fn reconcile(view: &View, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(request) = view.table::<CertificateSigningRequest>().get("", name) else { return plan };
    if let Some(end) = end(request) {
        match Duration::try_from(end.duration_since(now)) {
            Ok(left) if !left.is_zero() => plan.again(left),
            _ => {
                plan.write(delete(request.as_ref()));
                return plan;
            }
        }
    }
    let signer = request.spec.signer_name.as_str();
    if let Some(authority) = view.signer().filter(|_| signer::is_ours(signer) && is_waiting(request)) {
        let status = match issue(authority, request, now) {
            Ok(certificate) => json!({"certificate": STANDARD.encode(certificate)}),
            Err(why) => failed(request, &why, now),
        };
        plan.write(merge_this(request.as_ref(), "status", json!({"status": status})));
    }
    plan
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    let status = request.status.as_ref();
    status.and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn certificate(request: &CertificateSigningRequest) -> Option<&str> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    std::str::from_utf8(&certificate.0).ok().filter(|pem| !pem.is_empty())
}

/// Whether a request was approved and neither signed nor found wrong.
fn is_waiting(request: &CertificateSigningRequest) -> bool {
    let has = |kind: &str| conditions(request).iter().any(|c| c.type_ == kind && c.status == "True");
    has("Approved") && !has("Denied") && !has("Failed") && certificate(request).is_none()
}

/// When a request is of no use any more: some time after its decision, without one some time after it was made, and
/// with its certificate.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let decided = conditions(request)
        .iter()
        .filter(|condition| ["Approved", "Denied", "Failed"].contains(&condition.type_.as_str()))
        .filter_map(|condition| condition.last_update_time.as_ref()?.0.checked_add(DECIDED).ok());
    let created = request.metadata.creation_timestamp.as_ref().filter(|_| conditions(request).is_empty());
    let pending = created.and_then(|time| time.0.checked_add(PENDING).ok());
    let over =
        certificate(request).and_then(pki::valid_until).and_then(|time| Timestamp::try_from(time).ok());
    decided.chain(pending).chain(over).min()
}

/// The certificate, as PEM, or what is wrong with the request.
fn issue(
    authority: &Authority,
    request: &CertificateSigningRequest,
    now: Timestamp,
) -> Result<String, String> {
    let asked = CertificateRequest::from_pem(&request.spec.request.0).map_err(|error| error.to_string())?;
    let usages = request.spec.usages.as_deref().unwrap_or_default();
    let usages = signer::granted(&request.spec.signer_name, &asked, usages)?;
    let validity = validity(request.spec.expiration_seconds, now);
    authority.sign(&asked, &usages, validity).map_err(|error| error.to_string())
}

/// When a certificate is valid that was requested for this number of seconds.
fn validity(seconds: Option<i32>, now: Timestamp) -> Validity {
    let asked = seconds.map_or(LONGEST, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)));
    let lives = asked.clamp(SHORTEST, LONGEST);
    let now = UNIX_EPOCH + Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let early = if lives < SHORT { Duration::ZERO } else { BEHIND };
    Validity { from: now.checked_sub(BEHIND).unwrap_or(UNIX_EPOCH), until: now + lives - early }
}

fn failed(request: &CertificateSigningRequest, why: &str, now: Timestamp) -> Value {
    let mut conditions = conditions(request).to_vec();
    conditions.push(CertificateSigningRequestCondition {
        last_transition_time: Some(Time(now)),
        last_update_time: Some(Time(now)),
        message: Some(why.to_owned()),
        reason: Some("SignerValidationFailure".to_owned()),
        status: "True".to_owned(),
        type_: "Failed".to_owned(),
    });
    json!(CertificateSigningRequestStatus { conditions: Some(conditions), certificate: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn lives(seconds: Option<i32>) -> (i64, i64) {
        let validity = validity(seconds, Timestamp::from_second(NOW).unwrap());
        let at = |time: std::time::SystemTime| {
            i64::try_from(time.duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() - NOW
        };
        (at(validity.from), at(validity.until))
    }

    #[test]
    fn a_certificate_lives_as_long_as_was_asked_within_bounds() {
        let year = 365 * 24 * 3600;
        assert_eq!(lives(Some(3600)), (-300, 3600), "a short one loses nothing");
        assert_eq!(lives(Some(1)), (-300, 600));
        assert_eq!(lives(Some(24 * 3600)), (-300, 24 * 3600 - 300));
        assert_eq!(lives(None), (-300, year - 300));
        assert_eq!(lives(Some(i32::MAX)), (-300, year - 300));
    }

    #[test]
    fn a_request_ends_with_what_comes_first() {
        let request = |status: Value| -> CertificateSigningRequest {
            serde_json::from_value(json!({
                "metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"request": "", "signerName": "example.com/a"}, "status": status,
            }))
            .unwrap()
        };
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T05:00:00Z"});
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert_eq!(end(&request(json!({}))), at("2026-01-02T00:00:00Z"), "nobody decided");
        for kind in ["Approved", "Denied", "Failed"] {
            let decided = request(json!({"conditions": [condition(kind)]}));
            assert_eq!(end(&decided), at("2026-01-01T06:00:00Z"), "{kind}");
        }
        let from = at("2026-01-01T05:00:00Z").unwrap();
        let authority = Authority::create("a", from.into()).unwrap();
        let validity = Validity { from: from.into(), until: (from + SHORTEST).into() };
        let subject = pki::Subject { common_name: "a".to_owned(), organization: None };
        let short = authority.issue(&subject, &[], &[], validity).unwrap();
        let short = short.certificate_pem();
        let issued = json!({"conditions": [condition("Approved")], "certificate": STANDARD.encode(short)});
        assert_eq!(end(&request(issued)), at("2026-01-01T05:10:00Z"), "its certificate is over");
    }
}
