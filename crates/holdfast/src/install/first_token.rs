//! The first token: made by `init`, before there is a cluster that could know it, and brought into the cluster by its first host.

use std::fs;
use std::path::Path;
use std::time::Duration;

use install::Layout;
use machinery::Object;
use objects::{Write, Writer};

/// Between two tries: the store elects a leader in less.
const PAUSE: Duration = Duration::from_millis(500);
/// Who makes bootstrap tokens' Secrets here: a part of the cluster.
const USER: &str = "system:kube-controller-manager";

/// Brings the token that lies beside the host's keys into the cluster, and removes the file.
pub async fn bring_first_token(pki_dir: &Path, writer: &dyn Writer) {
    let path = Layout::first_token(pki_dir);
    let Ok(text) = fs::read(&path) else { return };
    let Some(secret) = serde_json::from_slice(&text).ok().and_then(Object::from_value) else {
        return tracing::warn!("{} holds no token; make one with `holdfast token create`", path.display());
    };
    loop {
        match writer.write(USER, Write::Create(secret.clone())).await {
            Ok(_) => break,
            // A host that ended between the two steps comes again.
            Err(status) if status.code == 409 => break,
            Err(status) if status.code >= 500 || status.code == 429 => tokio::time::sleep(PAUSE).await,
            Err(status) => {
                tracing::warn!(why = status.message, "the first token isn't taken");
                return;
            }
        }
    }
    if let Err(error) = fs::remove_file(&path) {
        tracing::warn!(%error, "{} can't be removed", path.display());
    }
}
