use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Message, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

fn question(name: &str) -> Question {
    let name = Name::from_ascii(name).unwrap();
    Question { name, kind: RecordType::A, dnssec_ok: false, checking_disabled: false }
}

/// The answer to a message: one address, which holds for `ttl` seconds.
fn answer(asked: &[u8], ttl: u32) -> Message {
    let asked = Message::from_vec(asked).unwrap();
    let mut message = Message::response(asked.metadata.id, OpCode::Query);
    let name = asked.queries[0].name().clone();
    message.add_query(asked.queries[0].clone());
    message.add_answer(Record::from_rdata(name, ttl, RData::A(A([192, 0, 2, 7].into()))));
    message
}

/// A server on loopback. For each datagram `say` gives what it says back, if anything.
async fn server(
    say: impl Fn(&[u8], usize) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            for said in say(&buffer[..length], number) {
                socket.send_to(&said, from).await.unwrap();
            }
        }
    });
    (at, count)
}

fn upstream(servers: &[SocketAddr]) -> Arc<Upstream> {
    let upstream = Arc::new(Upstream::new(Arc::default()));
    upstream.set(servers);
    upstream
}

fn found(reply: &Reply) -> (ResponseCode, usize) {
    (reply.code, reply.answers.len())
}

const FOUND: (ResponseCode, usize) = (ResponseCode::NoError, 1);
const FAILED: (ResponseCode, usize) = (ResponseCode::ServFail, 0);

#[tokio::test]
async fn a_question_that_many_ask_is_asked_once_and_remembered() {
    let (at, count) = server(|asked, _| vec![answer(asked, 60).to_vec().unwrap()]).await;
    let upstream = upstream(&[at]);
    let all = (0..50).map(|_| upstream.answer(question("a.test.")));
    for reply in futures::future::join_all(all).await {
        assert_eq!(found(&reply), FOUND);
    }
    assert_eq!(found(&upstream.answer(question("A.Test.")).await), FOUND);
    assert_eq!((count.load(Ordering::SeqCst), upstream.kept()), (1, 1));
    assert!(lock(&upstream.asking).is_empty());
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let (at, _) = server(|asked, _| {
        let right = answer(asked, 60);
        let mut other_number = right.clone();
        other_number.metadata.id ^= 1;
        other_number.answers.clear();
        let mut other_name = right.clone();
        other_name.queries = vec![Query::query(Name::from_ascii("b.test.").unwrap(), RecordType::A)];
        other_name.answers.clear();
        let no_answer = asked.to_vec();
        let all = [other_number, other_name, right].map(|message| message.to_vec().unwrap());
        [vec![b"x".to_vec(), no_answer], all.into()].concat()
    })
    .await;
    assert_eq!(found(&upstream(&[at]).answer(question("a.test.")).await), FOUND);
}

#[tokio::test]
async fn another_server_is_asked_where_one_refuses_or_is_not_there() {
    let (refuses, refused) = server(|asked, _| {
        let mut message = answer(asked, 60);
        message.answers.clear();
        message.metadata.response_code = ResponseCode::Refused;
        vec![message.to_vec().unwrap()]
    })
    .await;
    // Whose port is closed, the system says at once.
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (answers, _) = server(|asked, _| vec![answer(asked, 60).to_vec().unwrap()]).await;
    let all = upstream(&[refuses, gone, answers]);
    assert_eq!(found(&all.answer(question("a.test.")).await), FOUND);
    assert_eq!(
        lock(&all.servers).order(now()),
        [refuses, answers, gone],
        "one that only refuses keeps its place"
    );
    assert_eq!(found(&upstream(&[refuses]).answer(question("a.test.")).await), FAILED);
    assert_eq!(refused.load(Ordering::SeqCst), 2, "it is not asked twice for the same");
    assert_eq!(found(&upstream(&[]).answer(question("a.test.")).await), FAILED);
}

#[tokio::test]
async fn a_server_that_does_not_know_edns_is_asked_without() {
    let (at, count) = server(|asked, _| {
        let mut message = answer(asked, 60);
        if Message::from_vec(asked).unwrap().edns.is_some() {
            message.metadata.response_code = ResponseCode::FormErr;
            message.answers.clear();
        }
        vec![message.to_vec().unwrap()]
    })
    .await;
    assert_eq!(found(&upstream(&[at]).answer(question("a.test.")).await), FOUND);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_asked_for_by_a_connection() {
    let (at, _) = server(|asked, _| {
        let mut message = answer(asked, 60);
        message.metadata.truncation = true;
        let mut bytes = message.to_vec().unwrap();
        // In the middle of its record.
        bytes.truncate(bytes.len() - 3);
        vec![bytes]
    })
    .await;
    let listener = TcpListener::bind(at).await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut asked).await.unwrap();
        let mut message = answer(&asked, 60);
        for _ in 0..999 {
            message.answers.push(message.answers[0].clone());
        }
        let bytes = message.to_vec().unwrap();
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    let reply = upstream(&[at]).answer(question("a.test.")).await;
    assert_eq!(found(&reply), (ResponseCode::NoError, 1000));
}

#[tokio::test]
#[allow(clippy::disallowed_methods)] // A test measures how long it waits.
async fn a_stale_answer_is_given_while_the_server_is_silent() {
    let (at, count) = server(|asked, number| match number {
        0 => vec![answer(asked, 1).to_vec().unwrap()],
        _ => vec![],
    })
    .await;
    let upstream = upstream(&[at]);
    assert_eq!(found(&upstream.answer(question("a.test.")).await), FOUND);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    let began = tokio::time::Instant::now();
    let reply = upstream.answer(question("a.test.")).await;
    assert_eq!((found(&reply), reply.answers[0].ttl), (FOUND, 30));
    assert!((FOR_STALE..FOR_STALE * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
    // Once it is certain that nobody answers, nobody waits.
    while !lock(&upstream.asking).is_empty() {
        tokio::time::advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    let asked = count.load(Ordering::SeqCst);
    let began = tokio::time::Instant::now();
    assert_eq!(found(&upstream.answer(question("a.test.")).await), FOUND);
    assert_eq!((began.elapsed(), count.load(Ordering::SeqCst)), (Duration::ZERO, asked));
    assert_eq!(found(&upstream.answer(question("b.test.")).await), FAILED);
}
