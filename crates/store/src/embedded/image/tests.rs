use std::net::SocketAddr;

use super::*;
use crate::embedded::sessions::Sessions;
use crate::sealing::tests::Turned;
use crate::{KeyRange, LeaseId, Op, Revision, SEALED, State, Txn};

fn bytes(image: &Image, piece: usize) -> Vec<u8> {
    let pieces = image.clone().pieces(piece);
    let length = pieces.length();
    let bytes = pieces.collect::<Vec<_>>().concat();
    assert_eq!(bytes.len() as u64, length);
    bytes
}

fn read(bytes: &[u8]) -> Result<Image, ImageError> {
    Image::read(bytes, bytes.len() as u64)
}

fn sample() -> Image {
    let mut state = State::default();
    for n in 0..50u8 {
        state.apply(&Txn::put(format!("/a/{}", n % 20), vec![n; 30])).unwrap();
    }
    let delete = Op::Delete(KeyRange::prefix("/a/1"));
    state.apply(&Txn { success: vec![delete], ..Txn::default() }).unwrap();
    state.grant(LeaseId(7), 60);
    state.compact(Revision(10));
    let lease_starts = [(LeaseId(7), 65u64)].into_iter().collect();
    let peers = [("n1".to_owned(), SocketAddr::from(([127, 0, 0, 1], 2380)))].into();
    let members = Arc::new(Membership::initial(&peers));
    let machine = Machine { state, sessions: Sessions::default(), lease_starts, members };
    Image { index: 70, term: 3, machine }
}

#[test]
fn an_image_survives_its_bytes() {
    let image = sample();
    let restored = read(&bytes(&image, 1000)).unwrap();
    let (old, new) = (&image.machine.state, &restored.machine.state);
    assert_eq!((restored.index, restored.term), (70, 3));
    assert_eq!((new.revision(), new.compacted()), (old.revision(), Revision(10)));
    let all = KeyRange::prefix("");
    assert!(new.range(&all).eq(old.range(&all)));
    assert!(new.events(Revision::ZERO).eq(old.events(Revision::ZERO)));
    assert_eq!((new.bytes(), new.history_bytes()), (old.bytes(), old.history_bytes()));
    assert!(new.leases().eq(old.leases()));
    assert_eq!(restored.machine.lease_starts, image.machine.lease_starts);
    assert_eq!(restored.machine.members, image.machine.members);
}

#[test]
fn what_is_to_be_sealed_lies_sealed_and_opens_for_who_can_open_it() {
    let sealing = Sealing::by(Arc::new(Turned));
    let mut image = sample();
    let mut state = std::mem::take(&mut image.machine.state).with_sealing(sealing.clone());
    for word in ["first word", "second word"] {
        state.apply(&Txn::put("/secret/a", word)).unwrap();
    }
    image.machine.state = state;
    let sealed = bytes(&image, 100);
    assert!(!sealed.windows(4).any(|part| part == b"word"), "neither the newest nor what was before");
    let open = |bytes: &[u8]| {
        let opened = Image::read_sealed(bytes, bytes.len() as u64, &sealing).unwrap().machine.state;
        let (all, old) = (KeyRange::prefix(""), &image.machine.state);
        assert!(opened.range(&all).eq(old.range(&all)));
        assert!(opened.events(Revision::ZERO).eq(old.events(Revision::ZERO)));
    };
    open(&sealed);
    let sent = |sealing: &Sealing| Image::read_opened(&sealed[..], sealed.len() as u64, sealing).is_ok();
    assert!(
        sent(&sealing) && !sent(&Sealing::default()),
        "from another member nobody takes what doesn't open"
    );
    let kept = read(&sealed).unwrap();
    let value = kept.machine.state.get(b"/secret/a").unwrap().value.bytes();
    assert!(value.starts_with(SEALED), "who can't open it keeps it as it is");
    open(&bytes(&kept, 1000));
}

#[test]
fn a_changed_byte_is_found() {
    let bytes = bytes(&sample(), 100);
    for place in 0..bytes.len() {
        let mut broken = bytes.clone();
        broken[place] ^= 1;
        let problem = read(&broken).unwrap_err().to_string();
        assert!(problem.contains("checksum does not match"), "byte {place}: {problem}");
    }
    assert!(read(&[]).is_err());
}

/// The bytes of an image as earlier versions of this program wrote them, whole.
#[test]
fn an_older_programs_image_is_read() {
    let before = include_bytes!("before.image");
    let image = read(before).unwrap();
    let (state, expected) = (&image.machine.state, sample().machine.state);
    assert!(state.range(&KeyRange::prefix("")).eq(expected.range(&KeyRange::prefix(""))));
    assert!(state.events(Revision::ZERO).eq(expected.events(Revision::ZERO)));
    assert_eq!(bytes(&image, PIECE), before, "and written as it was");
}

#[test]
fn pieces_are_no_longer_than_they_should_be_whatever_their_length() {
    let mut image = sample();
    for n in 0..200u16 {
        image.machine.state.apply(&Txn::put(format!("/large/{n}"), vec![7; 5000])).unwrap();
    }
    let whole = bytes(&image, PIECE);
    for length in [1, 7, 1000, 10_000, usize::MAX >> 40] {
        let pieces: Vec<Vec<u8>> = image.clone().pieces(length).collect();
        // One version may begin before the end of a piece.
        assert!(pieces.iter().all(|piece| piece.len() <= length + 5100), "{length}");
        assert_eq!(pieces.concat(), whole, "{length}");
    }
}

/// Gives a few bytes at a time, as a connection may.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(3).min(self.0.len());
        let (now, later) = self.0.split_at(length);
        into[..length].copy_from_slice(now);
        self.0 = later;
        Ok(length)
    }
}

#[test]
fn an_image_larger_than_what_is_read_at_a_time_survives_and_nothing_beyond_it_is_read() {
    let mut image = sample();
    for n in 0..3 {
        image.machine.state.apply(&Txn::put(format!("/large/{n}"), vec![n; PIECE * 3])).unwrap();
    }
    let whole = bytes(&image, PIECE);
    let mut more = whole.clone();
    more.extend_from_slice(b"more");
    let mut source = Drops(&more);
    let restored = Image::read(&mut source, whole.len() as u64).unwrap();
    assert_eq!(source.0, b"more");
    assert_eq!(bytes(&restored, PIECE), whole);
    for length in [0, 3, 100, whole.len() - 1] {
        assert!(Image::read(&whole[..length], whole.len() as u64).is_err(), "it ends after {length} bytes");
        assert!(read(&whole[..length]).is_err(), "it is {length} bytes long");
    }
}

#[test]
fn what_claims_to_be_longer_than_anything_is_not_waited_for() {
    let mut bytes = MAGIC.to_vec();
    // Of a thousand versions the first has a key of one byte and a value of a gigabyte.
    for number in [1, 1, 1, 1, 1000, 1, 0, 1 << 30] {
        crate::embedded::codec::put_number(&mut bytes, number);
    }
    bytes.resize(40 << 20, 0);
    let checksum = crc32fast::hash(&bytes).to_le_bytes();
    bytes.extend_from_slice(&checksum);
    let problem = read(&bytes).unwrap_err().to_string();
    assert!(problem.contains("something that is too long"), "{problem}");
}
