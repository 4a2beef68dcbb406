//! This host's certificates: renewed by itself while it runs, and as it starts, however long ago they ended.
//!
//! A member has the authority's key, so it asks nobody, and no quorum, no network and no other host has to be there. A host without that key
//! (of a cluster on one machine) has certificates that last as long as the authority.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use config::HostConfig;
use pki::{Authority, FRONT_PROXY, Identity, LiveIdentity, Renewal, Validity};

use crate::install::{host_names, renew_kubeconfig};

/// Between two looks: by the wall clock, which may be set, and which goes on while a machine sleeps.
const EVERY: Duration = Duration::from_secs(60);
/// The authority's key, in the folder of keys.
const AUTHORITY_KEY: &str = "ca.key";

/// Who a host is to others.
#[derive(Clone)]
pub struct Certificates {
    /// As host, server and member.
    pub own: LiveIdentity,
    /// As the one who vouches for who asks.
    pub front_proxy: LiveIdentity,
    config: HostConfig,
    /// The folder of the administrator's kubeconfig.
    folder: PathBuf,
    /// By how much this host is earlier than others.
    early: u8,
}

impl Certificates {
    /// Those of the host whose configuration lies at a path; what is due, or over, is renewed before anybody sees it.
    pub fn load(config: &HostConfig, config_file: &Path) -> anyhow::Result<Self> {
        let load = |name: &str| anyhow::Ok(LiveIdentity::new(Identity::load(&config.pki_dir, name)?)?);
        let certificates = Certificates {
            own: load(&config.name)?,
            front_proxy: load(FRONT_PROXY)?,
            config: config.clone(),
            folder: config_file.parent().unwrap_or(Path::new("")).to_owned(),
            early: early(),
        };
        certificates.renew(now());
        Ok(certificates)
    }

    /// Renews them for as long as the host runs.
    pub async fn keep(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            self.renew(now());
        }
    }

    /// What can't be renewed now is tried again at the next look; the former ones stay until then.
    fn renew(&self, now: SystemTime) {
        if let Err(error) = self.renew_due(now) {
            tracing::warn!(
                "this host's certificates can't be renewed: {error:#}; it tries again each minute"
            );
        }
    }

    fn renew_due(&self, now: SystemTime) -> anyhow::Result<()> {
        let (pki, name) = (&self.config.pki_dir, &self.config.name);
        if !pki.join(AUTHORITY_KEY).exists() {
            return Ok(());
        }
        let authority = Authority::load(pki)?;
        let renewal = |life| Renewal { life, early: self.early, now };
        let of_hosts = renewal(Validity::OF_HOSTS);
        if let Some(new) = authority.renew_host(&self.own.current(), &host_names(&self.config), of_hosts)? {
            take(&self.own, new, pki, name)?;
        }
        if let Some(new) = authority.renew_front_proxy(&self.front_proxy.current(), of_hosts)? {
            take(&self.front_proxy, new, pki, FRONT_PROXY)?;
        }
        renew_kubeconfig(&self.folder, &authority, &self.config, renewal(Validity::OF_ADMIN))
    }
}

/// First to the disk: a host that ends now starts with it.
fn take(live: &LiveIdentity, new: Identity, folder: &Path, name: &str) -> anyhow::Result<()> {
    new.save(folder, name)?;
    let until = jiff::Timestamp::try_from(new.validity()?.until).context("it ends at no time")?;
    live.replace(new)?;
    tracing::info!(%name, %until, "a certificate was renewed");
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "the program: certificates are valid now, or not")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[allow(clippy::disallowed_methods, reason = "the program: here chance comes in")]
fn early() -> u8 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use client::Kubeconfig;

    use super::*;

    /// A host that was installed with ten years before it, as an older version did it, and was off since then.
    #[test]
    fn a_host_that_was_off_past_the_end_of_all_it_has_starts_with_new_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let layout = install::Layout::new(folder.path().join("etc"), folder.path().join("lib"));
        let local =
            local::Folder::open_or_create(&folder.path().join("up"), 1, local::NetKind::Netns).unwrap();
        let mut config = HostConfig::load(&local.config_file("n1")).unwrap();
        config.pki_dir = layout.pki_dir();
        let (pki, now) = (&config.pki_dir, now());
        let long_ago = Validity { from: now - 400 * DAY, until: now - DAY };
        let authority = Authority::create("a", now - 500 * DAY).unwrap();
        authority.save(pki).unwrap();
        let names = host_names(&config);
        for (subject, name) in
            [(names.subject(), config.name.as_str()), (pki::front_proxy_subject(), FRONT_PROXY)]
        {
            authority.issue(&subject, &[], &[], long_ago).unwrap().save(pki, name).unwrap();
        }
        let admin = authority.issue(&pki::admin_subject(), &[], &[], long_ago).unwrap();
        let text =
            local::kubeconfig("holdfast", "https://10.0.0.1:6443", authority.certificate_pem(), &admin);
        layout.write_kubeconfig(&text).unwrap();
        let before = Identity::load(pki, &config.name).unwrap().key_hash().unwrap();

        let certificates = Certificates::load(&config, &layout.config_file()).unwrap();
        for (live, name) in
            [(&certificates.own, config.name.as_str()), (&certificates.front_proxy, FRONT_PROXY)]
        {
            let saved = Identity::load(pki, name).unwrap();
            assert_eq!(saved.certificate_pem(), live.current().certificate_pem(), "{name}");
            let validity = saved.validity().unwrap();
            assert!(validity.from < now && validity.until > now + 89 * DAY, "{name}: {validity:?}");
        }
        assert_eq!(certificates.own.current().key_hash().unwrap(), before, "it is the same machine");
        let admin = Kubeconfig::load(&layout.kubeconfig()).unwrap().client_certificate.unwrap();
        let admin = pki::valid_until(std::str::from_utf8(&admin).unwrap()).unwrap();
        assert!(admin > now + 364 * DAY);

        // Nothing is due, so nothing changes; and who lacks the authority's key leaves things as they are.
        let renewed = certificates.own.current();
        certificates.renew_due(now + DAY).unwrap();
        assert_eq!(certificates.own.current().certificate_pem(), renewed.certificate_pem());
        std::fs::remove_file(pki.join(AUTHORITY_KEY)).unwrap();
        certificates.renew_due(now + 80 * DAY).unwrap();
        assert_eq!(certificates.own.current().certificate_pem(), renewed.certificate_pem());
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
}
