//! The clock, and who keeps it right.

use std::mem::MaybeUninit;
use std::time::{Duration, SystemTime};

use crate::facts::{Clock, Synchronised};

#[allow(clippy::disallowed_methods)] // What is asked for is the time.
pub(super) fn clock() -> Clock {
    Clock { now: SystemTime::now(), synchronised: synchronised(), boottime: has_boottime() }
}

fn synchronised() -> Option<Synchronised> {
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all fields are numbers, for which zero is one; with `modes` zero the kernel changes nothing and fills them in.
    let (state, timex) = unsafe { (libc::adjtimex(timex.as_mut_ptr()), timex.assume_init()) };
    (state >= 0).then(|| Synchronised {
        yes: state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0,
        most_wrong: Duration::from_micros(u64::try_from(timex.maxerror).unwrap_or(0)),
    })
}

fn has_boottime() -> bool {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: the kernel writes one timespec there, or nothing.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, time.as_mut_ptr()) == 0 }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_tells_of_its_clock() {
        let clock = super::clock();
        assert!(clock.boottime && clock.synchronised.is_some());
    }
}
