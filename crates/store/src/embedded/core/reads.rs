//! Reads that must see every write acknowledged before them: Raft's read index (dissertation, section 6.4),
//! asked once for all that wait.

use std::time::Duration;

use crate::MemberId;
use crate::embedded::codec::{Decoder, put_number};

/// The member that reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A caller.
    Caller(u64),
    /// This member after its start: once answered, it has caught up.
    CatchUp,
    /// A leader that was not running for a while: once answered, it is still the leader, unless it was away
    /// again since. The number tells one such time from the next.
    Confirm(u64),
}

#[derive(Debug)]
struct Waiting {
    reader: Reader,
    deadline: Duration,
    /// The first question asked after the read came.
    question: u64,
}

/// All reads that wait.
#[derive(Debug)]
pub struct Reads {
    member: MemberId,
    boot: u64,
    /// How long until a question is asked again.
    patience: Duration,
    next_question: u64,
    asked_at: Option<Duration>,
    waiting: Vec<Waiting>,
    /// Answered with an index that is not applied yet.
    answered: Vec<(u64, Waiting)>,
}

impl Reads {
    /// No reads yet. `boot` keeps the questions of two lives of a member apart.
    pub fn new(member: MemberId, boot: u64, patience: Duration) -> Self {
        Reads {
            member,
            boot,
            patience,
            next_question: 0,
            asked_at: None,
            waiting: Vec::new(),
            answered: Vec::new(),
        }
    }

    /// Takes a read.
    pub fn add(&mut self, reader: Reader, deadline: Duration) {
        self.waiting.push(Waiting { reader, deadline, question: self.next_question });
    }

    /// Makes the next [`question`](Self::question) be asked at once: the leader has changed.
    pub fn ask_again(&mut self) {
        self.asked_at = None;
    }

    /// The question to ask now, if one is due. Raft drops questions without a word, so one that gets no
    /// answer is asked anew; an answer to any of them serves all reads that came before it was asked.
    pub fn question(&mut self, now: Duration) -> Option<Vec<u8>> {
        self.waiting.first()?;
        if self.asked_at.is_some_and(|at| now < at + self.patience) {
            return None;
        }
        self.asked_at = Some(now);
        let mut context = Vec::with_capacity(16);
        for number in [self.member.0, self.boot, self.next_question] {
            put_number(&mut context, number);
        }
        self.next_question += 1;
        Some(context)
    }

    /// Takes the answer to a question.
    pub fn answer(&mut self, context: Vec<u8>, index: u64) {
        let mut d = Decoder(context.into());
        let (Ok(member), Ok(boot), Ok(question)) = (d.number(), d.number(), d.number()) else { return };
        if (MemberId(member), boot) != (self.member, self.boot) {
            return;
        }
        for read in self.waiting.extract_if(.., |read| read.question <= question) {
            self.answered.push((index, read));
        }
        // What came since the question was asked needs another one, now.
        self.asked_at = None;
    }

    /// The reads that may be answered from a machine at index `applied`.
    pub fn ready(&mut self, applied: u64) -> Vec<Reader> {
        let ready = self.answered.extract_if(.., |(index, _)| *index <= applied);
        ready.map(|(_, read)| read.reader).collect()
    }

    /// The reads that waited too long. Those of the member itself go on.
    pub fn expired(&mut self, now: Duration) -> Vec<u64> {
        let waiting = self.waiting.extract_if(.., |read| read.deadline <= now);
        let answered = self.answered.extract_if(.., |(_, read)| read.deadline <= now);
        let callers = waiting.chain(answered.map(|(_, read)| read)).filter_map(|read| match read.reader {
            Reader::Caller(token) => Some(token),
            _ => None,
        });
        callers.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_answer_serves_the_reads_that_came_before_its_question() {
        let mut reads = Reads::new(MemberId(1), 1, 30 * MS);
        assert_eq!(reads.question(MS), None);
        reads.add(Reader::Caller(1), 100 * MS);
        let first = reads.question(MS).unwrap();
        reads.add(Reader::Caller(2), 100 * MS);
        assert_eq!(reads.question(2 * MS), None, "one question at a time");
        let second = reads.question(40 * MS).unwrap();
        reads.answer(first, 5);
        assert_eq!(reads.ready(4), []);
        assert_eq!(reads.ready(5), [Reader::Caller(1)]);
        assert_eq!(reads.ready(5), []);
        Reads::new(MemberId(2), 1, MS).answer(second.clone(), 1);
        reads.answer(second, 6);
        assert_eq!(reads.ready(9), [Reader::Caller(2)]);
        reads.add(Reader::Caller(3), 100 * MS);
        assert_eq!((reads.expired(99 * MS), reads.expired(100 * MS)), (vec![], vec![3]));
    }
}
