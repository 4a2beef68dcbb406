//! `exec`: a command beside a container of a pod, with its input, its outputs and its exit code.

use std::io::{IsTerminal, Read, Stdin, Write, stdin};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use client::{Input, Output, Piece, with_query};
use nix::sys::termios::{SetArg, cfmakeraw};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::info_span;

use super::pods_of::OfPod;
use crate::end::End;
use crate::tell::say;
use crate::terminal::Changed;

/// How much of the input is read at a time, and how many such pieces wait at most.
const PIECE: usize = 32 << 10;
const PIECES: usize = 4;
/// What shells make of a program that a signal ended.
const STOPPED: u8 = 130;

/// Arguments of `exec`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The exit code is the command's.\n\nExamples:\n  holdfast exec web-5fcbc4fd74-tkkfw -- ls /\n  holdfast exec -it deployment/web -- sh"
)]
pub struct Args {
    /// Of which pod.
    #[command(flatten)]
    pub of: OfPod,
    /// Pass the standard input to the command
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the command a terminal, which this one shows
    #[arg(short, long)]
    pub tty: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// What goes to the command.
enum Word {
    Typed(Bytes),
    /// There is no more input.
    End,
    /// How many columns and lines the terminal has now.
    Size(u16, u16),
}

/// Runs a command in a pod; its exit code.
pub async fn exec(args: Args) -> anyhow::Result<ExitCode> {
    let (client, pod) = args.of.find().await?;
    let has_terminal = args.tty && args.stdin && stdin().is_terminal();
    if args.tty && args.stdin && !has_terminal {
        say!("Unable to use a TTY - input is not a terminal or the right kind of file");
    }
    let mut query: Vec<(&str, &str)> = args.command.iter().map(|word| ("command", word.as_str())).collect();
    query.extend(args.of.container());
    // A terminal has one output.
    let flags = [("stdin", args.stdin), ("stdout", true), ("stderr", !has_terminal), ("tty", has_terminal)];
    query.extend(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| (*flag, "true")));
    let key = uuid::Uuid::new_v4().into_bytes();
    let (input, output) = client.exec(&with_query(&format!("{pod}/exec"), &query), key).await?;

    let mut end = End::new()?;
    let (words, to_send) = channel(PIECES);
    tasks::spawn(info_span!("send to a command"), send(input, to_send));
    let raw = if has_terminal {
        tasks::spawn(info_span!("follow the size of the terminal"), follow_size(words.clone()));
        Some(Changed::by(SetArg::TCSADRAIN, cfmakeraw).context("the terminal can't be used")?)
    } else {
        None
    };
    if args.stdin {
        // A thread of its own: nothing interrupts it but the end of the program.
        tasks::thread("stdin", info_span!("read the input"), move || read(&words))?;
    }
    let ended = tokio::select! {
        ended = show(output) => ended,
        () = end.asked() => return Ok(ExitCode::from(STOPPED)),
    };
    // Before anything is said.
    drop(raw);
    let Some(status) = ended? else { return Ok(ExitCode::SUCCESS) };
    let code = code_of(&status).map_err(anyhow::Error::msg)?;
    if code != 0 {
        say!("command terminated with exit code {code}");
    }
    Ok(ExitCode::from(code))
}

/// Shows what comes until the command has ended: how. Nothing, once nobody reads here any more.
async fn show(mut output: Output) -> anyhow::Result<Option<Value>> {
    loop {
        let shown = match output.next().await?.context("the connection ended before the command did")? {
            Piece::Ended(status) => return Ok(Some(status)),
            Piece::Out(bytes) => put(&mut std::io::stdout().lock(), &bytes),
            Piece::Error(bytes) => put(&mut std::io::stderr().lock(), &bytes),
        };
        match shown {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(None),
            shown => shown?,
        }
    }
}

fn put(to: &mut dyn Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Sends what is to go to the command, until it takes no more. Apart from what comes: each may have to wait for the other.
async fn send(mut input: Input, mut words: Receiver<Word>) {
    while let Some(word) = words.recv().await {
        let sent = match word {
            Word::Typed(bytes) => input.write(&bytes).await,
            Word::End => input.close().await,
            Word::Size(width, height) => input.resize(width, height).await,
        };
        // The connection has ended at the other side too; what is read next says why.
        if sent.is_err() {
            return;
        }
    }
    // Without input the way stays open: what closes it would end the command.
    std::future::pending::<()>().await;
}

fn read(words: &Sender<Word>) {
    let mut piece = vec![0; PIECE];
    let mut from = stdin().lock();
    loop {
        let word = match from.read(&mut piece) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => Word::End,
            Ok(length) => Word::Typed(Bytes::copy_from_slice(&piece[..length])),
        };
        let is_end = matches!(word, Word::End);
        if words.blocking_send(word).is_err() || is_end {
            return;
        }
    }
}

/// Tells the size of the terminal, now and each time that it changes.
async fn follow_size(words: Sender<Word>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some((width, height)) = size(&stdin())
            && words.send(Word::Size(width, height)).await.is_err()
        {
            return;
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// How many columns and lines a terminal has.
fn size(terminal: &Stdin) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes nothing but the struct that it is given, which is there for as long as it runs.
    let asked = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    (asked == 0 && size.ws_col > 0).then_some((size.ws_col, size.ws_row))
}

/// The exit code that a `Status` tells; what it says where the command didn't run to its end.
fn code_of(status: &Value) -> Result<u8, String> {
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array();
    let mut causes = causes.into_iter().flatten().filter(|_| status["reason"] == "NonZeroExitCode");
    let code = causes.find(|cause| cause["reason"] == "ExitCode").and_then(|cause| cause["message"].as_str());
    match code.and_then(|code| code.parse().ok()) {
        Some(code) => Ok(code),
        None => {
            Err(status["message"].as_str().unwrap_or("the command ended, and nothing says how").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_of_a_command_is_its_exit_code_or_what_kept_it_from_running() {
        let ended = |code: &str| {
            json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "it ended",
                "details": {"causes": [{"reason": "ExitCode", "message": code}]}})
        };
        assert_eq!(code_of(&json!({"status": "Success"})), Ok(0));
        assert_eq!(code_of(&ended("137")), Ok(137));
        assert_eq!(code_of(&ended("soon")), Err("it ended".to_owned()));
        let missing = json!({"status": "Failure", "reason": "InternalError", "message": "no such program"});
        assert_eq!(code_of(&missing), Err("no such program".to_owned()));
        assert!(code_of(&Value::Null).is_err());
    }
}
