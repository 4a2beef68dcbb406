//! When this host's lease ends, where other processes of the host see it too: one page of memory, without a name.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::driver::boottime;
use crate::lease::{Boottime, Epoch};

/// What the page begins with: that it is one, and how it is laid out.
const LAYOUT: u64 = u64::from_le_bytes(*b"hflease1");
/// How long it is.
const LENGTH: usize = 4096;

/// The memory in which a host's heartbeats say until when its lease holds, and in which epoch. Another process of the host sees them say it, and
/// sees also when they say nothing more, because their process hangs, is stopped or is gone: then the time that was said last passes.
///
/// Zero as a time is that there is no lease. The clock is the one that goes on while the machine sleeps (CLOCK_BOOTTIME).
///
/// Beside the host's lease there is room for one more ([`leading`](LeasePage::leading)), and what is said of either is read in the same way.
#[derive(Debug, Clone)]
pub struct LeasePage {
    mapping: Arc<Mapping>,
    which: Which,
}

/// Which of the leases in the page is meant.
#[derive(Debug, Clone, Copy)]
enum Which {
    Host,
    Leading,
}

#[derive(Debug)]
struct Mapping {
    file: OwnedFd,
    at: NonNull<Fields>,
}

/// What is new comes last, and is zero until somebody who knows it writes it: processes of other versions see the page too.
#[repr(C)]
struct Fields {
    layout: AtomicU64,
    host: Line,
    leading: Line,
    held_for: AtomicU64,
}

#[repr(C)]
struct Line {
    epoch: AtomicU64,
    until: AtomicU64,
}

// SAFETY: the fields are atomic, and the mapping stays where it is until it is dropped.
unsafe impl Send for Mapping {}
// SAFETY: likewise.
unsafe impl Sync for Mapping {}

impl LeasePage {
    /// A new one, which says that there is no lease.
    ///
    /// # Errors
    /// If the system has no memory for it.
    pub fn create() -> io::Result<Self> {
        // A system may allow no memory that can be executed (`vm.memfd_noexec`), and Linux before 6.3 doesn't know how to ask for another kind.
        let made = memory(libc::MFD_NOEXEC_SEAL).or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => memory(0),
            _ => Err(error),
        });
        let file = File::from(made?);
        file.set_len(LENGTH as u64)?;
        // Who maps a file that becomes shorter dies of a look at it.
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: a system call on numbers.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let page = Self::map(file.into())?;
        page.all().layout.store(LAYOUT, Ordering::Release);
        Ok(page)
    }

    /// The page that somebody handed over.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(file: OwnedFd) -> io::Result<Self> {
        // SAFETY: a system call on a descriptor that is open.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        let file = File::from(file);
        let is_long =
            seals >= 0 && seals & libc::F_SEAL_SHRINK != 0 && file.metadata()?.len() == LENGTH as u64;
        let page = is_long.then(|| Self::map(file.into())).transpose()?;
        let page = page.filter(|page| page.all().layout.load(Ordering::Acquire) == LAYOUT);
        page.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no page of a host's lease"))
    }

    fn map(file: OwnedFd) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of an open file, where the kernel likes it.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), LENGTH, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("memory at address zero"))?;
        Ok(LeasePage { mapping: Arc::new(Mapping { file, at }), which: Which::Host })
    }

    fn all(&self) -> &Fields {
        // SAFETY: the mapping is as long as a page, which begins as the fields' alignment wants it, and lives as long as this does. Any
        // bits are a value of them.
        unsafe { self.mapping.at.as_ref() }
    }

    fn fields(&self) -> &Line {
        match self.which {
            Which::Host => &self.all().host,
            Which::Leading => &self.all().leading,
        }
    }

    /// The same page, in which this host says until when it stands for the cluster as the leader of a term: that is the epoch there. It ends by
    /// itself, as the host's lease does, when the process that leads doesn't run any more.
    pub fn leading(&self) -> LeasePage {
        LeasePage { mapping: self.mapping.clone(), which: Which::Leading }
    }

    /// What another process maps.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.mapping.file.as_fd()
    }

    /// The epoch in which this host is.
    pub fn epoch(&self) -> Epoch {
        self.fields().epoch.load(Ordering::Acquire)
    }

    /// When this host's lease ends unless it is renewed; nothing while there is none.
    pub fn until(&self) -> Option<Boottime> {
        match self.fields().until.load(Ordering::Acquire) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    /// When the lease of this epoch ends unless it is renewed; nothing if it is over.
    pub fn ends(&self, epoch: Epoch) -> Option<Boottime> {
        // In this order: who reads the time of a later epoch sees that epoch then.
        let until = self.until()?;
        (self.epoch() == epoch && boottime() < until).then_some(until)
    }

    /// For how long the lease holds from now on.
    pub fn remaining(&self) -> Duration {
        self.until().unwrap_or_default().saturating_sub(boottime())
    }

    /// How long the host's lease holds after a beat was sent, by the times of the process that says until when; nothing if it hasn't said so.
    pub fn held_for(&self) -> Option<Duration> {
        match self.all().held_for.load(Ordering::Acquire) {
            0 => None,
            nanoseconds => Some(Duration::from_nanos(nanoseconds)),
        }
    }

    /// Says that, before the first time that it is about.
    pub fn set_held_for(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.all().held_for.store(nanoseconds, Ordering::Release);
    }

    /// What is true from now on. Of one page there is one that says so.
    pub fn set(&self, epoch: Epoch, until: Option<Boottime>) {
        let nanoseconds = until.map_or(0, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        let fields = self.fields();
        if fields.epoch.load(Ordering::Relaxed) != epoch {
            // Never the time of one epoch beside the number of another one that is still to be read.
            fields.until.store(0, Ordering::Release);
            fields.epoch.store(epoch, Ordering::Release);
        }
        fields.until.store(nanoseconds, Ordering::Release);
    }
}

/// Memory without a name that other processes can be given, and that can be sealed.
fn memory(more: libc::c_uint) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | more;
    // SAFETY: the name is a string that ends with a zero.
    let made = unsafe { libc::memfd_create(c"holdfast-lease".as_ptr(), flags) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for this process, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped by this, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.at.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn who_has_the_file_sees_the_same_lease_and_no_other_file_is_one() {
        let page = LeasePage::create().unwrap();
        let seen = LeasePage::of(page.file().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!((seen.epoch(), seen.until(), seen.ends(0)), (0, None, None));
        let until = boottime() + Duration::from_secs(3600);
        page.set(7, Some(until));
        assert_eq!((seen.epoch(), seen.ends(7), seen.ends(6)), (7, Some(until), None));
        assert!(seen.remaining() > Duration::from_secs(3000));
        page.set(8, None);
        assert_eq!((seen.ends(7), seen.ends(8), seen.remaining()), (None, None, Duration::ZERO));
        page.set(8, Some(boottime()));
        assert_eq!(seen.ends(8), None, "it has passed");
        page.leading().set(3, Some(until));
        assert_eq!((seen.leading().ends(3), seen.ends(3), seen.epoch()), (Some(until), None, 8));

        let other = tempfile::tempfile().unwrap();
        other.set_len(LENGTH as u64).unwrap();
        assert!(LeasePage::of(other.into()).is_err(), "it can become shorter");
    }

    #[test]
    fn nobody_can_execute_the_page_where_the_kernel_can_make_it_so() {
        let page = LeasePage::create().unwrap();
        let mode =
            File::from(page.file().try_clone_to_owned().unwrap()).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111 == 0, memory(libc::MFD_NOEXEC_SEAL).is_ok(), "{mode:o}");
    }
}
