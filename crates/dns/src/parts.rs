//! What reads bytes from outside, for those who look for mistakes in it: a program has no use for these.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

use crate::cache::{Cache, Known, Question};
use crate::message::{DATAGRAM, LARGEST, Reply, Request, SMALLEST, Unread};
use crate::plan::{Plan, plan};
use crate::records::{PodNames, Records, Zones};
use crate::upstream::answer_in;

/// Reads a message from a caller, and answers it from the records of a cluster without objects. Tells what is wrong with the
/// answer, if anything is.
///
/// # Errors
/// The law that doesn't hold.
pub fn question(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.len() > usize::from(LARGEST) {
        return Ok(());
    }
    let request = match Request::read(bytes) {
        Ok(request) => request,
        Err(Unread::Ignored) => return Ok(()),
        Err(Unread::Answer(answer)) if answer.len() > bytes.len().max(12) + 300 => {
            return Err("a refusal is much longer than what it refuses");
        }
        Err(Unread::Answer(answer)) if answer.get(..2) != bytes.get(..2) => {
            return Err("a refusal has another number");
        }
        Err(Unread::Answer(_)) => return Ok(()),
    };
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let zones = Zones {
        domain: crate::domain(),
        networks: vec![address.into()],
        server: address,
        pods: PodNames::Insecure,
    };
    let records = Records::new(zones);
    let asked = (request.name(), request.kind());
    let Plan::Answer(reply) = plan(&records, &[], asked, address, 0) else { return Ok(()) };
    for longest in [SMALLEST, DATAGRAM, LARGEST] {
        let answer = request.answer(reply.clone(), longest);
        if answer.len() > usize::from(longest) {
            return Err("an answer is too long");
        }
        let Ok(message) = Message::from_vec(&answer) else { return Err("an answer can't be read") };
        if message.queries != [request.question.clone()] || message.metadata.id != request.id {
            return Err("an answer is to another question");
        }
    }
    Ok(())
}

/// Reads a message as the answer of one of others' servers, keeps it, and answers with it.
///
/// # Errors
/// The law that doesn't hold.
#[allow(clippy::disallowed_methods, reason = "some moment; nothing depends on which")]
pub fn answer(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.len() > usize::from(LARGEST) {
        return Ok(());
    }
    let Ok(sent) = Message::from_vec(bytes) else { return Ok(()) };
    let Some(query) = sent.queries.first() else { return Ok(()) };
    let question = Question {
        name: query.name().clone(),
        kind: query.query_type(),
        dnssec_ok: false,
        checking_disabled: false,
    };
    let Some(Some(message)) = answer_in(bytes, &question, sent.metadata.id) else { return Ok(()) };
    let reply = Reply {
        code: message.metadata.response_code,
        answers: message.answers,
        authorities: message.authorities,
        additionals: message.additionals,
        ..Reply::default()
    };
    let (mut cache, now) = (Cache::default(), std::time::Instant::now());
    cache.put(question.clone(), &reply, bytes.len(), now);
    let reply = match cache.get(&question, now) {
        Known::Fresh(reply) | Known::Stale(reply, _) => reply,
        Known::Nothing => reply,
    };
    let mut asked = Message::query();
    asked.add_query(hickory_proto::op::Query::query(question.name, question.kind));
    let Ok(asked) = asked.to_vec() else { return Ok(()) };
    let Ok(request) = Request::read(&asked) else {
        return if query.query_type() == RecordType::OPT {
            Ok(())
        } else {
            Err("a question can't be asked again")
        };
    };
    for longest in [SMALLEST, DATAGRAM, LARGEST] {
        if request.answer(reply.clone(), longest).len() > usize::from(longest) {
            return Err("an answer is too long");
        }
    }
    Ok(())
}
