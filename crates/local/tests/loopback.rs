//! Clusters on loopback. The hosts are this program itself, so it has no harness around it. The addresses that the
//! launcher listens on are of this process alone, so that it runs beside others.
#![allow(clippy::disallowed_methods)] // Waits for conditions, for a bounded time.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use config::HostConfig;
use local::{
    AddressKind, Announcement, Cluster, ClusterError, Disks, Entry, Folder, Net, NetKind, Options, Protocol,
    SwitchAddresses, SwitchError,
};

type Outcome = Result<(), Box<dyn Error>>;

const SOON: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_millis(300);
const BEAT: Duration = Duration::from_millis(30);
/// What tells a host that it leads, in its data folder.
const LEADS: &str = "leads";

type Case = (&'static str, fn(&tokio::runtime::Runtime, u8) -> Outcome);

const CASES: [Case; 4] = [
    ("a_cut_host_is_silent_until_it_is_buried", cut_and_return),
    ("a_dropped_cluster_leaves_nothing", dropped),
    ("a_host_that_ends_by_itself_is_noticed", host_ends),
    ("an_address_in_use_is_a_clear_error", in_use),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, switch, service, _, config] = &arguments[..]
        && mode == "host"
    {
        return match host(switch, service, config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut status = ExitCode::SUCCESS;
    for (number, (name, case)) in (1u8..).zip(CASES) {
        if filter.is_none_or(|filter| name.contains(filter)) {
            let outcome = case(&runtime, number);
            println!(
                "test {name} ... {}",
                outcome.as_ref().map_or_else(ToString::to_string, |()| "ok".into())
            );
            if outcome.is_err() {
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

/// An address of this process and case alone.
fn own_address(case: u8, last: u8) -> Ipv4Addr {
    let pid = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 100 + (pid[1] & 15) * 8 + case, pid[2], pid[3] & 0xf0 | last)
}

fn addresses(case: u8) -> (SwitchAddresses, SocketAddr) {
    let switch = SwitchAddresses {
        announcements: (own_address(case, 4), 2382).into(),
        virtual_address: (own_address(case, 1), 6443).into(),
    };
    (switch, (own_address(case, 9), 8080).into())
}

/// A host: has a pod, answers each byte with its number, and announces a service, and the virtual address while
/// it leads.
fn host(switch: &str, service: &str, config: &str) -> Outcome {
    let (switch, service): (SocketAddr, SocketAddr) = (switch.parse()?, service.parse()?);
    let config = HostConfig::load(config.as_ref())?;
    let pod = Command::new("setsid").args(["sleep", "1000"]).spawn()?;
    println!("pod {}", pod.id());
    let listener = TcpListener::bind((config.address, 0))?;
    let target = listener.local_addr()?;
    let number = config.name.as_bytes()[1];
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            std::thread::spawn(move || {
                while connection.read_exact(&mut [0]).is_ok() && connection.write_all(&[number]).is_ok() {}
            });
        }
    });
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let vip: SocketAddr = std::fs::read_to_string(config.data_dir.join("vip"))?.parse()?;
    let entry = |kind, address: SocketAddr| Entry {
        kind,
        address: address.ip(),
        port: address.port(),
        protocol: Protocol::Tcp,
        target,
    };
    loop {
        let mut entries = vec![entry(AddressKind::Service, service)];
        if config.data_dir.join(LEADS).exists() {
            entries.push(entry(AddressKind::Vip, vip));
        }
        let announcement = Announcement { host: config.name.clone(), entries };
        let _ = socket.send_to(&serde_json::to_vec(&announcement)?, switch);
        if config.data_dir.join("end").exists() {
            return Err("told to end".into());
        }
        std::thread::park_timeout(BEAT);
    }
}

fn start(
    runtime: &tokio::runtime::Runtime,
    folder: &tempfile::TempDir,
    case: u8,
) -> Result<Cluster, ClusterError> {
    let (switch, service) = addresses(case);
    let folder = Folder::open_or_create(folder.path(), 2, NetKind::Loopback).expect("a new folder");
    for name in ["n1", "n2"] {
        std::fs::write(folder.host(name).join("data/vip"), switch.virtual_address.to_string())
            .expect("a file");
    }
    std::fs::write(folder.host("n1").join("data").join(LEADS), "").expect("a file");
    runtime.block_on(Cluster::start(Options {
        folder,
        program: std::env::current_exe().expect("a program knows where it is"),
        arguments: vec!["host".into(), switch.announcements.to_string().into(), service.to_string().into()],
        net: Net::Loopback(switch),
        disks: Disks::Common,
    }))
}

/// A connection, and who answers on it.
fn connect(to: SocketAddr) -> std::io::Result<(TcpStream, u8)> {
    let mut connection = TcpStream::connect_timeout(&to, SILENCE)?;
    connection.set_read_timeout(Some(SILENCE))?;
    let answer = ask(&mut connection)?;
    Ok((connection, answer))
}

fn ask(connection: &mut TcpStream) -> std::io::Result<u8> {
    let mut answer = [0];
    connection.write_all(b"?")?;
    connection.read_exact(&mut answer)?;
    Ok(answer[0])
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> Result<T, Box<dyn Error>> {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = attempt() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!("never came about: {what}").into());
        }
        std::thread::yield_now();
    }
}

fn pod_of(cluster: &Cluster, name: &str) -> Result<i32, Box<dyn Error>> {
    eventually("a log", || cluster.folder().last_log_line(name)?.strip_prefix("pod ")?.parse().ok())
}

fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next().filter(|&state| state != 'Z')
}

fn cut_and_return(runtime: &tokio::runtime::Runtime, case: u8) -> Outcome {
    let (switch, service) = addresses(case);
    let folder = tempfile::tempdir()?;
    let mut cluster = start(runtime, &folder, case)?;
    let data = |name: &str| folder.path().join(name).join("data").join(LEADS);
    let mut doomed =
        eventually("n1 leads", || connect(switch.virtual_address).ok().filter(|c| c.1 == b'1'))?.0;
    let serving =
        |number| eventually("every host serves", || connect(service).ok().filter(|c| c.1 == number));
    let (mut served, _) = (serving(b'1')?.0, serving(b'2')?);
    let (host, pod) = (cluster.pid("n1").ok_or("off")?, pod_of(&cluster, "n1")?);

    let before = Instant::now();
    let cut = runtime.block_on(cluster.cut("n1"))?;
    assert!(cut.instant >= before && cut.instant <= Instant::now());
    assert_eq!((state(host), state(pod)), (Some('T'), Some('T')), "frozen with all that runs on it");
    assert!(is_silence(&ask(&mut doomed).expect_err("no answer")), "neither FIN nor RST");
    assert!(connect(switch.virtual_address).is_err_and(|error| is_silence(&error)), "nobody took over yet");
    std::fs::rename(data("n1"), data("n2"))?;
    eventually("n2 leads", || connect(switch.virtual_address).ok().filter(|c| c.1 == b'2'))?;
    eventually("the new holder resets it", || ask(&mut doomed).err().filter(|error| !is_silence(error)))?;
    assert!(is_silence(&ask(&mut served).expect_err("no answer")), "a connection stays with whom it went to");
    for _ in 0..4 {
        assert_eq!(connect(service)?.1, b'2', "who is silent gets no new connection");
    }
    assert!(matches!(runtime.block_on(cluster.cut("n1")), Err(ClusterError::Off(_))));

    runtime.block_on(cluster.bury("n1"))?;
    assert_eq!((state(host), state(pod)), (None, None));
    assert!(!is_silence(&ask(&mut served).expect_err("no answer")), "the end is passed on when it comes");
    runtime.block_on(cluster.power_on("n1"))?;
    eventually("n1 serves again", || connect(service).ok().filter(|c| c.1 == b'1'))?;
    assert!(cluster.resident_memory("n1").is_some_and(|bytes| bytes > 0));
    assert!(cluster.processor_time("n1").is_some());
    let left =
        [cluster.pid("n1"), cluster.pid("n2"), Some(pod_of(&cluster, "n1")?), Some(pod_of(&cluster, "n2")?)];
    runtime.block_on(cluster.stop())?;
    assert!(left.iter().flatten().all(|&pid| state(pid).is_none()));
    Ok(())
}

fn dropped(runtime: &tokio::runtime::Runtime, case: u8) -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut cluster = start(runtime, &folder, case)?;
    let mut left = vec![pod_of(&cluster, "n1")?, pod_of(&cluster, "n2")?];
    left.extend(cluster.hosts().iter().filter_map(|name| cluster.pid(name)));
    runtime.block_on(cluster.cut("n2"))?;
    drop(cluster);
    assert_eq!(left.len(), 4);
    assert!(left.iter().all(|&pid| state(pid).is_none()));
    Ok(())
}

fn host_ends(runtime: &tokio::runtime::Runtime, case: u8) -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut cluster = start(runtime, &folder, case)?;
    let stray = pod_of(&cluster, "n2")?;
    std::fs::write(cluster.folder().host("n2").join("data/end"), "")?;
    let (name, status) = runtime.block_on(cluster.host_ended());
    assert_eq!((name.as_str(), status?.code()), ("n2", Some(1)));
    assert_eq!(cluster.folder().last_log_line("n2").as_deref(), Some("told to end"));
    assert!(!cluster.is_on("n2") && cluster.is_on("n1"));
    // Pods outlive their host's process; without a guard above, their end is up to the test.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(stray), nix::sys::signal::Signal::SIGKILL)?;
    runtime.block_on(cluster.stop())?;
    Ok(())
}

fn in_use(runtime: &tokio::runtime::Runtime, case: u8) -> Outcome {
    let (switch, _) = addresses(case);
    let _other = TcpListener::bind(switch.virtual_address)?;
    let folder = tempfile::tempdir()?;
    match start(runtime, &folder, case) {
        Err(error @ ClusterError::Switch(SwitchError::InUse { .. })) => {
            assert!(error.to_string().contains("is in use"), "{error}");
            Ok(())
        }
        Err(other) => Err(other.into()),
        Ok(_) => Err("started".into()),
    }
}
