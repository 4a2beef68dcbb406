//! etcd's API over gRPC: messages of each method, and bytes that are none, to a server over a store in memory.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use etcd::proto::{self, RangeResponse};
use etcd::{Client, Code, Members, ServedCluster};
use futures::future::{BoxFuture, ready};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use store::{Error, Member, MemberError, MemberId, Memory};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cost;
use crate::law::Law;
use crate::mutate;
use crate::run::Failure;

/// A message's bytes, whatever they are.
#[derive(Debug, Default)]
struct Raw(Vec<u8>);

impl prost::Message for Raw {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        kind: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        prost::encoding::skip_field(kind, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

struct Nobody;

impl Members for Nobody {
    fn members(&self) -> Vec<Member> {
        Vec::new()
    }

    fn add(&self, _: SocketAddr, _: bool) -> BoxFuture<'_, Result<MemberId, Error>> {
        Box::pin(ready(Err(Error::Members(MemberError::NotFound(MemberId(1))))))
    }

    fn promote(&self, _: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(ready(Err(Error::Members(MemberError::NotFound(MemberId(1))))))
    }

    fn remove(&self, _: MemberId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(ready(Err(Error::Members(MemberError::NotFound(MemberId(1))))))
    }
}

/// A server of etcd's API, and its client.
pub struct Calls {
    client: Client,
    serving: JoinHandle<()>,
}

/// The methods that answer once.
const METHODS: [&str; 14] = [
    "KV/Range",
    "KV/Put",
    "KV/DeleteRange",
    "KV/Txn",
    "KV/Compact",
    "Lease/LeaseGrant",
    "Lease/LeaseRevoke",
    "Lease/LeaseTimeToLive",
    "Cluster/MemberAdd",
    "Cluster/MemberRemove",
    "Cluster/MemberPromote",
    "Maintenance/Alarm",
    "Maintenance/HashKV",
    "Maintenance/Status",
];

/// What the connection itself takes, and two buffers as long as the longest message.
const LAW: Law = Law { base: 16 << 20, per_byte: 600 };

impl Calls {
    /// A fresh server over loopback. Both sides must be on one thread, for their costs to be counted.
    ///
    /// # Errors
    /// If there is no address to be had.
    pub async fn new() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let identity = ServedCluster { cluster: "fuzz".into(), client_port: 2379 };
        let store = Arc::new(Memory::default());
        let serving = tokio::spawn(etcd::serve(listener, None, store, Arc::new(Nobody), identity));
        let client = Client::new(vec![format!("http://{address}").parse()?], None);
        Ok(Calls { client, serving })
    }

    /// Makes the call of a seed; the answer is its code.
    ///
    /// # Errors
    /// If it fails.
    pub async fn send(&self, seed: u64) -> Result<Code, Box<Failure>> {
        let rng = &mut StdRng::seed_from_u64(seed);
        let method = METHODS[rng.random_range(0..METHODS.len())];
        let message = message(rng);
        let length = message.len();
        let failure = |what: String| {
            let input = [method.as_bytes(), b"\n", &message].concat();
            Box::new(Failure { target: "etcd", seed, input, what })
        };
        let (path, raw) = (format!("/etcdserverpb.{method}"), Raw(message.clone()));
        let call = self.client.call::<RangeResponse>(&path, &raw);
        let (answer, cost) = cost::of_waiting(tokio::time::timeout(crate::run::SLOW, call)).await;
        LAW.judge(length, cost).map_err(failure)?;
        if self.serving.is_finished() {
            return Err(failure("the server has ended".into()));
        }
        match answer {
            Err(_) => Err(failure("it was never answered".into())),
            Ok(Ok(_)) => Ok(Code::Ok),
            // The answer of another method is none of a range: that is the client's to say, not the server's.
            Ok(Err(status)) if status.code == Code::Unavailable => {
                Err(failure(format!("the connection broke: {}", status.message)))
            }
            Ok(Err(status)) => Ok(status.code),
        }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn message(rng: &mut StdRng) -> Vec<u8> {
    let word = |rng: &mut StdRng| mutate::word(rng).as_bytes().to_vec();
    let number = |rng: &mut StdRng| [0, 1, -1, 5, i64::MAX, i64::MIN, 1 << 32][rng.random_range(0..7)];
    let range = |rng: &mut StdRng| proto::RangeRequest {
        key: word(rng).into(),
        range_end: word(rng).into(),
        limit: number(rng),
        revision: number(rng),
        ..Default::default()
    };
    let put = |rng: &mut StdRng| proto::PutRequest {
        key: word(rng).into(),
        value: word(rng).into(),
        lease: number(rng),
        ..Default::default()
    };
    let encoded = match rng.random_range(0..6) {
        0 => prost::Message::encode_to_vec(&range(rng)),
        1 => prost::Message::encode_to_vec(&put(rng)),
        2 => {
            let op = |rng: &mut StdRng| proto::RequestOp {
                request: Some(if rng.random() {
                    proto::RequestOpRequest::Put(put(rng))
                } else {
                    proto::RequestOpRequest::Range(range(rng))
                }),
            };
            let success = (0..rng.random_range(0..5)).map(|_| op(rng)).collect();
            prost::Message::encode_to_vec(&proto::TxnRequest { success, ..Default::default() })
        }
        3 => {
            let question = proto::CompactionRequest { revision: number(rng), physical: rng.random() };
            prost::Message::encode_to_vec(&question)
        }
        4 => prost::Message::encode_to_vec(&proto::LeaseGrantRequest { ttl: number(rng), id: number(rng) }),
        _ => word(rng),
    };
    if rng.random_range(0..3) == 0 {
        let others = encoded.clone();
        return mutate::bytes(rng, encoded, &others);
    }
    encoded
}
