//! The keys of machines that were taken back, as this host knew them last: its doors to other hosts open before its store can tell.

use std::path::PathBuf;

use anyhow::Context;
use config::HostConfig;
use pki::RevokedKeys;
use tokio::sync::watch;
use tracing::info_span;

/// Where they are kept.
pub fn file(config: &HostConfig) -> PathBuf {
    config.data_dir.join("revoked-keys")
}

/// Reads them.
pub fn load(config: &HostConfig) -> anyhow::Result<RevokedKeys> {
    RevokedKeys::load(&file(config)).context(
        "the keys of machines that were replaced can't be read; a file that is damaged may be removed, since the store has them too",
    )
}

/// Writes them when they change, until nobody changes them any more.
pub async fn keep(file: PathBuf, keys: RevokedKeys, mut changes: watch::Receiver<()>) {
    loop {
        let (to, now) = (file.clone(), keys.clone());
        let saved = tasks::blocking(info_span!("save revoked keys"), move || now.save(&to)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the keys of machines that were replaced can't be kept for the next start");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
