//! The files of a host's keys and certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use config::HostConfig;
use pki::Trust;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::facts::{Certificate, Identity};

#[allow(clippy::disallowed_methods)] // Whether a certificate is valid is a question about now.
pub(crate) fn identity(config: &HostConfig) -> Identity {
    read(&config.pki_dir, &config.name, SystemTime::now())
}

fn read(folder: &Path, name: &str, now: SystemTime) -> Identity {
    let mut identity = Identity::default();
    let trust = Trust::load(folder).map_err(|error| identity.broken.push(error.to_string())).ok();
    // That the two are a pair, rustls says when it makes a client of them.
    let paired = pki::Identity::load(folder, name).and_then(|own| match &trust {
        Some(trust) => own.client_config(trust, &[]).map(drop),
        None => Ok(()),
    });
    if let Err(error) = paired {
        identity.broken.push(format!("{name}.crt and {name}.key: {error}"));
    }
    for path in files(folder) {
        match path.extension().and_then(|end| end.to_str()) {
            Some("crt") => match certificate(&path, trust.as_ref(), now) {
                Some(certificate) => identity.certificates.push(certificate),
                None => identity.broken.push(format!("{} is no certificate", path.display())),
            },
            Some("key") if is_open(&path) => identity.open_keys.push(path),
            _ => {}
        }
    }
    identity
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.sort_unstable();
    files
}

fn is_open(key: &Path) -> bool {
    key.metadata().is_ok_and(|about| about.permissions().mode() & 0o077 != 0)
}

fn certificate(path: &Path, trust: Option<&Trust>, now: SystemTime) -> Option<Certificate> {
    let pem = fs::read_to_string(path).ok()?;
    let (until, own) = (pki::valid_until(&pem)?, CertificateDer::from_pem_slice(pem.as_bytes()).ok()?);
    let file = path.file_name()?.to_string_lossy().into_owned();
    // Authorities sign themselves.
    let trust = trust.filter(|_| file != "ca.crt" && !file.ends_with("-ca.crt"));
    Some(Certificate {
        // A moment before its end a good certificate is valid, whatever the clock says now.
        is_signed: trust
            .zip(until.checked_sub(Duration::from_secs(1)))
            .map(|(trust, then)| trust.vouches_for(&own, then)),
        is_valid: trust.map(|trust| trust.vouches_for(&own, now)),
        file,
        until,
    })
}

#[cfg(test)]
mod tests {
    use pki::{Authority, Subject, Validity};

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // Any moment will do.
    fn certificates_are_known_by_who_signed_them_and_when_they_are_valid() {
        let folder = tempfile::tempdir().unwrap();
        let (now, folder) = (SystemTime::now(), folder.path());
        let [ours, others] = ["ours", "others"].map(|name| Authority::create(name, now).unwrap());
        ours.trust().unwrap().save(folder).unwrap();
        let subject =
            Subject { common_name: "system:node:n1".into(), organization: Some("system:nodes".into()) };
        let later = now + Duration::from_secs(48 * 60 * 60);
        for (authority, name, from) in
            [(&ours, "n1", now), (&others, "stranger", now), (&ours, "early", later)]
        {
            let identity = authority.issue(&subject, &[], &[], Validity::years(from, 1)).unwrap();
            identity.save(folder, name).unwrap();
        }
        fs::write(folder.join("odd.crt"), "nothing").unwrap();
        fs::set_permissions(folder.join("early.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let identity = read(folder, "n1", now);
        let told: Vec<_> = identity
            .certificates
            .iter()
            .map(|one| (one.file.as_str(), one.is_signed, one.is_valid))
            .collect();
        let expected = [
            ("ca.crt", None, None),
            ("early.crt", Some(true), Some(false)),
            ("n1.crt", Some(true), Some(true)),
            ("stranger.crt", Some(false), Some(false)),
        ];
        assert_eq!(told, expected);
        assert_eq!(identity.broken, [format!("{} is no certificate", folder.join("odd.crt").display())]);
        assert_eq!(identity.open_keys, [folder.join("early.key")]);
        let missing = read(&folder.join("nowhere"), "n1", now);
        assert_eq!(missing.broken.len(), 2, "{missing:?}");
    }
}
