//! The first steps of a program: splitting off, and standing guard. They take a process with one thread, so this
//! is a program of its own, and the program under test is itself.
#![allow(clippy::disallowed_methods)] // Waits for conditions, for a bounded time.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

type Outcome = Result<(), Box<dyn Error>>;

const SOON: Duration = Duration::from_secs(60);

type Case = (&'static str, fn() -> Outcome);

const CASES: [Case; 5] = [
    ("a_guard_ends_what_a_program_leaves", guard_after_exit),
    ("a_guard_ends_what_a_killed_program_leaves", guard_after_kill),
    ("a_guard_passes_requests_on_and_its_own_death", guard_passes_on),
    ("a_front_leaves_with_the_status_it_is_given", front_released),
    ("a_front_exits_as_the_program_does", front_not_released),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("program") => program(&arguments[1..]),
        _ if arguments.iter().any(|argument| argument == "--list") => ExitCode::SUCCESS,
        _ => {
            let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
            let mut status = ExitCode::SUCCESS;
            for (name, case) in CASES.iter().filter(|(name, _)| filter.is_none_or(|f| name.contains(f))) {
                let outcome = case();
                println!(
                    "test {name} ... {}",
                    outcome.as_ref().map_or_else(ToString::to_string, |()| "ok".into())
                );
                if outcome.is_err() {
                    status = ExitCode::FAILURE;
                }
            }
            status
        }
    }
}

/// The program: takes the steps that it is given, starts a stray process, says who is who, and then does what its
/// input says.
fn program(steps: &[String]) -> ExitCode {
    let front = steps.contains(&"split".to_owned()).then(|| local::split_off().expect("a front"));
    if steps.contains(&"guard".to_owned()) {
        local::stand_guard().expect("a guard");
    }
    let mut stray = Command::new("sleep");
    stray.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    #[allow(clippy::zombie_processes)] // A stray is one that nobody waits for.
    let stray = stray.spawn().expect("a process");
    println!("{} {}", std::process::id(), stray.id());
    let mut front = front;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.as_str() {
            "exit" => return ExitCode::from(3),
            "release" => front.take().expect("a front").release(5).expect("released"),
            _ => {}
        }
    }
    // Input that has ended is no reason to: signals are.
    loop {
        std::thread::park();
    }
}

struct Started {
    outer: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    program: i32,
    stray: i32,
}

fn start(steps: &[&str]) -> Result<Started, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("program").args(steps).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut outer = command.spawn()?;
    let input = outer.stdin.take().ok_or("no input")?;
    let mut output = BufReader::new(outer.stdout.take().ok_or("no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let (program, stray) = line.trim().split_once(' ').ok_or(format!("not two numbers: {line}"))?;
    let (program, stray) = (program.parse()?, stray.parse()?);
    assert!(runs(program) && runs(stray) && program != outer.id() as i32);
    Ok(Started { outer, input, output, program, stray })
}

fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn send(pid: i32, signal: Signal) -> Outcome {
    Ok(kill(Pid::from_raw(pid), signal)?)
}

fn wait_until_gone(pid: i32) -> Outcome {
    let deadline = Instant::now() + SOON;
    while runs(pid) {
        if Instant::now() > deadline {
            return Err(format!("process {pid} still runs").into());
        }
        std::thread::yield_now();
    }
    Ok(())
}

fn guard_after_exit() -> Outcome {
    let mut started = start(&["guard"])?;
    writeln!(started.input, "exit")?;
    assert_eq!(started.outer.wait()?.code(), Some(3));
    assert!(!runs(started.stray));
    Ok(())
}

fn guard_after_kill() -> Outcome {
    let mut started = start(&["guard"])?;
    send(started.program, Signal::SIGKILL)?;
    assert_eq!(started.outer.wait()?.code(), Some(128 + 9));
    assert!(!runs(started.stray));
    Ok(())
}

fn guard_passes_on() -> Outcome {
    let mut started = start(&["guard"])?;
    // Not an interrupt, which those who are started in the background may ignore.
    send(started.outer.id() as i32, Signal::SIGTERM)?;
    assert_eq!(started.outer.wait()?.code(), Some(128 + 15));

    let mut started = start(&["guard"])?;
    started.outer.kill()?;
    assert_eq!(started.outer.wait()?.signal(), Some(9));
    wait_until_gone(started.program)?;
    // With its guard gone, what the program leaves is its own affair.
    send(started.stray, Signal::SIGKILL)
}

fn front_released() -> Outcome {
    let mut started = start(&["split", "guard"])?;
    writeln!(started.input, "release")?;
    assert_eq!(started.outer.wait()?.code(), Some(5));
    assert!(runs(started.program) && runs(started.stray), "the program lives on");
    let mut rest = String::new();
    started.output.read_to_string(&mut rest)?;
    assert_eq!(rest, "", "nobody holds the output any more");
    send(started.program, Signal::SIGTERM)?;
    wait_until_gone(started.stray)
}

fn front_not_released() -> Outcome {
    let mut started = start(&["split", "guard"])?;
    writeln!(started.input, "exit")?;
    assert_eq!(started.outer.wait()?.code(), Some(3));

    let mut started = start(&["split", "guard"])?;
    send(started.outer.id() as i32, Signal::SIGTERM)?;
    assert_eq!(started.outer.wait()?.code(), Some(128 + 15));
    assert!(!runs(started.stray) && !runs(started.program));
    Ok(())
}
