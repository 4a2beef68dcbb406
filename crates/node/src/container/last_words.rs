//! What a container said last (`state.terminated.message`), by the kubelet's rules: the end of its termination log, or,
//! where that is empty and its policy is `FallbackToLogsOnError`, of its output.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::log_file::aside;

/// How much of the file counts: `MaxContainerTerminationMessageLength` of `pkg/kubelet/container`.
const LONGEST: u64 = 4096;
/// How much of the output counts: `MaxContainerTerminationMessageLogLength`.
const LONGEST_OUTPUT: usize = 2048;
/// How many of its lines: `MaxContainerTerminationMessageLogLines`.
const LINES: usize = 80;
/// How much of a log is read for that: records are longer than the lines in them.
const ENOUGH: u64 = 64 << 10;

/// The last words in `file`, or else in the log `output` if that counts.
pub(crate) fn last_words(file: &Path, output: Option<&Path>) -> String {
    let said = match end_of(file, LONGEST) {
        Ok((bytes, _)) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return format!("Error on reading termination log: {error}"),
    };
    let said = match output {
        Some(log) if said.is_empty() => last_lines(log),
        _ => said,
    };
    String::from_utf8_lossy(&said).into_owned()
}

/// The last bytes of a file, and whether there are more before them. The container may have put anything in its
/// place: no link is followed, no pipe waited for.
fn end_of(path: &Path, most: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok((bytes, length > most))
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file any more")),
    }
}

fn last_lines(log: &Path) -> Vec<u8> {
    let (mut records, mut cut) = end_of(log, ENOUGH).unwrap_or_default();
    if !cut && let Ok((before, more)) = end_of(&aside(log, 1), ENOUGH) {
        (records, cut) = ([before, records].concat(), more);
    }
    // A record that isn't there from its beginning can't be read.
    let begin =
        if cut { records.iter().position(|b| *b == b'\n').map_or(records.len(), |at| at + 1) } else { 0 };
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut open_line = false;
    for record in records[begin..].split_inclusive(|b| *b == b'\n') {
        let mut parts = record.splitn(4, |b| *b == b' ').skip(2);
        let (Some(tag), Some(text)) = (parts.next(), parts.next()) else { continue };
        let text = if tag == b"P" { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        match lines.last_mut().filter(|_| open_line) {
            Some(line) => line.extend_from_slice(text),
            None => lines.push(text.to_vec()),
        }
        open_line = tag == b"P";
    }
    let said = lines[lines.len().saturating_sub(LINES)..].concat();
    said[said.len().saturating_sub(LONGEST_OUTPUT)..].to_vec()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_file_counts_and_then_the_end_of_the_output() {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("m"), folder.path().join("0.log"));
        assert_eq!(last_words(&file, Some(&log)), "");
        let record = |n: u32| format!("2026-01-01T00:00:00.000000000Z stdout F line {n}\n");
        fs::write(&log, (0..100).map(record).collect::<String>()).unwrap();
        fs::write(&file, "").unwrap();
        assert_eq!(last_words(&file, None), "", "only where the policy says so");
        let said = last_words(&file, Some(&log));
        assert_eq!((said.lines().count(), said.lines().next()), (80, Some("line 20")));
        let long = format!("t stderr P {}\nt stderr F end\n", "x".repeat(3000));
        fs::write(&log, long).unwrap();
        let said = last_words(&file, Some(&log));
        assert_eq!((said.len(), said.ends_with("xend\n")), (2048, true));
        fs::write(&file, format!("a{}", "b".repeat(4096))).unwrap();
        assert_eq!(last_words(&file, Some(&log)), "b".repeat(4096), "its end");
    }

    #[test]
    fn a_file_set_aside_counts_too_and_half_a_record_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("m"), folder.path().join("0.log"));
        let long = format!("t stdout F {}\nt stdout F before\n", "x".repeat(70 << 10));
        fs::write(aside(&log, 1), long).unwrap();
        fs::write(&log, "t stdout F after\n").unwrap();
        assert_eq!(last_words(&file, Some(&log)), "before\nafter\n");
    }

    #[test]
    fn no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("m");
        std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
        assert!(last_words(&file, None).starts_with("Error on reading termination log"));
        assert!(!last_words(&file, None).contains("root:"));
    }
}
