//! Where the engine can't start: one clear reason.

use std::time::{Duration, SystemTime};

use etcd::{Config, Engine, EngineError};
use pki::{Authority, Trust};
use store::Store;

use crate::etcds::Etcds;
use crate::suite::put;

#[tokio::test]
async fn nobody_there_is_said() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nobody}").parse::<http::Uri>().unwrap();
    let config = Config::new("n1", "test", vec![endpoint.into()], None, "/holdfast");
    let error = Engine::check(&config).await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains(&nobody.to_string()), "{error}");
}

#[tokio::test]
async fn who_does_not_answer_like_an_etcd_is_said() {
    // It takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap()).parse::<http::Uri>().unwrap();
    let mut config = Config::new("n1", "test", vec![endpoint.into()], None, "/holdfast");
    config.request_timeout = Duration::from_millis(300);
    let error = Engine::check(&config).await.unwrap_err();
    assert!(matches!(error, EngineError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn who_is_not_trusted_is_said() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let now = SystemTime::now();
    let stranger = Authority::create("other", now).unwrap();
    let trust = Trust::from_pem(etcds.authority.certificate_pem()).unwrap();
    let wrong_trust = Trust::from_pem(stranger.certificate_pem()).unwrap();
    let admin = etcds.authority.admin_identity(now).unwrap();
    let cases = [
        (admin.client_config(&wrong_trust, &[]), "isn't accepted here"),
        (stranger.admin_identity(now).unwrap().client_config(&trust, &[]), "client's certificate"),
        (trust.client_config(&[]), "client's certificate"),
    ];
    for (tls, words) in cases {
        let config = Config { tls: Some(tls.unwrap()), ..etcds.config("n1") };
        let error = Engine::check(&config).await.unwrap_err();
        assert!(matches!(error, EngineError::Refused(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(Engine::start(config).await.is_err(), "waiting would not help");
    }
    Engine::check(&etcds.config("n1")).await.unwrap();
}

#[tokio::test]
async fn another_clusters_keys_are_left_alone() {
    let Some(etcds) = Etcds::start(1).await else { return };
    let engine = etcds.engine("n1").await;
    put(&*engine, "/a", "1").await;
    let other = Config { cluster_id: "other".into(), ..etcds.config("n1") };
    for refused in [
        Engine::check(&other).await.unwrap_err(),
        Engine::start(other.clone()).await.unwrap_err(),
        Engine::remove(&other).await.unwrap_err(),
    ] {
        assert!(matches!(&refused, EngineError::OtherCluster { found, .. } if found == "test"), "{refused}");
    }
    // Beside it there is room.
    let beside = Config { prefix: "/holdfast-2".into(), ..other };
    let second = Engine::start(beside.clone()).await.unwrap();
    put(&*second, "/a", "2").await;
    assert_eq!(&engine.read().await.unwrap().get(b"/a").unwrap().value.bytes()[..], b"1");
    second.shutdown().await;
    Engine::remove(&beside).await.unwrap();
    assert_eq!(engine.read().await.unwrap().len(), 1);
    engine.shutdown().await;
    let client = etcds.client();
    let left = client.range(etcd::proto::RangeRequest {
        key: "/holdfast-2".into(),
        range_end: "/holdfast-3".into(),
        ..Default::default()
    });
    assert_eq!(left.await.unwrap().count, 0);
}
