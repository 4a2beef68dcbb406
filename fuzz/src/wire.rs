//! What hosts send each other, and what the store writes and reads again: heartbeats, the members' messages, commands,
//! snapshots, the log, backups; and SPDY, which clients speak to an agent.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rand::Rng;
use rand::rngs::StdRng;
use store::parts::{Command, Disk, DiskFile, Frame, HEADER, Image, Log, Membership, PIECE};
use store::{Backup, BackupFile, Compare, Condition, KeyRange, LeaseId, Op, Revision, State, Txn};

use crate::corpus::Corpus;
use crate::grow::Growing;
use crate::mutate;

const KEY: [u8; 32] = [7; 32];

/// Bytes, most of the time changed.
fn bent(rng: &mut StdRng, bytes: Vec<u8>) -> Vec<u8> {
    if rng.random_range(0..5) == 0 {
        return bytes;
    }
    let others = bytes.clone();
    mutate::bytes(rng, bytes, &others)
}

fn word(rng: &mut StdRng) -> Bytes {
    mutate::word(rng).into()
}

fn number(rng: &mut StdRng) -> u64 {
    [0, 1, 2, 127, 128, u64::from(u32::MAX), i64::MAX as u64, u64::MAX][rng.random_range(0..8)]
}

/// A beat without its signature: the reader signs it.
pub(crate) fn make_heartbeat(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let name = ["n1", "", "a.host.of.a.longer.name"][rng.random_range(0..3)];
    let mut datagram = membership::parts::heartbeat(name, number(rng), number(rng), &KEY);
    datagram.truncate(datagram.len() - 32);
    bent(rng, datagram)
}

pub(crate) fn heartbeat(input: &[u8]) {
    assert_eq!(membership::parts::heartbeat_in(input, &KEY, false), None, "nobody signed it");
    if let Some(again) = membership::parts::heartbeat_in(input, &KEY, true) {
        assert_eq!(&again[..again.len() - 32], input, "one heartbeat has one form");
    }
}

fn op(rng: &mut StdRng) -> Op {
    let range =
        |rng: &mut StdRng| KeyRange { start: word(rng), end: rng.random::<bool>().then(|| word(rng)) };
    match rng.random_range(0..4) {
        0 => Op::Delete(range(rng)),
        1 => Op::Range(range(rng)),
        _ => Op::Put { key: word(rng), value: word(rng), lease: LeaseId(number(rng) as i64) },
    }
}

fn command_of(rng: &mut StdRng) -> Command {
    let condition = |rng: &mut StdRng| {
        let how =
            [Compare::Equal, Compare::NotEqual, Compare::Greater, Compare::Less][rng.random_range(0..4)];
        match rng.random_range(0..5) {
            0 => Condition::ModRevision(word(rng), how, Revision(number(rng))),
            1 => Condition::CreateRevision(word(rng), how, Revision(number(rng))),
            2 => Condition::Version(word(rng), how, number(rng)),
            3 => Condition::Value(word(rng), how, word(rng)),
            _ => Condition::Lease(word(rng), how, LeaseId(number(rng) as i64)),
        }
    };
    match rng.random_range(0..10) {
        0 => Command::Compact(Revision(number(rng))),
        1 => Command::Grant(number(rng)),
        2 => Command::KeepAlive(LeaseId(number(rng) as i64)),
        3 => Command::Revoke(LeaseId(number(rng) as i64)),
        4 => Command::Expire { lease: LeaseId(number(rng) as i64), started: number(rng) },
        5 => Command::GrantAs(LeaseId(number(rng) as i64), number(rng)),
        _ => Command::Txn(Txn {
            conditions: (0..rng.random_range(0..3)).map(|_| condition(rng)).collect(),
            success: (0..rng.random_range(0..4)).map(|_| op(rng)).collect(),
            failure: (0..rng.random_range(0..2)).map(|_| op(rng)).collect(),
        }),
    }
}

pub(crate) fn make_command(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let command = command_of(rng).encode().to_vec();
    bent(rng, command)
}

/// What was read is what is written, and can be carried out.
pub(crate) fn command(input: &[u8]) {
    let Ok(command) = Command::decode(Bytes::copy_from_slice(input)) else { return };
    assert_eq!(Command::decode(command.encode()), Ok(command.clone()), "written and read it stays the same");
    // Each range of a transaction is answered with all that the map holds by then: clients are allowed 128 steps.
    if let Command::Txn(txn) = command
        && txn.success.len() + txn.failure.len() <= 128
    {
        let mut state = state();
        let before = state.revision();
        if state.apply(&txn).is_err() {
            assert_eq!(state.revision(), before, "refused it does nothing");
        }
    }
}

fn state() -> State {
    let mut state = State::default();
    state.grant(LeaseId(7), 60);
    let leased = Op::Put { key: "a".into(), value: "v".into(), lease: LeaseId(7) };
    let txn = Txn { success: vec![Op::put("/a", "v"), leased, Op::put("name", "v")], ..Txn::default() };
    if let Err(error) = state.apply(&txn) {
        unreachable!("an empty state takes three keys: {error}");
    }
    state
}

/// Frames of the members' protocol, without the length before them.
pub(crate) fn make_frame(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let mut frame = match rng.random_range(0..4) {
        0 => Frame::SnapshotChunk(word(rng)).encode().split_off(HEADER),
        // A hello: version, cluster, and who calls from where.
        1 => [&[0, 1, 1, b'c', 2, 2, b'n', b'2', 0, 127, 0, 0, 1][..], &[0xcc, 0x12]].concat(),
        // A message with an entry.
        2 => {
            let command = command_of(rng).encode();
            let numbers = [1, 2, 3, 3, 7, 6, 3, 0, 0, 0, 0, 0];
            let entry = [0, 3, 8, 4, 1, 1, 1, 1, command.len() as u8];
            [&[1, 1][..], &numbers, &[0, 1], &entry, &command, &[0, 0, 0, 0]].concat()
        }
        _ => vec![4, 1, 2, b'n', b'o'],
    };
    if rng.random_range(0..4) == 0 {
        frame[0] = rng.random_range(0..7);
    }
    bent(rng, frame)
}

pub(crate) fn frame(input: &[u8]) {
    let Ok(frame) = Frame::decode(Bytes::copy_from_slice(input)) else { return };
    let again = frame.encode();
    let length = u32::from_le_bytes([again[0], again[1], again[2], again[3]]) as usize;
    assert_eq!(length, again.len() - HEADER, "it says how long it is");
    assert_eq!(
        Frame::decode(again[HEADER..].to_vec().into()),
        Ok(frame),
        "written and read it stays the same"
    );
}

/// A snapshot without its checksum: the reader puts it behind.
pub(crate) fn make_image(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let mut image = Image::initial(Membership::default());
    let mut state = state();
    for _ in 0..rng.random_range(0..8) {
        // What a state refuses leaves it as it was.
        let _ = state.apply(&Txn { success: vec![op(rng)], ..Txn::default() });
    }
    image.machine.state = state;
    let mut bytes = written(image);
    bytes.truncate(bytes.len() - 4);
    bent(rng, bytes)
}

pub(crate) fn image(input: &[u8]) {
    let with_checksum = [input, &crc32fast::hash(input).to_le_bytes()].concat();
    let Ok(image) = Image::read(&*with_checksum, with_checksum.len() as u64) else { return };
    let bytes = written(image);
    let again = Image::read(&*bytes, bytes.len() as u64);
    let again = again.unwrap_or_else(|error| panic!("what was written can't be read: {error}"));
    assert_eq!(written(again), bytes, "written and read it stays the same");
}

fn written(image: Image) -> Vec<u8> {
    image.pieces(PIECE).collect::<Vec<_>>().concat()
}

/// A backup without its checksum and with any length: the reader puts both right.
pub(crate) fn make_backup(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let mut file = BackupFile::new(Arc::new(state())).flatten().collect::<Vec<u8>>();
    file.truncate(file.len() - 32);
    // What comes behind the keys is padding.
    file.truncate(rng.random_range(40..160));
    bent(rng, file)
}

pub(crate) fn backup(input: &[u8]) {
    let mut file = input.to_vec();
    // Behind what every backup begins with.
    let head = BackupFile::new(Arc::default()).flatten().collect::<Vec<u8>>();
    let whole = head.len() as u64;
    let at = head.windows(8).position(|bytes| bytes == whole.to_be_bytes()).unwrap_or_default();
    let length = (file.len() + 32) as u64;
    if let Some(place) = file.get_mut(at..at + 8) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    let checksum = ring::digest::digest(&ring::digest::SHA256, &file);
    file.extend_from_slice(checksum.as_ref());
    let Ok(backup) = Backup::decode(file.into()) else { return };
    let (revision, keys) = (backup.revision(), backup.keys().len());
    let state = backup.into_state();
    assert!(state.revision() > revision && state.len() == keys, "a cluster begins with what it holds");
}

/// A member's log of some entries, as its file.
pub(crate) fn make_log(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let disk = Memory::default();
    if Log::open(Arc::new(disk.clone())).is_err() {
        unreachable!("a log is begun on an empty disk");
    }
    let mut file = disk.only();
    // Records again and again, as they are between a torn place and the end.
    for _ in 0..rng.random_range(0..4) {
        file.extend_from_within(..);
    }
    bent(rng, file)
}

/// Records of a length that covers the rest, again and again: each may be tried wherever one seems to begin.
pub(crate) fn grow_log(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let file = make_log(rng, corpus);
    let disk = Memory::default();
    let begun = Log::open(Arc::new(disk.clone())).map(|_| disk.only()).unwrap_or_default();
    if rng.random() {
        return crate::grow::bytes(rng, &file);
    }
    Box::new(move |times| {
        let magic = &begun[..4];
        let length = (times * 20 / 2) as u32;
        let record = [magic, &length.to_le_bytes(), &[0xff; 8], &[0; 4]].concat();
        [&begun[..], b"torn", &record.repeat(times)].concat()
    })
}

pub(crate) fn log(input: &[u8]) {
    let disk = Memory::default();
    let name = "log-0000000000000001";
    disk.0.lock().unwrap_or_else(PoisonError::into_inner).insert(disk.name_or(name), input.to_vec());
    // A torn end is cut off, anything else is refused; then there is nothing more to cut.
    if Log::open(Arc::new(disk.clone())).is_ok() {
        let left = disk.only();
        assert!(Log::open(Arc::new(disk.clone())).is_ok(), "what was cut can be read");
        assert!(disk.only().len() <= left.len() + 64, "it is cut once");
    }
}

/// A disk in memory that writes all that it is asked to.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn files<T>(&self, with: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The only file.
    fn only(&self) -> Vec<u8> {
        self.files(|files| files.values().next().cloned()).unwrap_or_default()
    }

    /// The name of a log's first file, as the store itself gives it.
    fn name_or(&self, other: &str) -> String {
        let begun = Memory::default();
        let _ = Log::open(Arc::new(begun.clone()));
        begun.files(|files| files.keys().next().cloned()).unwrap_or_else(|| other.into())
    }
}

struct MemoryFile(Memory, String);

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files(|files| files.keys().cloned().collect()))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.files(|files| files.get(name).cloned()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn stream(&self, name: &str) -> io::Result<(Box<dyn io::Read + Send>, u64)> {
        let content = self.read(name)?;
        let length = content.len() as u64;
        Ok((Box::new(io::Cursor::new(content)), length))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.files(|files| files.insert(name.into(), Vec::new()));
        Ok(Box::new(MemoryFile(self.clone(), name.into())))
    }

    fn open(&self, name: &str, length: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut file = MemoryFile(self.clone(), name.into());
        file.cut(length)?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files(|files| files.remove(from).map(|content| files.insert(to.into(), content)));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files(|files| files.remove(name));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for MemoryFile {
    fn reserve(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.files(|files| files.entry(self.1.clone()).or_default().extend_from_slice(bytes));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).map_err(io::Error::other)?;
        self.0.files(|files| files.entry(self.1.clone()).or_default().truncate(length));
        Ok(())
    }
}

pub(crate) fn make_spdy(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let headers = [("streamtype", mutate::word(rng)), ("port", mutate::word(rng)), (mutate::word(rng), "0")];
    let frames = node::parts::spdy(&headers[..rng.random_range(0..4)], mutate::word(rng).as_bytes());
    let mut input = vec![rng.random_range(0..64)];
    input.extend(bent(rng, frames));
    input
}

/// The first byte says into how long pieces the rest is cut.
pub(crate) fn spdy(input: &[u8]) {
    let Some((piece, bytes)) = input.split_first() else { return };
    let cut = node::parts::read_spdy(bytes, usize::from(*piece));
    assert!(cut <= bytes.len(), "each frame has bytes of its own");
}

pub(crate) fn grow_heartbeat(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_heartbeat(rng, corpus);
    crate::grow::bytes(rng, &input)
}

pub(crate) fn grow_command(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_command(rng, corpus);
    crate::grow::bytes(rng, &input)
}

pub(crate) fn grow_frame(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_frame(rng, corpus);
    crate::grow::bytes(rng, &input)
}

pub(crate) fn grow_image(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_image(rng, corpus);
    crate::grow::bytes(rng, &input)
}

pub(crate) fn grow_spdy(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_spdy(rng, corpus);
    crate::grow::bytes(rng, &input)
}

pub(crate) fn grow_backup(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_backup(rng, corpus);
    crate::grow::bytes(rng, &input)
}
