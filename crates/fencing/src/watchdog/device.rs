//! The device, as Linux has it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// The letter of its calls (`include/uapi/linux/watchdog.h`).
const BASE: u32 = b'W' as u32;
const SETTIMEOUT: libc::Ioctl = libc::_IOWR::<libc::c_int>(BASE, 6);
const GETTIMEOUT: libc::Ioctl = libc::_IOR::<libc::c_int>(BASE, 7);
/// What is written before a device is closed that is to let the machine be.
const MAGIC: &[u8] = b"V";
/// What is written to feed it: anything but that.
const FOOD: &[u8] = b"\0";

/// A watchdog: from when it is open on it resets the machine unless it is fed within its timeout.
pub trait Device: Sized {
    /// Opens it, and gives it the first of these timeouts (in seconds) that it takes. It may have taken another one, or none.
    ///
    /// # Errors
    /// If it can't be opened, because somebody else feeds it (`ResourceBusy`), or it could never be closed without a reset.
    fn open(path: &Path, seconds: impl Iterator<Item = u32>) -> io::Result<Self>;

    /// How long it waits to be fed.
    fn timeout(&self) -> Duration;

    /// Feeds it.
    ///
    /// # Errors
    /// If it doesn't take it. Then it may reset the machine.
    fn feed(&mut self) -> io::Result<()>;

    /// Closes it so that it lets the machine be.
    ///
    /// # Errors
    /// If it doesn't take that. Then it resets the machine.
    fn disarm(self) -> io::Result<()>;
}

/// A device of this machine.
#[derive(Debug)]
pub struct SystemDevice {
    file: File,
    timeout: Duration,
}

impl Device for SystemDevice {
    fn open(path: &Path, seconds: impl Iterator<Item = u32>) -> io::Result<Self> {
        if never_stops(path) {
            return Err(io::Error::other(
                "it can't be stopped once it is open (nowayout): the machine would be reset whenever this host ends; load its module with nowayout=0",
            ));
        }
        let file = File::options().write(true).open(path)?;
        let mut device = SystemDevice { file, timeout: Duration::ZERO };
        match device.set_timeout(seconds) {
            Ok(timeout) => device.timeout = timeout,
            Err(error) => {
                // It is armed by now.
                device.disarm()?;
                return Err(error);
            }
        }
        Ok(device)
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn feed(&mut self) -> io::Result<()> {
        self.file.write_all(FOOD)
    }

    fn disarm(mut self) -> io::Result<()> {
        self.file.write_all(MAGIC)
    }
}

impl SystemDevice {
    fn set_timeout(&self, seconds: impl Iterator<Item = u32>) -> io::Result<Duration> {
        for seconds in seconds {
            let Ok(seconds) = libc::c_int::try_from(seconds) else { continue };
            match self.call(SETTIMEOUT, seconds) {
                Ok(_) => break,
                // Not this one.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                // It has the one that it has.
                Err(_) => break,
            }
        }
        let has = self.call(GETTIMEOUT, 0)?;
        match u64::try_from(has) {
            Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
            _ => Err(io::Error::other("it doesn't say its timeout")),
        }
    }

    fn call(&self, request: libc::Ioctl, mut value: libc::c_int) -> io::Result<libc::c_int> {
        // SAFETY: both calls read and write one number of this type, which lives through the call.
        match unsafe { libc::ioctl(self.file.as_raw_fd(), request, &raw mut value) } {
            0.. => Ok(value),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether the kernel says of this device that nothing stops it once it is open. Older ones say nothing (`CONFIG_WATCHDOG_SYSFS`).
fn never_stops(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    // The first one has two names.
    let name = match path.file_name().and_then(|name| name.to_str()) {
        Some("watchdog") | None => "watchdog0",
        Some(name) => name,
    };
    let says = fs::read_to_string(Path::new("/sys/class/watchdog").join(name).join("nowayout"));
    says.is_ok_and(|says| says.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_calls_have_the_kernel_s_numbers() {
        // As <linux/watchdog.h> makes them where reading is 2 and writing 1, which is nearly everywhere.
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
        assert_eq!((SETTIMEOUT as u32, GETTIMEOUT as u32), (0xc004_5706, 0x8004_5707));
    }

    #[test]
    fn what_is_no_watchdog_is_refused_and_told_to_let_the_machine_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(SystemDevice::open(file.path(), [1].into_iter()).is_err());
        assert_eq!(fs::read(file.path()).unwrap(), MAGIC);
        assert!(SystemDevice::open(Path::new("/nowhere/watchdog"), [1].into_iter()).is_err());
    }
}
