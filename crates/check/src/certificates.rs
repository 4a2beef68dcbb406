//! `holdfast certs`: every certificate of a host, and what there is to say about them.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use client::Kubeconfig;
use config::HostConfig;
use jiff::Timestamp;
use pki::{About, FRONT_PROXY, Validity};
use serde_json::{Value, json};

use crate::finding::{Finding, Grade, Section};
use crate::gather;
use crate::judge::{DAY, RENEW, SOON, judge_identity};
use crate::report::{Report, plain};

/// How long after its time a renewal may come: the host looks each minute, and may just be starting.
const LATE: Duration = Duration::from_secs(DAY);

/// The certificates of a host.
#[derive(Debug, Clone)]
pub struct Certificates {
    list: Vec<Listed>,
    report: Report,
}

/// One of them.
#[derive(Debug, Clone)]
struct Listed {
    file: String,
    what_for: &'static str,
    about: About,
    /// By when it is renewed; none for what isn't.
    renewed: Option<SystemTime>,
}

impl Certificates {
    /// Those in the folder of a host's keys, and that of the administrator's kubeconfig, if it is there. Nobody is asked.
    #[allow(clippy::disallowed_methods)] // Whether a certificate is valid is a question about now.
    pub fn look(config: &HostConfig, kubeconfig: &Path) -> Self {
        Certificates::as_of(config, kubeconfig, SystemTime::now())
    }

    fn as_of(config: &HostConfig, kubeconfig: &Path, now: SystemTime) -> Self {
        let identity = gather::identity(config);
        // Who has the authority's key renews; others wait for those who made theirs.
        let renews = config.pki_dir.join("ca.key").exists();
        let own = format!("{}.crt", config.name);
        let mut list: Vec<Listed> = Vec::new();
        for certificate in &identity.certificates {
            let file = &certificate.file;
            let pem = fs::read_to_string(config.pki_dir.join(file)).unwrap_or_default();
            let Some(about) = About::certificate(&pem) else { continue };
            let is_used = *file == own || *file == format!("{FRONT_PROXY}.crt");
            let renewed = (renews && is_used).then(|| about.validity.renewed_at(Validity::OF_HOSTS, 0));
            list.push(Listed { what_for: what_for(file, &own), file: file.clone(), about, renewed });
        }
        let admin = Kubeconfig::load(kubeconfig).ok().and_then(|read| read.client_certificate);
        let admin = admin.and_then(|pem| About::certificate(std::str::from_utf8(&pem).ok()?));
        list.extend(admin.map(|about| Listed {
            file: kubeconfig.display().to_string(),
            what_for: "the administrator's kubeconfig",
            renewed: renews.then(|| about.validity.renewed_at(Validity::OF_ADMIN, 0)),
            about,
        }));
        let mut section = judge_identity(&identity, now);
        judge(&list, identity.certificates.len(), now, &mut section);
        Certificates { list, report: Report { findings: section.findings } }
    }

    /// Whether nothing is at fault, and nothing needs anybody.
    pub fn is_well(&self) -> bool {
        !self.report.findings.iter().any(|finding| finding.grade >= Grade::Warning)
    }

    /// What there is to say.
    pub fn findings(&self) -> &[Finding] {
        &self.report.findings
    }

    /// For people: a few lines each, then the findings.
    pub fn text(&self, coloured: bool) -> String {
        let mut text = String::new();
        for Listed { file, what_for, about, renewed } in &self.list {
            let ends = moment(about.validity.until);
            let renewed = match renewed {
                Some(renewed) => format!("by itself, until {}", moment(*renewed)),
                None => "not by itself".to_owned(),
            };
            let lines = [
                format!("{file}: {what_for}"),
                format!("of       {}", about.subject),
                format!("by       {}", about.issuer),
                format!("ends     {ends}"),
                format!("renewed  {renewed}"),
            ];
            for (number, line) in lines.iter().enumerate() {
                let gap = if number == 0 { "" } else { "  " };
                let (word, rest) = line.split_at(if number == 0 { 0 } else { 9 });
                let _ = writeln!(text, "{gap}{word}{}", plain(rest));
            }
            text.push('\n');
        }
        text + &self.report.text(coloured)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let one = |listed: &Listed| {
            json!({
                "file": listed.file,
                "for": listed.what_for,
                "subject": listed.about.subject,
                "issuer": listed.about.issuer,
                "from": moment(listed.about.validity.from),
                "until": moment(listed.about.validity.until),
                "renewedUntil": listed.renewed.map(moment),
            })
        };
        json!({
            "isWell": self.is_well(),
            "certificates": self.list.iter().map(one).collect::<Vec<_>>(),
            "findings": self.report.findings,
        })
    }
}

/// What the files of a host are for.
fn what_for(file: &str, own: &str) -> &'static str {
    match file {
        "ca.crt" => "the authority, which signs hosts and administrators",
        "requests-ca.crt" => "the authority that signs users who ask for it",
        "front-proxy-client.crt" => "the API, as it vouches to other servers for who asks",
        file if file == own => "this host: its API, its agent, its store, and who it is to others",
        _ => "nothing that this version knows",
    }
}

/// What the folder alone doesn't say: renewals that are late, and the kubeconfig.
fn judge(list: &[Listed], in_folder: usize, now: SystemTime, section: &mut Section) {
    for (number, Listed { file, about, renewed, .. }) in list.iter().enumerate() {
        let late = renewed.is_some_and(|renewed| now.duration_since(renewed).is_ok_and(|late| late > LATE));
        let left = about.validity.until.duration_since(now).unwrap_or_default();
        if number >= in_folder && left < SOON {
            let ends = if left.is_zero() {
                "is over".to_owned()
            } else {
                format!("ends in {} days", left.as_secs() / DAY)
            };
            section.warning("ends", format!("{file} {ends}"), RENEW);
        } else if late && !left.is_zero() {
            section.warning(
                "renewal",
                format!("{file} was to be renewed until {}", renewed.map(moment).unwrap_or_default()),
                "start the host; if it runs, its log says why it can't",
            );
        }
    }
}

/// A time as everybody reads it.
fn moment(time: SystemTime) -> String {
    let second = Timestamp::try_from(time).and_then(|time| Timestamp::from_second(time.as_second()));
    second.map_or_else(|_| "never".to_owned(), |second| second.to_string())
}

#[cfg(test)]
mod tests {
    use pki::{Authority, HostNames, OwnKey, admin_subject};

    use super::*;

    const TIME: Duration = Duration::from_secs(24 * 60 * 60);

    /// A host that was made this many days ago, in the folder of its configuration.
    fn host(folder: &Path, now: SystemTime, days: u32) -> HostConfig {
        let then = now - days * TIME;
        let plain = json!({
            "clusterId": "c", "name": "n1", "address": "10.0.0.1", "hostCidr": "10.0.0.0/24", "peers": {"n1": "10.0.0.1"},
            "podCidr": "10.244.0.0/24", "clusterCidr": "10.244.0.0/16", "serviceCidr": "10.96.0.0/16",
            "virtualAddress": "10.0.0.100", "net": {"kind": "netns", "link": "eth0"}, "dataDir": "/x", "begunFile": "/x/b",
            "timelineFile": "/x/t", "pkiDir": folder.join("pki"),
        });
        fs::write(folder.join("config.yaml"), plain.to_string()).unwrap();
        let config = HostConfig::load(&folder.join("config.yaml")).unwrap();
        let pki = &config.pki_dir;
        let authority = Authority::create("a", then).unwrap();
        authority.save(pki).unwrap();
        let address = config.address;
        let names = HostNames {
            name: "n1".into(),
            address,
            virtual_address: address,
            first_service_address: address,
        };
        let validity = Validity::lasting(then, Validity::OF_HOSTS);
        let key = OwnKey::create().unwrap();
        authority.certify_host(&key, &names, validity).unwrap().save(pki, "n1").unwrap();
        authority.certify_front_proxy(&key, validity).unwrap().save(pki, FRONT_PROXY).unwrap();
        let admin =
            authority.issue(&admin_subject(), &[], &[], Validity::lasting(then, Validity::OF_ADMIN)).unwrap();
        admin.save(folder, "admin").unwrap();
        let kubeconfig = json!({
            "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.100:6443"}}],
            "users": [{"name": "u", "user": {"client-certificate": "admin.crt", "client-key": "admin.key"}}],
        });
        fs::write(folder.join("admin.conf"), kubeconfig.to_string()).unwrap();
        config
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // Any moment will do.
    fn each_certificate_is_told_with_its_end_and_what_is_late() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let look = |days: u32| {
            let config = host(folder.path(), now, days);
            Certificates::as_of(&config, &folder.path().join("admin.conf"), now)
        };
        let told = look(1);
        assert!(told.is_well(), "{}", told.text(false));
        let (text, json) = (told.text(false), told.json());
        for word in [
            "n1.crt: this host",
            "of       O=system:nodes, CN=system:node:n1",
            "by       CN=a",
            "not by itself",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(json["certificates"].as_array().unwrap().len(), 4, "{json:#}");
        assert!(
            json["certificates"][2]["renewedUntil"].is_string()
                && json["certificates"][0]["renewedUntil"].is_null()
        );

        // The host didn't run when it should have renewed.
        let late = look(62);
        let says = |told: &Certificates, word: &str| {
            told.findings().iter().any(|finding| finding.what.contains(word))
        };
        assert!(!late.is_well() && says(&late, "n1.crt was to be renewed until"), "{}", late.text(false));
        let over = look(359);
        assert!(
            says(&over, "n1.crt is over") && says(&over, "admin.conf ends in 5 days"),
            "{}",
            over.text(false)
        );
    }
}
