//! What a runtime has of images, and what of it goes.

#[path = "../../../csi/tests/support/server.rs"]
mod server;

use cri::messages::{
    FilesystemIdentifier, FilesystemUsage, Image as There, ImageFsInfoResponse, ListContainersResponse,
    ListImagesResponse, RemoveImageRequest, StatusResponse,
};
use prost::Message;
use server::serve;

use super::*;

/// A runtime with the images `sha256:a` and `sha256:b`, that never answers calls of the name `hangs`; and what it removed.
fn runtime(folder: &Path, hangs: &'static str) -> (ForeignImages, Arc<Mutex<Vec<String>>>) {
    let (socket, removed) = (folder.join("runtime.sock"), Arc::new(Mutex::new(Vec::new())));
    let (place, asked) = (folder.display().to_string(), removed.clone());
    serve(&socket, move |path, question| {
        let (place, asked) = (place.clone(), asked.clone());
        async move {
            let method = path.rsplit('/').next().unwrap();
            if method == hangs {
                std::future::pending::<()>().await;
            }
            Ok(match method {
                "ImageFsInfo" => {
                    let fs_id = Some(FilesystemIdentifier { mountpoint: place });
                    let system = FilesystemUsage { fs_id, ..FilesystemUsage::default() };
                    ImageFsInfoResponse { image_filesystems: vec![system] }.encode_to_vec()
                }
                "ListImages" => {
                    let image = |id: &str| There { id: id.to_owned(), ..There::default() };
                    let images = ["sha256:a", "sha256:b"].map(image).to_vec();
                    ListImagesResponse { images }.encode_to_vec()
                }
                "RemoveImage" => {
                    let image = RemoveImageRequest::decode(question).unwrap().image.unwrap();
                    asked.lock().unwrap().push(image.image);
                    Vec::new()
                }
                "Status" => StatusResponse::default().encode_to_vec(),
                _ => ListContainersResponse::default().encode_to_vec(),
            })
        }
    });
    let client = Client::at(&format!("unix://{}", socket.display()).parse().unwrap());
    let images = ForeignImages {
        client,
        node_dir: folder.to_owned(),
        removing: tokio::sync::Mutex::default(),
        there: Arc::default(),
    };
    (images, removed)
}

#[tokio::test]
async fn an_image_that_a_pod_has_stays_before_anything_runs_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let marks = folder.path().join("pods/uid/images");
    fs::create_dir_all(&marks).unwrap();
    fs::write(marks.join("web"), "sha256:a").unwrap();
    let (images, removed) = runtime(folder.path(), "");
    images.remove_unused(&images.client, 0).await.unwrap();
    assert_eq!(*removed.lock().unwrap(), ["sha256:b"]);
}

#[tokio::test]
async fn a_runtime_that_hangs_does_not_hold_up_who_is_short_of_disk() {
    for hangs in ["ImageFsInfo", "RemoveImage"] {
        let folder = tempfile::tempdir().unwrap();
        let (images, removed) = runtime(folder.path(), hangs);
        let why = images.remove_unused(&images.client.within(Duration::from_millis(50)), 0).await;
        let why = why.unwrap_err().to_string();
        assert!(why.contains("DeadlineExceeded"), "{hangs}: {why}");
        assert!(removed.lock().unwrap().is_empty());
    }
}

#[test]
fn an_images_signal_is_found_where_runtimes_tell_it() {
    let of = |text: &str| stop_signal(&Texts::from([("info".to_owned(), text.to_owned())]));
    // As containerd 1.6 and CRI-O have it.
    let told =
        r#"{"chainID": "sha256:1", "imageSpec": {"os": "linux", "config": {"StopSignal": "SIGQUIT"}}}"#;
    assert_eq!(of(told).as_deref(), Some("SIGQUIT"));
    for none in ["", "[", "{}", r#"{"imageSpec": 7}"#, r#"{"imageSpec": {"config": {"StopSignal": ""}}}"#] {
        assert_eq!(of(none), None, "{none}");
    }
    assert_eq!(stop_signal(&Texts::new()), None);
}
