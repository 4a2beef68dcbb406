//! Images that nobody uses are removed where the disk fills up, and who watches the Node hears of it if that is not enough.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use objects::Occurrence;
use tracing::info_span;

use crate::images::Images;
use crate::pods::PodHost;

/// How often: `ImageGCPeriod` of the kubelet.
const EVERY: Duration = Duration::from_secs(5 * 60);

/// Looks after the images of a host that runs containers, until it is dropped.
pub(crate) async fn collect_images(host: Arc<PodHost>) {
    let all = host.containers.iter().chain(&host.foreign_images).cloned();
    join_all(all.map(|images| collect_all(&host, images))).await;
}

async fn collect_all(host: &PodHost, images: Arc<dyn Images>) {
    loop {
        let (images, now) = (images.clone(), host.clock.now().elapsed);
        let done = tasks::blocking(info_span!("remove images"), move || images.collect(now)).await;
        // In the kubelet's words (`image_gc_manager.go`, `kubelet.go`).
        match done {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(complaint))) => tell(host, "FreeDiskSpaceFailed", complaint),
            Ok(Err(why)) => tell(host, "ImageGCFailed", why.to_string()),
            Err(why) => tell(host, "ImageGCFailed", why.to_string()),
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn tell(host: &PodHost, reason: &'static str, message: String) {
    tracing::warn!(reason, message, "images can't be removed");
    // As the kubelet has it: the Node may not be there yet.
    let name = Some(host.name.clone());
    let metadata = ObjectMeta { name: name.clone(), uid: name, ..ObjectMeta::default() };
    let node = Node { metadata, ..Node::default() };
    host.recorder.record(Occurrence::of(&node, true, reason, message));
}
