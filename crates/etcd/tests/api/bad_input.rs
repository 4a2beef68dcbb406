//! What must be refused, or be of no consequence, from any sender.

use etcd::Code;
use etcd::proto::*;

use crate::compare::{compare, create, op, put, range};
use crate::servers;

#[tokio::test]
async fn what_cannot_be_done_is_said_and_changes_nothing() {
    let server = servers::memory().await;
    let client = server.client();
    client.put(put("/a", "1")).await.unwrap();
    let nested = op(RequestOpRequest::Txn(Default::default()));
    let ranged =
        Compare { range_end: "/z".into(), ..compare("/a", CompareTarget::Mod, CompareResult::Equal, None) };
    let nothing = RequestOp { request: None };
    let table = [
        (TxnRequest { success: vec![nested], ..Default::default() }, Code::Unimplemented),
        (TxnRequest { compare: vec![ranged], ..Default::default() }, Code::Unimplemented),
        (TxnRequest { success: vec![nothing], ..Default::default() }, Code::InvalidArgument),
    ];
    for (request, code) in table {
        assert_eq!(client.txn(request).await.unwrap_err().code, code);
    }
    for path in ["Cluster/MemberUpdate", "Auth/AuthEnable", "KV/Nothing"] {
        let asked = client.call::<RangeResponse>(&format!("/etcdserverpb.{path}"), &range("/a", "")).await;
        let refused = asked.unwrap_err();
        assert_eq!(refused.code, Code::Unimplemented);
        assert!(!refused.message.is_empty());
    }
    // Another message than the method takes: fields of other kinds.
    let asked = client.call::<RangeResponse>("/etcdserverpb.KV/Txn", &range("/a", "/b")).await;
    assert_eq!(asked.unwrap_err().code, Code::Internal);
    let state = server.store.as_ref().unwrap().snapshot();
    assert_eq!((state.revision().0, state.len()), (2, 1));
}

#[tokio::test]
async fn progress_follows_all_that_happened_before() {
    let server = servers::memory().await;
    let client = server.client();
    let all = WatchCreateRequest { key: "/".into(), range_end: "0".into(), ..Default::default() };
    let mut watch = client.watch(&create(all.clone())).await.unwrap();
    watch.send(&create(all)).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().created);
    assert!(watch.next().await.unwrap().unwrap().created);
    for n in 0..50 {
        client.put(put(&format!("/{n}"), "v")).await.unwrap();
    }
    let progress = WatchProgressRequest {};
    watch
        .send(&WatchRequest { request_union: Some(WatchRequestRequestUnion::Progress(progress)) })
        .await
        .unwrap();
    let mut seen = [0, 0];
    loop {
        let response = watch.next().await.unwrap().unwrap();
        match usize::try_from(response.watch_id) {
            Ok(id) => seen[id] += response.events.len(),
            Err(_) => {
                assert_eq!(response.header.unwrap().revision, 51);
                break;
            }
        }
    }
    assert_eq!(seen, [50, 50]);
}

#[tokio::test]
async fn noise_ends_its_own_connection_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = servers::memory().await;
    for noise in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff"]
    {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        // Both may fail once the server has hung up.
        let _ = stream.write_all(noise).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    server.client().put(put("/still", "here")).await.unwrap();
}
