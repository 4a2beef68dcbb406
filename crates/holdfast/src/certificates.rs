//! This host's certificates: renewed by itself while it runs, and as it starts, however long ago they ended.
//!
//! A member has the authority's key, so it asks nobody, and no quorum, no network and no other host has to be there. A host without that key
//! (of a cluster on one machine) has certificates that last as long as the authority.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use config::HostConfig;
use pki::{Authority, FRONT_PROXY, Identity, LiveIdentity, Renewal, Validity};
use tracing::info_span;

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
    /// Those in use that the disk didn't take.
    unsaved: Arc<Mutex<BTreeSet<String>>>,
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
            unsaved: Arc::default(),
        };
        certificates.renew(now());
        Ok(certificates)
    }

    /// Renews them for as long as the host runs.
    pub async fn keep(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let certificates = self.clone();
            // Beside the threads that answer requests: a disk that fails may take its time.
            let look = move || certificates.renew(now());
            if let Err(error) = tasks::blocking(info_span!("look at certificates"), look).await {
                tracing::warn!(%error, "a look at this host's certificates broke off; it tries again each minute");
            }
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
        let host = host_names(&self.config);
        let own = self.renew_one(&self.own, name, now, |own| authority.renew_host(own, &host, of_hosts));
        let front_proxy = self
            .renew_one(&self.front_proxy, FRONT_PROXY, now, |own| authority.renew_front_proxy(own, of_hosts));
        let kubeconfig =
            renew_kubeconfig(&self.folder, &authority, &self.config, renewal(Validity::OF_ADMIN));
        // Each was tried: what is wrong with one keeps none of the others from being renewed.
        own.and(front_proxy).and(kubeconfig)
    }

    fn renew_one(
        &self,
        live: &LiveIdentity,
        name: &str,
        now: SystemTime,
        renewed: impl FnOnce(&Identity) -> Result<Option<Identity>, pki::Error>,
    ) -> anyhow::Result<()> {
        let (current, pki) = (live.current(), &self.config.pki_dir);
        let mut unsaved = self.unsaved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(new) = renewed(&current)? else {
            if unsaved.contains(name) {
                current.save(pki, name)?;
                unsaved.remove(name);
            }
            return Ok(());
        };
        // First to the disk: a host that ends now starts with it. One that is over, or not valid yet, opens nothing, though: the new one
        // is used then also where the disk is full.
        let saved = new.save(pki, name);
        let Validity { from, until } = current.validity()?;
        if saved.is_err() && from <= now && now < until {
            return Ok(saved?);
        }
        let until = jiff::Timestamp::try_from(new.validity()?.until).context("it ends at no time")?;
        live.replace(new)?;
        tracing::info!(%name, %until, "a certificate was renewed");
        if saved.is_err() {
            unsaved.insert(name.to_owned());
        }
        saved.with_context(|| format!("{name}'s new certificate is in use, but isn't on the disk"))
    }
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

    /// A host that was off since the end of all its certificates, in a folder.
    fn host_that_was_off(folder: &Path) -> (HostConfig, install::Layout) {
        let layout = install::Layout::new(folder.join("etc"), folder.join("lib"));
        let local = local::Folder::open_or_create(&folder.join("up"), 1, local::NetKind::Netns).unwrap();
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
        layout.write_kubeconfig(&(text + SOMEBODYS)).unwrap();
        (config, layout)
    }

    #[test]
    fn a_host_whose_disk_is_full_uses_a_new_certificate_once_its_own_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let (config, layout) = host_that_was_off(folder.path());
        let (pki, name, now) = (&config.pki_dir, config.name.as_str(), now());
        // Nobody can write here, not even root.
        let in_the_way = pki.join(format!("{name}.key.new"));
        std::fs::create_dir(&in_the_way).unwrap();
        let until = |identity: Identity| identity.validity().unwrap().until;
        let saved = || until(Identity::load(pki, name).unwrap());

        let certificates = Certificates::load(&config, &layout.config_file()).unwrap();
        let first = until(certificates.own.current());
        assert!(first > now + 89 * DAY && saved() < now, "the one in use is new, that on the disk is not");
        assert!(
            until(Identity::load(pki, FRONT_PROXY).unwrap()) > now,
            "the others are renewed all the same"
        );
        certificates.renew_due(now + DAY).unwrap_err();
        // One that isn't over yet stays: who starts anew starts with what is on the disk.
        certificates.renew_due(now + 70 * DAY).unwrap_err();
        assert_eq!(until(certificates.own.current()), first);

        std::fs::remove_dir(&in_the_way).unwrap();
        certificates.renew_due(now + DAY).unwrap();
        assert_eq!(saved(), first, "it is saved once there is room");
    }

    /// As an older version installed it, with ten years before it.
    #[test]
    fn a_host_that_was_off_past_the_end_of_all_it_has_starts_with_new_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let (config, layout) = host_that_was_off(folder.path());
        let (pki, now) = (&config.pki_dir, now());
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
        let text = std::fs::read_to_string(layout.kubeconfig()).unwrap();
        assert!(text.ends_with(SOMEBODYS), "what people wrote into it stays: {text}");

        // Nothing is due, so nothing changes; and who lacks the authority's key leaves things as they are.
        let renewed = certificates.own.current();
        certificates.renew_due(now + DAY).unwrap();
        assert_eq!(certificates.own.current().certificate_pem(), renewed.certificate_pem());
        std::fs::remove_file(pki.join(AUTHORITY_KEY)).unwrap();
        certificates.renew_due(now + 80 * DAY).unwrap();
        assert_eq!(certificates.own.current().certificate_pem(), renewed.certificate_pem());
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    const SOMEBODYS: &str = "# somebody's own line\n";
}
