//! What a runtime is offered, so that its pods have this host's network.

use std::path::PathBuf;

use cri::{Client, Failure};
use tracing::info_span;

use super::cni::{Places, install};
use super::former::note_network;

/// What a runtime is offered.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// What becomes its plugin.
    pub program: PathBuf,
    /// The mark that this host's pods bear.
    pub node: String,
    /// The file in which it is kept where that lies, for who takes it away again.
    pub book: PathBuf,
}

impl Offer {
    /// Has a runtime use the plugin. Fine if it does.
    ///
    /// # Errors
    /// If the runtime doesn't answer.
    pub(super) async fn make(&self, client: &Client) -> Result<(), Failure> {
        let status = client.status().await?;
        let (places, endpoint) = (Places::of(status.info.get("config")), client.endpoint());
        let Offer { program, node, book } = self.clone();
        let work = move || {
            // First of all: what is written and not noted would stay for good.
            note_network(&book, &endpoint, &node, &places)?;
            install(&places, &node, &program)
        };
        if let Ok(Err(why)) = tasks::blocking(info_span!("offer a network"), work).await {
            tracing::warn!(%why, "the containers' runtime can't be given pods' network");
        }
        Ok(())
    }
}
