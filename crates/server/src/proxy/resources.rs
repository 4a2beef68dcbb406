//! What a host's agent tells of what is used there.

use http_body_util::{BodyExt, Limited};
use machinery::Status;

use super::Proxy;

/// The longest answer: some 600 bytes a container, of a few hundred pods.
const LONGEST: usize = 4 << 20;

impl Proxy {
    /// What a host and its containers use, in Prometheus' text (the kubelet's `/metrics/resource`).
    pub(crate) async fn resource_metrics(&self, node: &str) -> Result<String, Status> {
        let path = "/metrics/resource";
        let agent = self.agent(node)?;
        let answer = agent.get(path).await?;
        if !answer.status().is_success() {
            return Err(agent.unreachable(path, &answer.status()));
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| agent.unreachable(path, &error))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }
}
