//! Events to a webhook, in batches; what it doesn't take is tried again, later and later.

use std::time::Duration;

use bytes::Bytes;
use client::{Client, Content, Error, Kubeconfig};
use config::AuditWebhook;
use http::{Method, Uri};

use super::queue::Outlet;

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a batch is tried before it is lost: upstream's number.
const TRIES: u32 = 5;
/// The most bytes after which a batch takes no more events.
const LARGE: usize = 4 << 20;

/// Sends events to a webhook.
pub struct Sender {
    client: Client,
    path: String,
    most: usize,
    wait: Duration,
    backoff: Duration,
}

impl Sender {
    /// One that sends to where a kubeconfig says.
    ///
    /// # Errors
    /// If the kubeconfig can't be used.
    pub fn new(config: &AuditWebhook) -> Result<Self, Error> {
        let kubeconfig = Kubeconfig::load(&config.kubeconfig)?;
        let client = Client::new(&kubeconfig)?.with_timeout(PATIENCE);
        let path = behind_prefix(&kubeconfig.server);
        let (wait, backoff) = (config.batch_max_wait, config.initial_backoff);
        Ok(Sender { client, path, most: config.batch_max_size, wait, backoff })
    }

    /// Sends what comes out of a queue, until its end.
    pub async fn send_all(self, mut outlet: Outlet) {
        let mut batch = Vec::new();
        while self.fill(&mut outlet, &mut batch).await {
            match self.deliver(&batch).await {
                Ok(()) => outlet.written(&batch),
                Err(error) => outlet.lost(&batch, &error),
            }
            batch.clear();
        }
    }

    /// Waits for events, and from the first on for others, but not for long, and not when the host ends; whether there are any.
    async fn fill(&self, outlet: &mut Outlet, batch: &mut Vec<Bytes>) -> bool {
        if outlet.next(batch, 1).await == 0 {
            return false;
        }
        let hurried = outlet.hurried();
        let more = async {
            let mut size: usize = batch.iter().map(Bytes::len).sum();
            while batch.len() < self.most && size < LARGE {
                if outlet.next(batch, 1).await == 0 {
                    return;
                }
                size += batch.last().map_or(0, Bytes::len);
            }
        };
        let full_or_late = tokio::time::timeout(self.wait, more);
        // Whatever ends it, it goes; also in a hurry with all that is there.
        tokio::select! {
            biased;
            _ = full_or_late => {}
            () = hurried => {}
        }
        true
    }

    async fn deliver(&self, batch: &[Bytes]) -> Result<(), Error> {
        let (body, mut tries, mut wait) = (list(batch), 1, self.backoff);
        loop {
            let content = Some((Content::Json, body.clone()));
            match self.client.request(Method::POST, &self.path, content, None).await {
                Ok(_) => return Ok(()),
                Err(error) if tries == TRIES || !may_pass(&error) => return Err(error),
                Err(error) => tracing::debug!(%error, tries, "the audit webhook takes nothing"),
            }
            tokio::time::sleep(wait).await;
            (tries, wait) = (tries + 1, wait.mul_f32(1.5));
        }
    }
}

/// What stands behind the path of the server's address, which the client puts before all paths.
pub fn behind_prefix(server: &str) -> String {
    let uri: Uri = server.parse().unwrap_or_default();
    let slash = if uri.path().trim_end_matches('/').is_empty() { "/" } else { "" };
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    format!("{slash}{query}")
}

/// Whether it may go better the next time.
fn may_pass(error: &Error) -> bool {
    error.code().is_none_or(|code| code >= 500 || code == 429)
}

/// The events as an `EventList`.
fn list(events: &[Bytes]) -> Bytes {
    let size: usize = events.iter().map(|event| event.len() + 1).sum();
    let mut list = Vec::with_capacity(size + 100);
    list.extend_from_slice(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
    for (place, event) in events.iter().enumerate() {
        if place > 0 {
            list.push(b',');
        }
        list.extend_from_slice(event);
    }
    list.extend_from_slice(b"]}");
    list.into()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use audit::Sink;
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::audit::queue::Queue;

    /// A webhook that answers with these codes, one after the other, and then with 200: what it was sent, as path and body.
    async fn hook(codes: &'static [u16]) -> (SocketAddr, mpsc::UnboundedReceiver<(String, Value)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut codes = codes.iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut sent = Vec::new();
                let (head, body) = loop {
                    assert!(stream.read_buf(&mut sent).await.unwrap() > 0, "a request comes to its end");
                    let text = String::from_utf8(sent.clone()).unwrap();
                    if let Some((head, body)) = text.split_once("\r\n\r\n")
                        && let Ok(body) = serde_json::from_str::<Value>(body)
                    {
                        break (head.to_owned(), body);
                    }
                };
                let path = head.split(' ').nth(1).unwrap().to_owned();
                tell.send((path, body)).unwrap();
                let code = codes.next().unwrap_or(&200);
                let answer =
                    format!("HTTP/1.1 {code} As Told\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, told)
    }

    fn sender(folder: &std::path::Path, address: SocketAddr, path: &str) -> Sender {
        let kubeconfig = folder.join("kubeconfig");
        let text = json!({
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}{path}")}}],
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
            "current-context": "c",
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let short = Duration::from_millis(10);
        Sender::new(&AuditWebhook {
            kubeconfig,
            batch_max_size: 2,
            batch_max_wait: short,
            initial_backoff: short,
        })
        .unwrap()
    }

    fn tell(queue: &Arc<Queue>, numbers: std::ops::Range<u32>) {
        for n in numbers {
            queue.take(&Bytes::from(format!(r#"{{"auditID":"{n}"}}"#)));
        }
    }

    fn ids(list: &Value) -> Vec<&str> {
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
        list["items"].as_array().unwrap().iter().map(|event| event["auditID"].as_str().unwrap()).collect()
    }

    #[tokio::test]
    async fn events_go_in_batches_and_again_until_they_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (address, mut told) = hook(&[500, 429]).await;
        let sender = sender(folder.path(), address, "/audit?from=here");
        let (queue, outlet) = Queue::new("webhook");
        tell(&queue, 0..3);
        let sending = tokio::spawn(sender.send_all(outlet));
        for _ in 0..3 {
            let (path, list) = told.recv().await.unwrap();
            assert_eq!((path.as_str(), ids(&list)), ("/audit?from=here", vec!["0", "1"]));
        }
        assert_eq!(ids(&told.recv().await.unwrap().1), ["2"]);
        queue.emptied().await;
        assert_eq!(queue.lost(), 0);
        drop(queue);
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn a_host_that_ends_waits_for_no_further_events() {
        let folder = tempfile::tempdir().unwrap();
        let (address, mut told) = hook(&[]).await;
        let mut sender = sender(folder.path(), address, "");
        sender.wait = Duration::from_secs(3600);
        let (queue, outlet) = Queue::new("webhook");
        tokio::spawn(sender.send_all(outlet));
        tell(&queue, 0..1);
        queue.hurry();
        let sent = tokio::time::timeout(Duration::from_secs(60), told.recv()).await;
        assert_eq!(ids(&sent.unwrap().unwrap().1), ["0"]);
        queue.emptied().await;
        assert_eq!(queue.lost(), 0);
    }

    #[tokio::test]
    async fn what_is_refused_or_never_taken_is_lost_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (address, mut told) = hook(&[400, 503, 503, 503, 503, 503]).await;
        let sender = sender(folder.path(), address, "");
        let (queue, outlet) = Queue::new("webhook");
        tokio::spawn(sender.send_all(outlet));
        tell(&queue, 0..1);
        assert_eq!(told.recv().await.unwrap().0, "/");
        queue.emptied().await;
        assert_eq!(queue.lost(), 1, "what it doesn't want it won't want the next time");
        tell(&queue, 1..2);
        for _ in 0..TRIES {
            told.recv().await.unwrap();
        }
        queue.emptied().await;
        assert_eq!(queue.lost(), 2);
        tell(&queue, 2..3);
        assert_eq!(ids(&told.recv().await.unwrap().1), ["2"], "and then it goes on");
    }
}
