//! Signals that containers are asked to end with, and how they are sent.

use std::io;

use nix::errno::Errno;
use nix::sys::signal::Signal;

/// The number of the signal that a container wants to be asked to end with (`SIGUSR1`, `SIGRTMIN+3`); SIGTERM if it
/// names none, or none that this system knows.
pub(crate) fn stop_signal(name: Option<&str>) -> libc::c_int {
    name.and_then(number).unwrap_or(libc::SIGTERM)
}

fn number(name: &str) -> Option<libc::c_int> {
    // An image may also write `QUIT`, `RTMIN+3`, or a number.
    let short = name.strip_prefix("SIG").unwrap_or(name);
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<libc::c_int>().ok() };
    let number = match (short.strip_prefix("RTMIN"), short.strip_prefix("RTMAX")) {
        (Some(rest), _) => libc::SIGRTMIN().checked_add(offset(rest)?)?,
        (_, Some(rest)) => libc::SIGRTMAX().checked_add(offset(rest)?)?,
        _ => match format!("SIG{short}").parse::<Signal>() {
            Ok(signal) => signal as libc::c_int,
            Err(_) => short.parse().ok()?,
        },
    };
    (1..=libc::SIGRTMAX()).contains(&number).then_some(number)
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

/// Has a process that is about to be a container's hold back and ignore no signal, whatever those did that it comes from: the shim holds
/// some back for itself, and a shell ignores SIGINT and SIGQUIT for what it starts in the background. System calls alone, for a process
/// that was just forked.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn let_through() -> io::Result<()> {
    // As the kernel takes it: the C library keeps two to itself, which may be ignored as well. No handler, flags, restorer and mask.
    let default = [0_u64; 4];
    let none = std::ptr::null::<libc::c_void>();
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the struct that is read lives through the call, and nothing is written. It fails for SIGKILL and SIGSTOP.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>()) };
    }
    // SAFETY: zero is a value of a set of bits, and the calls write this one.
    let let_through = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    if let_through < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_named_as_pods_and_images_do() {
        let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
        for (name, number) in [
            ("SIGUSR1", libc::SIGUSR1),
            ("QUIT", libc::SIGQUIT),
            ("9", libc::SIGKILL),
            ("SIGRTMIN", first),
            ("RTMIN+3", first + 3),
            ("SIGRTMAX-2", last - 2),
            ("SIGRTMAX+1", libc::SIGTERM),
            ("SIGRTMIN+2147483647", libc::SIGTERM),
            ("RTMIN-99", libc::SIGTERM),
            ("0", libc::SIGTERM),
            ("1000", libc::SIGTERM),
            ("SIGNONE", libc::SIGTERM),
            ("", libc::SIGTERM),
        ] {
            assert_eq!(stop_signal(Some(name)), number, "{name}");
        }
        assert_eq!(stop_signal(None), libc::SIGTERM);
    }
}
