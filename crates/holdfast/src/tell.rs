//! What the program says: data to stdout, all else to stderr.
//!
//! A terminal goes away, a pipe is closed, a disk fills up: none of it may end a program that keeps hosts running. So
//! nothing here panics, as `println!` and `eprintln!` would, and what nobody hears is lost.

use std::ffi::OsStr;
use std::fmt::Arguments;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Says a line to the user, on stderr.
macro_rules! say {
    ($($words:tt)*) => { $crate::tell::line(format_args!($($words)*)) };
}
pub(crate) use say;

/// See [`say`].
pub fn line(words: Arguments<'_>) {
    // In one piece: what the hosts' launcher and a drill say may meet.
    let _ = io::stderr().write_all(format!("{words}\n").as_bytes());
}

/// Writes data to stdout. A reader that has gone away (`| head`) has read enough, and is no error.
///
/// # Errors
/// Stdout can't be written otherwise: a full disk.
pub fn show(data: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(data.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("can't write to the standard output"))
        }
        _ => Ok(()),
    }
}

/// Whether data on stdout has colours: on a terminal, unless somebody says no to them (<https://no-color.org>).
pub fn is_coloured() -> bool {
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    is_wanted && io::stdout().is_terminal()
}

/// Writes to stderr, and loses what stderr doesn't take.
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A word of a command line, as it may be pasted into a shell.
pub fn quoted(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref().to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.into_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A count with its noun: `1 host`, `3 hosts`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_shell_reads_a_quoted_word_as_one() {
        assert_eq!(
            quoted("/home/me/.local/state/holdfast/kubeconfig"),
            "/home/me/.local/state/holdfast/kubeconfig"
        );
        for word in ["/tmp/two words", "it's", "$(id)", "a;b", "~", "", "*", "a\nb", "\"", "\\", "#x"] {
            let line = format!("printf %s {}", quoted(word));
            let output = Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
        }
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([count(0, "host"), count(1, "host"), count(2, "host")], ["0 hosts", "1 host", "2 hosts"]);
    }
}
