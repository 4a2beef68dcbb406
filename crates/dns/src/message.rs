//! Messages as they come from callers and go back to them: questions read, answers written.

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// What fits into a datagram of a caller that says nothing else (RFC 1035, section 2.3.4).
pub(crate) const SMALLEST: u16 = 512;
/// The largest datagram that is sent or asked for: no network's frames are so small that it would travel in fragments
/// (DNS Flag Day 2020).
pub(crate) const DATAGRAM: u16 = 1232;
/// The most that one message can be on a connection, whose frames have a length of two bytes (RFC 1035, section 4.2.2).
pub(crate) const LARGEST: u16 = u16::MAX;
/// The shortest that a record is: a pointer to its name, type, class, time, length, and an address.
const SHORTEST: usize = 16;
/// The length of a message's header.
const HEADER: usize = 12;
/// The most records after the question that a question comes with: the one of EDNS, a signature, and some to spare.
const MOST_EXTRA: u16 = 4;

/// A question as a caller asked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub id: u16,
    pub question: Query,
    pub recursion_desired: bool,
    pub checking_disabled: bool,
    /// Whether the caller understands what an answer says of its authenticity.
    pub wants_authentic: bool,
    /// What it said by EDNS.
    pub edns: Option<Caller>,
}

/// What a caller says of itself by EDNS (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub payload: u16,
    pub dnssec_ok: bool,
}

/// The answer to a request, before it is a message.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reply {
    pub code: ResponseCode,
    /// Whether it is of this server's own zones.
    pub authoritative: bool,
    pub authentic: bool,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
}

/// Why there is no request in some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Nothing is said to it: it is no question, and what answered it might be answered again.
    Ignored,
    /// This is said to it.
    Answer(Vec<u8>),
}

impl Request {
    /// Reads a message.
    ///
    /// # Errors
    /// [`Unread`] if it isn't one question of the usual kind.
    pub fn read(bytes: &[u8]) -> Result<Self, Unread> {
        let Ok(header) = Header::read(&mut BinDecoder::new(bytes)) else { return Err(Unread::Ignored) };
        let Header { metadata, counts } = header;
        if metadata.message_type != MessageType::Query {
            return Err(Unread::Ignored);
        }
        let refuse = |code| Unread::Answer(bare(&metadata, code));
        if metadata.op_code != OpCode::Query {
            return Err(refuse(ResponseCode::NotImp));
        }
        // The counts say how much is made room for before anything is read.
        let is_usual = counts.queries == 1
            && (counts.answers, counts.authorities) == (0, 0)
            && counts.additionals <= MOST_EXTRA;
        if !is_usual {
            return Err(refuse(ResponseCode::FormErr));
        }
        let message = Message::from_vec(bytes).map_err(|_| refuse(ResponseCode::FormErr))?;
        let question = message.queries.into_iter().next().ok_or_else(|| refuse(ResponseCode::FormErr))?;
        let request = Request {
            id: metadata.id,
            question,
            recursion_desired: metadata.recursion_desired,
            checking_disabled: metadata.checking_disabled,
            wants_authentic: metadata.authentic_data,
            edns: message
                .edns
                .as_ref()
                .map(|edns| Caller { payload: edns.max_payload(), dnssec_ok: edns.flags().dnssec_ok }),
        };
        if message.edns.is_some_and(|edns| edns.version() != 0) {
            return Err(Unread::Answer(request.answer(Reply::of(ResponseCode::BADVERS), SMALLEST)));
        }
        Ok(request)
    }

    /// The name that is asked about.
    pub fn name(&self) -> &Name {
        self.question.name()
    }

    /// The type that is asked for.
    pub fn kind(&self) -> RecordType {
        self.question.query_type()
    }

    /// What can't be answered whatever the names are: questions of other networks than the Internet, and for whole zones.
    pub fn refusal(&self) -> Option<ResponseCode> {
        if self.question.query_class() != DNSClass::IN {
            return Some(ResponseCode::Refused);
        }
        match self.kind() {
            RecordType::AXFR | RecordType::IXFR => Some(ResponseCode::Refused),
            RecordType::OPT | RecordType::TSIG | RecordType::ZERO => Some(ResponseCode::FormErr),
            _ => None,
        }
    }

    /// How long an answer by datagram may be.
    pub fn datagram(&self) -> u16 {
        self.edns.map_or(SMALLEST, |caller| caller.payload.clamp(SMALLEST, DATAGRAM))
    }

    /// The answer as a message of at most `longest` bytes. One that is longer loses what only says more first, and then so many
    /// answers as it must: it says then that it was cut off, so that the caller asks again by a connection.
    pub fn answer(&self, reply: Reply, longest: u16) -> Vec<u8> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.authoritative = reply.authoritative;
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.response_code = reply.code;
        let understands = self.wants_authentic || self.edns.is_some_and(|caller| caller.dnssec_ok);
        message.metadata.authentic_data = reply.authentic && understands;
        message.queries = vec![self.question.clone()];
        message.answers = reply.answers;
        message.authorities = reply.authorities;
        message.additionals = reply.additionals;
        message.edns = self.edns.map(|caller| edns(caller.dnssec_ok));
        loop {
            let bytes = match message.to_vec() {
                Ok(bytes) if bytes.len() <= usize::from(longest) => return bytes,
                Ok(bytes) => bytes.len(),
                // What can't be written is longer than any message.
                Err(_) => 2 * usize::from(LARGEST),
            };
            if !message.additionals.is_empty() {
                message.additionals.clear();
                continue;
            }
            message.metadata.truncation = true;
            let most = usize::from(longest) / SHORTEST;
            if message.answers.len() > most {
                message.answers.truncate(most);
                continue;
            }
            if message.answers.is_empty() {
                message.authorities.clear();
                return message.to_vec().unwrap_or_else(|_| bare(&message.metadata, ResponseCode::ServFail));
            }
            let kept = message.answers.len() * usize::from(longest) / bytes;
            message.answers.truncate(kept.min(message.answers.len() - 1));
        }
    }
}

impl Reply {
    /// One that says no more than a code.
    pub fn of(code: ResponseCode) -> Self {
        Reply { code, ..Reply::default() }
    }
}

/// What this server says of itself by EDNS.
pub(crate) fn edns(dnssec_ok: bool) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(DATAGRAM).set_dnssec_ok(dnssec_ok);
    edns
}

/// An answer to what can't be read as a question: its header alone.
fn bare(metadata: &Metadata, code: ResponseCode) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..2].copy_from_slice(&metadata.id.to_be_bytes());
    bytes[2] = 0x80 | u8::from(metadata.op_code) << 3 | u8::from(metadata.recursion_desired);
    bytes[3] = 0x80 | code.low();
    bytes
}
