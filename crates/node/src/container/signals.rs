//! Signals that containers are asked to end with, and how they are sent.

use nix::errno::Errno;
use nix::sys::signal::Signal;

/// The number of the signal that a container wants to be asked to end with (`SIGUSR1`, `SIGRTMIN+3`); SIGTERM if it
/// names none, or none that this system knows.
pub(crate) fn stop_signal(name: Option<&str>) -> libc::c_int {
    let real_time = |name: &str| {
        let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<libc::c_int>().ok() };
        match (name.strip_prefix("SIGRTMIN"), name.strip_prefix("SIGRTMAX")) {
            (Some(rest), _) => Some(libc::SIGRTMIN() + offset(rest)?),
            (_, Some(rest)) => Some(libc::SIGRTMAX() + offset(rest)?),
            _ => None,
        }
    };
    // An image may also write `QUIT`, or a number.
    let number = |name: &str| {
        name.parse::<libc::c_int>().ok().filter(|number| (1..=libc::SIGRTMAX()).contains(number))
    };
    let known = |name: &str| {
        let full = format!("SIG{}", name.trim_start_matches("SIG"));
        full.parse::<Signal>().ok().map(|signal| signal as libc::c_int).or_else(|| number(name))
    };
    name.and_then(|name| known(name).or_else(|| real_time(name))).unwrap_or(libc::SIGTERM)
}

/// Sends a signal to a process and all of its group. One that is gone is fine.
pub(crate) fn signal_group(pid: i32, signal: libc::c_int) {
    // SAFETY: a system call on numbers.
    let sent = Errno::result(unsafe { libc::killpg(pid, signal) });
    if let Err(error) = sent.map(drop)
        && error != Errno::ESRCH
    {
        tracing::warn!(pid, signal, %error, "can't signal a process group");
    }
}
