//! Keys and certificates of the host.

use std::time::{Duration, SystemTime};

use crate::facts::{Certificate, Facts, Identity};
use crate::finding::{Group, Section};

/// Time enough for somebody to read a report and to act. A host's own are renewed when a month is left.
pub(crate) const SOON: Duration = Duration::from_secs(21 * DAY);
/// A day's seconds.
pub(crate) const DAY: u64 = 24 * 60 * 60;
/// What there is to do about a certificate that ends.
pub(crate) const RENEW: &str = "a host that has ca.key renews its own by itself, and its log says why it doesn't; for others see docs/certificates.md";

pub(super) fn judge(facts: &Facts) -> Section {
    match &facts.identity {
        Some(identity) => judge_identity(identity, facts.clock.now),
        None => Section::new(Group::Certificates),
    }
}

/// What there is to say of the files of a host's keys.
pub(crate) fn judge_identity(identity: &Identity, now: SystemTime) -> Section {
    let mut section = Section::new(Group::Certificates);
    for why in &identity.broken {
        section.fault("files", why, "copy it anew from where the cluster was made, or from its backup");
    }
    for key in &identity.open_keys {
        let key = key.display();
        section.warning(
            "keys",
            format!("{key} can be read by others than its owner"),
            format!("chmod 600 {key}"),
        );
    }
    let mut first: Option<&Certificate> = None;
    for certificate in &identity.certificates {
        let file = &certificate.file;
        let left = certificate.until.duration_since(now);
        match left {
            Err(_) => section.fault("ends", format!("{file} is over"), RENEW),
            Ok(_) if certificate.is_signed == Some(false) => {
                section.fault(
                    "authority",
                    format!("{file} isn't signed by ca.crt: no other host believes it"),
                    "copy both from where the cluster was made",
                );
            }
            Ok(_) if certificate.is_valid == Some(false) => {
                section.fault(
                    "ends",
                    format!(
                        "{file} is not valid yet: its clock, or that of the machine that made it, is wrong"
                    ),
                    "set the clock",
                );
            }
            Ok(left) if left < SOON => {
                section.warning("ends", format!("{file} ends in {} days", left.as_secs() / DAY), RENEW)
            }
            Ok(_) => {}
        }
        if first.is_none_or(|first| certificate.until < first.until) {
            first = Some(certificate);
        }
    }
    if let Some(first) = first {
        let days = first.until.duration_since(now).map_or(0, |left| left.as_secs() / DAY);
        section.ok_unless_said(
            "ends",
            format!(
                "{} certificates; the first that ends is {}, in {days} days",
                identity.certificates.len(),
                first.file
            ),
        );
    }
    section
}
