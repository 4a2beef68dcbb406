use std::sync::Arc;

use super::replay::LogError;
use super::*;
use crate::embedded::disk::Folder;
use crate::embedded::error::StartError;
use crate::embedded::image::PIECE;
use crate::embedded::machine::Machine;

fn disk(folder: &tempfile::TempDir) -> Arc<dyn Disk> {
    Arc::new(Folder::new(folder.path()).unwrap())
}

fn entry(index: u64, term: u64) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term) = (index, term);
    entry.data = format!("entry {index} of term {term}").into_bytes().into();
    entry
}

fn step(term: u64, indices: std::ops::RangeInclusive<u64>) -> Persist {
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.vote) = (term, 1);
    let entries = indices.map(|index| entry(index, term)).collect();
    Persist { hard_state: Some(hard_state), entries, sync: true, ..Persist::default() }
}

fn image(index: u64, term: u64) -> Image {
    Image { index, term, machine: Machine::default() }
}

/// Index and term of everything that a start finds.
fn found(folder: &tempfile::TempDir) -> Result<Vec<(u64, u64)>, LogError> {
    let (_, recovered) = Log::open(disk(folder))?;
    let mut all = vec![recovered.compacted];
    all.extend(recovered.entries.iter().map(|e| (e.index, e.term)));
    Ok(all)
}

fn last_file(folder: &tempfile::TempDir) -> std::path::PathBuf {
    let mut names = disk(folder).list().unwrap();
    names.retain(|name| segment_number(name).is_some());
    names.sort();
    folder.path().join(names.pop().unwrap())
}

#[test]
fn a_start_finds_what_was_appended() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, recovered) = Log::open(disk(&folder)).unwrap();
    assert!(recovered.entries.is_empty() && recovered.image.is_none());
    log.append(&[step(1, 1..=3), step(1, 4..=5)]).unwrap();
    log.append(&[step(2, 4..=4)]).unwrap();
    drop(log);
    for _ in 0..2 {
        assert_eq!(found(&folder).unwrap(), [(0, 0), (1, 1), (2, 1), (3, 1), (4, 2)]);
    }
    let (mut log, recovered) = Log::open(disk(&folder)).unwrap();
    assert_eq!((recovered.hard_state.term, recovered.hard_state.vote), (2, 1));
    log.append(&[step(2, 5..=5)]).unwrap();
    assert_eq!(found(&folder).unwrap().last(), Some(&(5, 2)));
}

#[test]
fn a_torn_tail_is_cut_at_any_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(disk(&folder)).unwrap();
    log.append(&[step(1, 1..=3)]).unwrap();
    let durable = log.length;
    log.append(&[step(1, 4..=4), step(1, 5..=6)]).unwrap();
    let written = log.length as usize;
    drop(log);
    let file = last_file(&folder);
    let mut whole = std::fs::read(&file).unwrap();
    assert!(whole.len() >= SEGMENT as usize || whole.len() == written, "{}", whole.len());
    whole.truncate(written);
    for length in durable as usize..whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        let found = found(&folder).unwrap();
        assert!(found.len() >= 4 && found.len() <= 6, "{length}: {found:?}");
        // The cut is for good: another start finds the same.
        assert_eq!(self::found(&folder).unwrap(), found);
        // Where the file took room beforehand, what is lost reads as zeros.
        let mut roomy = whole[..length].to_vec();
        roomy.resize(written + 1000, 0);
        std::fs::write(&file, &roomy).unwrap();
        assert_eq!(self::found(&folder).unwrap(), found);
    }
    // Pages reach the disk in any order: a hole in what was written since the last sync is a torn tail too.
    let mut holed = whole.clone();
    holed[durable as usize..durable as usize + 30].fill(0);
    std::fs::write(&file, &holed).unwrap();
    assert_eq!(found(&folder).unwrap().len(), 4);
}

#[test]
fn a_torn_tail_commits_nothing_that_it_was_to_replace() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(disk(&folder)).unwrap();
    log.append(&[step(1, 1..=3)]).unwrap();
    let file = last_file(&folder);
    let durable = log.length;
    let mut replaces = step(2, 2..=3);
    replaces.hard_state.as_mut().unwrap().commit = 3;
    log.append(&[replaces]).unwrap();
    let (bytes, length) = (std::fs::read(&file).unwrap(), log.length);
    drop(log);
    for end in durable..=length {
        std::fs::write(&file, &bytes[..end as usize]).unwrap();
        let (_, recovered) = Log::open(disk(&folder)).unwrap();
        let last = recovered.entries.back().unwrap();
        assert!(last.term == 2 || recovered.hard_state.commit <= 1, "{end} of {length} bytes");
        std::fs::write(&file, &bytes).unwrap();
    }
}

#[test]
fn damage_to_what_was_durable_is_refused_by_file_and_offset() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(disk(&folder)).unwrap();
    log.append(&[step(1, 1..=3)]).unwrap();
    let durable = log.length as usize;
    log.append(&[step(1, 4..=4)]).unwrap();
    drop(log);
    let file = last_file(&folder);
    let whole = std::fs::read(&file).unwrap();
    for place in 0..durable {
        let mut broken = whole.clone();
        broken[place] ^= 0x40;
        std::fs::write(&file, &broken).unwrap();
        match found(&folder) {
            Err(LogError::Damaged(StartError::Damaged { file, offset, .. })) => {
                assert!(file.starts_with("log-") && offset <= place as u64);
            }
            other => panic!("byte {place}: {other:?}"),
        }
    }
}

#[test]
fn segments_follow_each_other_and_go_when_a_snapshot_replaces_them() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(disk(&folder)).unwrap();
    let mut index = 0;
    while log.segments.len() < 4 {
        let mut step = step(1, index + 1..=index + 1);
        step.entries[0].data = vec![7; 1 << 20].into();
        log.append(&[step]).unwrap();
        index += 1;
    }
    let middle = log.segments[1].last_index;
    save(&*disk(&folder), image(middle, 1), PIECE).unwrap();
    log.forget(middle).unwrap();
    assert_eq!(log.segments.len(), 2);
    drop(log);
    let all = found(&folder).unwrap();
    assert_eq!((all[0], all.last().copied()), ((middle, 1), Some((index, 1))));

    let first = segment_name(3);
    let bytes = std::fs::read(folder.path().join(&first)).unwrap();
    std::fs::write(folder.path().join(&first), &bytes[..bytes.len() - 1]).unwrap();
    assert!(matches!(found(&folder), Err(LogError::Damaged(_))), "only the last segment may be torn");
    std::fs::remove_file(folder.path().join(&first)).unwrap();
    assert!(matches!(found(&folder), Err(LogError::Damaged(_))), "a missing segment is damage");
}

#[test]
fn a_leaders_snapshot_replaces_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(disk(&folder)).unwrap();
    log.append(&[step(1, 1..=9)]).unwrap();
    // As if the crash came between the snapshot's file and the log's record of it.
    save(&*disk(&folder), image(20, 2), PIECE).unwrap();
    assert_eq!(found(&folder).unwrap(), [(20, 2)]);

    let (mut log, _) = Log::open(disk(&folder)).unwrap();
    let install = Persist { image: Some(image(30, 3)), sync: true, ..Persist::default() };
    log.append(&[install, step(3, 31..=32)]).unwrap();
    drop(log);
    assert_eq!(found(&folder).unwrap(), [(30, 3), (31, 3), (32, 3)]);
    let (_, recovered) = Log::open(disk(&folder)).unwrap();
    assert_eq!((recovered.hard_state.term, recovered.hard_state.commit), (3, 30));

    std::fs::write(folder.path().join(image_name(40) + ".tmp"), b"half").unwrap();
    assert_eq!(found(&folder).unwrap().len(), 3, "an unfinished snapshot does not count");
    let name = folder.path().join(image_name(30));
    let mut bytes = std::fs::read(&name).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&name, bytes).unwrap();
    assert!(matches!(found(&folder), Err(LogError::Damaged(_))));
}
