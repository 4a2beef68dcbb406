//! What the manager of services hears that started this host, systemd or one like it: that the host is up, that it lives, that it ends.
//! The protocol is that of sd_notify(3): datagrams to the socket that `NOTIFY_SOCKET` names.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// How often what must arrive is sent to a manager that is busy, and the pause in between.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);
/// How many signs of life are sent at least in the time for which the manager waits for one: an answer of the host may take as long as
/// the pause before its question did.
const SIGNS: u128 = 4;

/// The manager of services that started this process; nobody, where none did.
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How long it waits for a sign of life before it kills the process; none where it doesn't watch.
    patience: Option<Duration>,
}

impl ServiceManager {
    /// The one that this process' environment tells of.
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let socket = variable("NOTIFY_SOCKET").and_then(|address| {
            let socket = socket_to(&address);
            socket.inspect_err(|error| tracing::warn!(%error, ?address, "can't tell the service manager how this host is")).ok()
        });
        let patience = patience(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
        ServiceManager { socket, patience }
    }

    /// The host is up, and `status` says in a line what it does.
    pub async fn ready(&self, status: &str) {
        for _ in 0..TRIES {
            match self.tell(&format!("READY=1\nSTATUS={status}")) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    return tracing::warn!(%error, "can't tell the service manager that this host is up");
                }
                Ok(()) => return,
            }
        }
        tracing::warn!("the service manager doesn't hear that this host is up: its socket is full");
    }

    /// The host ends.
    pub fn stopping(&self) {
        if let Err(error) = self.tell("STOPPING=1") {
            tracing::debug!(%error, "can't tell the service manager that this host ends");
        }
    }

    /// What is to be called each time that the host has shown that it lives, which it does after `every` or twice that: of enough of these
    /// times the manager hears.
    pub fn feed(self: Arc<Self>, every: Duration) -> impl FnMut() + Send {
        let one_of = self.patience.map(|patience| times_between(patience, every));
        let mut times: u32 = 0;
        move || {
            if one_of.is_some_and(|one_of| times.is_multiple_of(one_of)) {
                // One that doesn't get through is followed by others.
                let _ = self.tell("WATCHDOG=1");
            }
            times = times.wrapping_add(1);
        }
    }

    /// Never waits: what calls this must not be late.
    fn tell(&self, words: &str) -> io::Result<()> {
        let Some((socket, manager)) = &self.socket else { return Ok(()) };
        socket.send_to_addr(words.as_bytes(), manager).map(drop)
    }
}

/// A socket to send by, and where to: a path, or after an `@` a name of Linux' abstract ones.
fn socket_to(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let manager = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is neither a path nor an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, manager))
}

/// How long a manager waits that said `microseconds` to the process `of`, which may be another one than this: the variables are handed on.
fn patience(microseconds: Option<OsString>, of: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str().and_then(|text| text.parse::<u64>().ok());
    if of.is_some_and(|of| number(of) != Some(own.into())) {
        return None;
    }
    microseconds.and_then(number).filter(|time| *time > 0).map(Duration::from_micros)
}

/// Of how many signs of life that come after `every` or twice that a manager with this patience is sent one.
fn times_between(patience: Duration, every: Duration) -> u32 {
    let times = patience.as_nanos() / (2 * SIGNS) / every.as_nanos().max(1);
    u32::try_from(times).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(address: &OsStr, patience: Option<Duration>) -> Arc<ServiceManager> {
        Arc::new(ServiceManager { socket: Some(socket_to(address).unwrap()), patience })
    }

    fn heard(by: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 256];
        let length = by.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    #[tokio::test]
    async fn paths_and_abstract_names_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("holdfast-test-{}", std::process::id());
        let abstract_one = SocketAddr::from_abstract_name(&name).unwrap();
        for (listening, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (UnixDatagram::bind_addr(&abstract_one).unwrap(), format!("@{name}").into()),
        ] {
            listening.set_nonblocking(true).unwrap();
            let manager = manager(&address, None);
            manager.ready("n1 is up").await;
            assert_eq!(heard(&listening).unwrap(), "READY=1\nSTATUS=n1 is up");
            manager.clone().feed(Duration::from_secs(1))();
            assert_eq!(heard(&listening), None, "it doesn't watch");
            manager.stopping();
            assert_eq!(heard(&listening).unwrap(), "STOPPING=1");
        }
        for wrong in ["vsock:2:1234", "notify"] {
            assert!(socket_to(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_manager_hears_four_signs_of_life_within_its_patience() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listening = UnixDatagram::bind(&path).unwrap();
        listening.set_nonblocking(true).unwrap();
        let every = Duration::from_millis(250);
        let patience = Duration::from_secs(8);
        let mut feed = manager(path.as_os_str(), Some(patience)).feed(every);
        // As slowly as they may come.
        for _ in 0..(patience.as_millis() / (2 * every).as_millis()) {
            feed();
        }
        let signs = std::iter::from_fn(|| heard(&listening)).collect::<Vec<_>>();
        assert_eq!(signs, ["WATCHDOG=1"; 4]);
        assert_eq!(
            times_between(Duration::from_micros(1), every),
            1,
            "as often as there is something to say"
        );
    }

    #[test]
    fn what_is_said_to_another_process_doesn_t_count() {
        let patience = |time: &str, of: Option<&str>| patience(Some(time.into()), of.map(Into::into), 7);
        assert_eq!(patience("2000000", None), Some(Duration::from_secs(2)));
        assert_eq!(patience("2000000", Some("7")), Some(Duration::from_secs(2)));
        for (time, of) in
            [("2000000", Some("8")), ("2000000", Some("")), ("0", None), ("-1", None), ("soon", None)]
        {
            assert_eq!(patience(time, of), None, "{time} {of:?}");
        }
    }
}
