//! One question to one server, and its answer.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Header, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::cache::Question;
use crate::message::{self, Reply};

/// Why a server's answer can't be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It didn't answer in time.
    #[error("it doesn't answer")]
    Silent,
    /// It can't be reached.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It can't answer.
    #[error("it answers {0}")]
    Refused(ResponseCode),
    /// Its answer can't be read.
    #[error("its answer makes no sense")]
    Nonsense,
}

/// Asks one server, by a datagram, and by a connection where the answer doesn't fit into one. Answers also how many bytes it had.
pub(super) async fn ask(
    server: SocketAddr,
    question: &Question,
    patience: Duration,
) -> Result<(Reply, usize), Failure> {
    match timeout(patience, ask_once(server, question, true)).await {
        // Servers that don't know EDNS say so (RFC 6891, section 7).
        Ok(Err(Failure::Refused(ResponseCode::FormErr | ResponseCode::NotImp))) => {
            let again = timeout(patience, ask_once(server, question, false)).await;
            again.unwrap_or(Err(Failure::Silent))
        }
        Ok(answer) => answer,
        Err(_) => Err(Failure::Silent),
    }
}

async fn ask_once(server: SocketAddr, question: &Question, edns: bool) -> Result<(Reply, usize), Failure> {
    let (id, bytes) = written(question, edns)?;
    let by_datagram = datagram(server, question, id, &bytes).await?;
    let (message, length) = match by_datagram {
        (message, _) if message.metadata.truncation => connection(server, question, id, &bytes).await?,
        whole => whole,
    };
    let metadata = message.metadata;
    match metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        code => return Err(Failure::Refused(code)),
    }
    let reply = Reply {
        code: metadata.response_code,
        authoritative: false,
        authentic: metadata.authentic_data,
        answers: message.answers,
        authorities: message.authorities,
        additionals: message.additionals,
    };
    Ok((reply, length))
}

/// The question as a message, under a number that nobody can guess.
#[allow(clippy::disallowed_methods, reason = "a driver: here the numbers of questions are drawn")]
fn written(question: &Question, edns: bool) -> Result<(u16, Vec<u8>), Failure> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = question.checking_disabled;
    // Wanted whatever the caller says: it is passed on to those alone who understand it (RFC 6840, section 5.7).
    message.metadata.authentic_data = true;
    message.add_query(Query::query(question.name.clone(), question.kind));
    if edns {
        message.set_edns(message::edns(question.dnssec_ok));
    }
    Ok((message.metadata.id, message.to_vec().map_err(|_| Failure::Nonsense)?))
}

/// By a datagram from a port that the system draws for this question alone: the system lets nothing in but from the server, and
/// who would answer in its name must guess the port and the number (RFC 5452).
async fn datagram(
    server: SocketAddr,
    question: &Question,
    id: u16,
    bytes: &[u8],
) -> Result<(Message, usize), Failure> {
    let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(message::LARGEST)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What answers another question may be forged: the right answer can still come.
        if let Some(answer) = answer_in(&buffer[..length], question, id) {
            return Ok((answer.ok_or(Failure::Nonsense)?, length));
        }
    }
}

async fn connection(
    server: SocketAddr,
    question: &Question,
    id: u16,
    bytes: &[u8],
) -> Result<(Message, usize), Failure> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| Failure::Nonsense)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut buffer = vec![0; length];
    stream.read_exact(&mut buffer).await?;
    let answer = answer_in(&buffer, question, id).flatten().ok_or(Failure::Nonsense)?;
    Ok((answer, length))
}

/// The answer in a message; nothing if it answers no such question, `Some(None)` if it does and can't be read.
pub(crate) fn answer_in(bytes: &[u8], question: &Question, id: u16) -> Option<Option<Message>> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).ok()?;
    if header.metadata.id != id || header.metadata.message_type != MessageType::Response {
        return None;
    }
    if header.counts.queries != 1 {
        // Some servers leave it out where they can't read it.
        let is_refusal = header.counts.queries == 0 && header.metadata.response_code != ResponseCode::NoError;
        return is_refusal.then(|| Message::from_vec(bytes).ok());
    }
    let asked = Query::read(&mut decoder).ok()?;
    if asked != Query::query(question.name.clone(), question.kind) {
        return None;
    }
    if header.metadata.truncation {
        // What is left of it may end in the middle of a record; all of it comes by another way.
        let mut cut = Message::response(id, OpCode::Query);
        cut.metadata = header.metadata;
        return Some(Some(cut));
    }
    Some(Message::from_vec(bytes).ok())
}
