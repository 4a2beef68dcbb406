//! The webhook that is asked about tokens which the cluster didn't make (docs/access.md).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::{Client, Content, Kubeconfig};
use futures::future::BoxFuture;
use http::{Method, Uri};
use serde_json::Value;
use server::{Server, TokenReviewer};

use crate::audit::behind_prefix;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const LARGEST: usize = 1 << 20;

/// The webhook, where a kubeconfig says.
struct Webhook {
    client: Client,
    path: String,
}

impl TokenReviewer for Webhook {
    fn review<'a>(&'a self, question: &'a Value) -> BoxFuture<'a, Result<Value, String>> {
        Box::pin(async move {
            let answer = self.client.send(Method::POST, &self.path, Content::Json, question).await;
            answer.and_then(|answer| answer.json()).map_err(|error| error.to_string())
        })
    }
}

impl Webhook {
    fn new(config: &config::TokenWebhook) -> anyhow::Result<Self> {
        let kubeconfig = Kubeconfig::load(&config.kubeconfig)?;
        anyhow::ensure!(
            is_private(&kubeconfig.server),
            "{} leads to {} without TLS, and tokens are sent there; give it an https address",
            config.kubeconfig.display(),
            kubeconfig.server,
        );
        let client = Client::new(&kubeconfig)?.with_timeout(PATIENCE).with_largest_answer(LARGEST);
        Ok(Webhook { client, path: behind_prefix(&kubeconfig.server) })
    }
}

/// Whether what is sent to a server is heard by nobody on the way: by TLS, or because it stays on this machine.
fn is_private(server: &str) -> bool {
    let uri: Uri = server.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    uri.scheme_str() == Some("https") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Lets the server ask the webhook of the configuration, if there is one.
///
/// # Errors
/// If its kubeconfig can't be used, or leads to another machine without TLS.
pub fn ask(server: &Server, config: Option<&config::TokenWebhook>) -> anyhow::Result<()> {
    let Some(config) = config else { return Ok(()) };
    let webhook = Webhook::new(config).context("tokenWebhook can't be used")?;
    server.review_tokens_by(Arc::new(webhook), config.cache_ttl);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn webhook(folder: &Path, server: &str) -> anyhow::Result<Webhook> {
        let kubeconfig = folder.join("kubeconfig");
        let text = json!({
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
            "current-context": "c",
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        Webhook::new(&config::TokenWebhook { kubeconfig, cache_ttl: Duration::ZERO })
    }

    #[tokio::test]
    async fn a_question_goes_where_the_kubeconfig_says_and_never_without_tls_to_another_machine() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}/authenticate", listener.local_addr().unwrap());
        let webhook_here = webhook(folder.path(), &server).unwrap();
        let question = json!({"spec": {"token": "t"}});
        let answers = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut sent = Vec::new();
            while !sent.ends_with(question.to_string().as_bytes()) {
                assert!(stream.read_buf(&mut sent).await.unwrap() > 0, "a question comes to its end");
            }
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(sent).unwrap()
        };
        let (answer, sent) = tokio::join!(webhook_here.review(&question), answers);
        assert_eq!(answer, Ok(json!({"a": 1})));
        assert!(sent.starts_with("POST /authenticate HTTP/1.1\r\n"), "{sent}");
        let why = webhook(folder.path(), "http://192.0.2.1/").err().unwrap().to_string();
        assert!(why.contains("leads to http://192.0.2.1 without TLS"), "{why}");
    }
}
