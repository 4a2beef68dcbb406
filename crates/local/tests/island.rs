//! Clusters in network namespaces. Entering one takes a process with one thread, so this is a program of its
//! own: it tries each case in a child of its own kind, and its hosts are itself, too.
#![allow(clippy::disallowed_methods)] // Waits for conditions, for a bounded time.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use config::HostConfig;
use local::{Cluster, Disks, Folder, Island, Lost, Net, NetKind, Options, OwnDisks, Permission};

type Outcome = Result<(), Box<dyn Error>>;

const PORT: u16 = 7;
const SOON: Duration = Duration::from_secs(60);
const SILENCE: Duration = Duration::from_millis(300);

type Case = (&'static str, fn() -> Outcome);

const CASES: [Case; 9] = [
    ("a_cut_host_is_silent_and_comes_back", || as_island(cut_and_return)),
    ("hosts_reach_each_other_and_have_their_own_loopback", || as_island(hosts_reach_each_other)),
    ("a_listener_bound_before_is_reached_from_the_machine", forwarded),
    ("packets_are_lost_between_hosts_and_nowhere_else", || as_island(packets_are_lost)),
    ("a_program_is_stopped_killed_and_shut_down", || as_island(stopped_killed_shut_down)),
    ("a_disk_of_a_host_s_own_is_filled_and_emptied", disk_filled),
    ("a_hosts_syncs_stall_in_all_its_lives_and_no_others_do", || as_island(syncs_stall)),
    ("nothing_is_left_after_stop_or_drop", || as_island(nothing_left)),
    ("a_second_thread_is_noticed", second_thread),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("host") => exit(host(&arguments[2])),
        Some("case") => exit(
            CASES
                .iter()
                .find(|(name, _)| *name == arguments[1])
                .map_or(Err("no such case".into()), |c| c.1()),
        ),
        _ if arguments.iter().any(|argument| argument == "--list") => ExitCode::SUCCESS,
        _ => all_cases(arguments.iter().find(|argument| !argument.starts_with('-'))),
    }
}

fn exit(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn all_cases(filter: Option<&String>) -> ExitCode {
    match Island::permission() {
        Ok(Permission::Granted) => {}
        refused => {
            testing::skip("netns", format_args!("{refused:?}"));
            return ExitCode::SUCCESS;
        }
    }
    let program = std::env::current_exe().expect("a program knows where it is");
    let mut failed = 0;
    for (name, _) in CASES.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter))) {
        let status = Command::new(&program).args(["case", name]).status().expect("a child can be started");
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        failed += usize::from(!status.success());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A host: answers over UDP with what it was sent, and over TCP, line by line. A line that is an address is a
/// request for what that address answers over UDP, and `sync` one to write something to its disk first.
fn host(config: &str) -> Outcome {
    let config = HostConfig::load(config.as_ref())?;
    let pod = Command::new("sleep").arg("1000").spawn()?;
    println!("ready with pod {}", pod.id());
    let udp = UdpSocket::bind(("0.0.0.0", PORT))?;
    let tcp = TcpListener::bind((config.address, PORT))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&buffer[..length], from);
        }
    });
    let synced = config.data_dir.join("synced");
    for connection in tcp.incoming() {
        let mut connection = connection?;
        let synced = synced.clone();
        std::thread::spawn(move || {
            let lines = BufReader::new(connection.try_clone().expect("a second handle")).lines();
            for line in lines.map_while(Result::ok) {
                let answer = match line.parse() {
                    Ok(address) => ask_udp(address).unwrap_or_else(|error| error.to_string()),
                    Err(_) if line == "hostname" => {
                        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().into()
                    }
                    Err(_) if line == "sync" => {
                        let done = std::fs::File::create(&synced).and_then(|file| file.sync_all());
                        done.map_or_else(|error| error.to_string(), |()| line)
                    }
                    Err(_) if line == "hardware" => {
                        std::fs::read_to_string("/proc/net/arp").unwrap_or_default().replace('\n', ";")
                    }
                    Err(_) => line,
                };
                let _ = writeln!(connection, "{answer}");
            }
        });
    }
    Ok(())
}

fn ask_udp(address: IpAddr) -> Result<String, Box<dyn Error>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(SILENCE))?;
    let mut buffer = [0; 100];
    socket.send_to(b"hello", (address, PORT))?;
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn connect(address: IpAddr) -> Result<TcpStream, Box<dyn Error>> {
    let deadline = Instant::now() + SOON;
    loop {
        match TcpStream::connect_timeout(&(address, PORT).into(), SILENCE) {
            Ok(connection) => {
                connection.set_read_timeout(Some(SOON))?;
                return Ok(connection);
            }
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => std::thread::yield_now(),
        }
    }
}

fn ask(connection: &mut TcpStream, question: &str) -> Result<String, Box<dyn Error>> {
    writeln!(connection, "{question}")?;
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

/// Waits for an answer: on a machine with much else to do one may come late.
fn hears(who: &str, mut asks: impl FnMut() -> Result<String, Box<dyn Error>>) -> Outcome {
    let until = Instant::now() + SOON;
    loop {
        match asks() {
            Ok(answer) if answer == "hello" => return Ok(()),
            answer if Instant::now() > until => return Err(format!("{who}: {answer:?}").into()),
            _ => {}
        }
    }
}

fn as_island(case: fn(Island, &tokio::runtime::Runtime) -> Outcome) -> Outcome {
    let island = Island::enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    case(island, &runtime)
}

fn start(island: Island, folder: &tempfile::TempDir, nodes: usize) -> impl Future<Output = Cluster> {
    start_on(island, folder, nodes, Disks::Common)
}

fn start_on(
    island: Island,
    folder: &tempfile::TempDir,
    nodes: usize,
    disks: Disks,
) -> impl Future<Output = Cluster> {
    let folder = Folder::open_or_create(folder.path(), nodes, NetKind::Netns).expect("a new folder");
    let program = std::env::current_exe().expect("a program knows where it is");
    let (arguments, net) = (vec!["host".into()], Net::Netns(island));
    let options = Options { folder, program, arguments, net, disks };
    async { Cluster::start(options).await.expect("a cluster") }
}

fn address(cluster: &Cluster, number: u8) -> IpAddr {
    cluster.folder().addresses().host(number).into()
}

fn cut_and_return(island: Island, runtime: &tokio::runtime::Runtime) -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut cluster = runtime.block_on(start(island, &folder, 2));
    let (first, second) = (address(&cluster, 1), address(&cluster, 2));
    let (mut doomed, mut other) = (connect(first)?, connect(second)?);
    assert_eq!(ask(&mut doomed, "hello")?, "hello");
    assert_eq!(ask(&mut doomed, "hostname")?, "n1");
    assert_eq!(ask_udp(first)?, "hello");
    let hardware = ask_arp("10.73.0.1")?;
    let before = cluster.pid("n1").ok_or("n1 has no process")?;
    let pod = pod_of(&cluster, "n1")?;

    runtime.block_on(cluster.cut("n1"))?;
    assert!(!runs(before) && !runs(pod), "everything on a host without power is dead");
    doomed.set_read_timeout(Some(SILENCE))?;
    writeln!(doomed, "hello")?;
    let silence = doomed.read(&mut [0; 1]).expect_err("neither an answer nor FIN");
    assert!(
        matches!(silence.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        "no RST: {silence}"
    );
    assert!(ask_udp(first).is_err());
    assert_eq!(ask(&mut other, &first.to_string())?, "Resource temporarily unavailable (os error 11)");
    assert_eq!(ask(&mut other, "hello")?, "hello", "the other host hears nothing of it");

    runtime.block_on(cluster.power_on("n1"))?;
    let mut back = connect(first)?;
    assert_eq!(ask(&mut back, "hello")?, "hello");
    assert_eq!(ask_arp("10.73.0.1")?, hardware, "the same hardware address");
    assert_eq!(ask(&mut other, &first.to_string())?, "hello");
    assert!(cluster.resident_memory("n1").is_some_and(|bytes| bytes > 0));
    runtime.block_on(cluster.stop())?;
    Ok(())
}

fn packets_are_lost(island: Island, runtime: &tokio::runtime::Runtime) -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut cluster = runtime.block_on(start(island, &folder, 3));
    let (first, third) = (address(&cluster, 1), address(&cluster, 3));
    let mut other = connect(address(&cluster, 2))?;
    connect(third)?;
    connect(first)?;
    let (first, third) = (first.to_string(), third.to_string());
    for lost in [Lost::Both, Lost::From, Lost::To] {
        hears("before", || ask(&mut other, &first))?;
        cluster.lose("n1", lost, 100)?;
        assert_ne!(ask(&mut other, &first)?, "hello", "{lost:?}");
        hears("the others each other", || ask(&mut other, &third))?;
        let at = first.parse()?;
        hears("who asks from the switch", || ask_udp(at))?;
        cluster.lose_nothing("n1")?;
    }
    cluster.lose_nothing("n1")?;
    cluster.lose("n1", Lost::Both, 30)?;
    // Each question has two packets.
    let answered = (0..40)
        .map(|_| ask(&mut other, &first))
        .filter(|answer| answer.as_deref().is_ok_and(|a| a == "hello"));
    assert!((5..36).contains(&answered.count()), "some are lost, and not all");
    cluster.lose_nothing("n1")?;

    runtime.block_on(cluster.link_down("n1"))?;
    assert_ne!(ask(&mut other, &first)?, "hello");
    assert!(ask_udp(first.parse()?).is_err(), "nobody hears a host without a link");
    runtime.block_on(cluster.link_up("n1"))?;
    hears("with its link again", || ask(&mut other, &first))?;
    runtime.block_on(cluster.stop())?;
    Ok(())
}

fn stopped_killed_shut_down(island: Island, runtime: &tokio::runtime::Runtime) -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut cluster = runtime.block_on(start(island, &folder, 1));
    let first = address(&cluster, 1);
    connect(first)?;
    hears("before", || ask_udp(first))?;
    let (before, pod) = (cluster.pid("n1").ok_or("n1 has no process")?, pod_of(&cluster, "n1")?);
    cluster.pause("n1")?;
    // Each of its threads stops by itself, the last a moment after the signal.
    let until = Instant::now() + SOON;
    while ask_udp(first).is_ok() {
        assert!(Instant::now() < until, "a program that was stopped answers");
    }
    assert!(runs(before));
    cluster.resume("n1")?;
    hears("one that goes on", || ask_udp(first))?;

    runtime.block_on(cluster.kill("n1"))?;
    assert!(!runs(before) && runs(pod), "what runs on the host goes on");
    assert!(matches!(cluster.pause("n1"), Err(local::ClusterError::Off(_))));
    // In its old network.
    runtime.block_on(cluster.power_on("n1"))?;
    connect(first)?;
    let before = cluster.pid("n1").ok_or("n1 has no process")?;
    let new = pod_of(&cluster, "n1")?;
    runtime.block_on(cluster.shut_down("n1", SOON))?;
    assert!(!runs(before) && !runs(new) && !runs(pod), "nothing is left on a host that was shut down");
    assert!(ask_udp(first).is_err());
    runtime.block_on(cluster.power_on("n1"))?;
    connect(first)?;
    runtime.block_on(cluster.stop())?;
    Ok(())
}

fn syncs_stall(island: Island, runtime: &tokio::runtime::Runtime) -> Outcome {
    const STALL: Duration = Duration::from_millis(900);
    if !testing::has_seccomp() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut cluster = runtime.block_on(start_on(island, &folder, 2, Disks::Stalling));
    let (first, second) = (address(&cluster, 1), address(&cluster, 2));
    let takes = |host: IpAddr| -> Result<Duration, Box<dyn Error>> {
        let mut connection = connect(host)?;
        let began = Instant::now();
        assert_eq!(ask(&mut connection, "sync")?, "sync");
        Ok(began.elapsed())
    };
    // On a machine with much else to do one may take long.
    let is_quick = |host| (0..10).any(|_| takes(host).is_ok_and(|took| took < STALL));
    assert!(is_quick(first));
    cluster.stall("n1", STALL)?;
    assert!(takes(first)? >= STALL && is_quick(second));
    runtime.block_on(cluster.kill("n1"))?;
    runtime.block_on(cluster.power_on("n1"))?;
    assert!(takes(first)? >= STALL, "every process that starts on that host");
    cluster.stall("n1", Duration::ZERO)?;
    assert!(is_quick(first));
    runtime.block_on(cluster.stop())?;
    Ok(())
}

/// As `drill` does: the disks are mounted while there is one thread.
fn disk_filled() -> Outcome {
    let island = Island::enter()?;
    let temporary = tempfile::tempdir()?;
    let folder = Folder::open_or_create(temporary.path(), 2, NetKind::Netns)?;
    let disks = Disks::Own(OwnDisks::mount(&folder, 8 << 20)?);
    let [own, others] = ["n1", "n2"].map(|name| folder.host(name).join("data/file"));
    let (program, arguments) = (std::env::current_exe()?, vec!["host".into()]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let options = Options { folder, program, arguments, net: Net::Netns(island), disks };
    let mut cluster = runtime.block_on(Cluster::start(options))?;
    let first = address(&cluster, 1);
    connect(first)?;
    let is_full = || {
        let refused = std::fs::write(&own, "x").err().map(|error| error.kind());
        refused == Some(std::io::ErrorKind::StorageFull)
    };
    std::fs::write(own.with_extension("before"), "x")?;
    runtime.block_on(cluster.fill("n1"))?;
    assert!(is_full());
    std::fs::write(&others, "x")?;
    runtime.block_on(cluster.kill("n1"))?;
    runtime.block_on(cluster.power_on("n1"))?;
    connect(first)?;
    assert!(is_full(), "a disk outlives a host's process");
    runtime.block_on(cluster.empty("n1"))?;
    assert!(!is_full());
    let pid = cluster.pid("n1").ok_or("n1 has no process")?;
    let seen = std::fs::read_to_string(format!("/proc/{pid}/root{}", own.display()))?;
    assert_eq!(seen, "x", "the host has that disk, too");
    runtime.block_on(cluster.stop())?;
    // What is mounted could not be removed.
    temporary.close()?;
    Ok(())
}

/// The hardware address that this machine has for a neighbour.
fn ask_arp(neighbour: &str) -> Result<String, Box<dyn Error>> {
    let table = std::fs::read_to_string("/proc/net/arp")?;
    let line = table.lines().find(|line| line.split(' ').next() == Some(neighbour));
    let hardware = line.and_then(|line| line.split_whitespace().nth(3));
    Ok(hardware.ok_or(format!("no neighbour {neighbour} in {table}"))?.to_owned())
}

/// The number of the process that stands for a pod of a host, from its last log line.
fn pod_of(cluster: &Cluster, name: &str) -> Result<i32, Box<dyn Error>> {
    let line = cluster.folder().last_log_line(name).ok_or("no log")?;
    Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
}

fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn hosts_reach_each_other(island: Island, runtime: &tokio::runtime::Runtime) -> Outcome {
    let folder = tempfile::tempdir()?;
    let cluster = runtime.block_on(start(island, &folder, 3));
    for (from, to) in [(1, 2), (2, 3), (3, 1)] {
        connect(address(&cluster, to))?;
        let answer = ask(&mut connect(address(&cluster, from))?, &address(&cluster, to).to_string())?;
        assert_eq!(answer, "hello", "from {from} to {to}");
    }
    // A host sees its network alone: the bridge's address, and the loopback that is its own.
    assert_eq!(ask(&mut connect(address(&cluster, 1))?, "127.0.0.1")?, "hello");
    assert!(ask_udp("127.0.0.1".parse()?).is_err(), "the island's loopback isn't a host's");
    let outside = ask(&mut connect(address(&cluster, 1))?, "192.0.2.1")?;
    assert_eq!(outside, "Network is unreachable (os error 101)", "at once, not in silence");
    runtime.block_on(cluster.stop())?;
    Ok(())
}

/// Like `up`: the port is the machine's, the cluster is in an island. The child asks from the machine.
fn forwarded() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port: SocketAddr = listener.local_addr()?;
    // SAFETY: this process has one thread.
    let asker = match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            let asked = TcpStream::connect(port).map_err(Into::into).and_then(|mut connection| {
                connection.set_read_timeout(Some(SOON))?;
                ask(&mut connection, "hello")
            });
            std::process::exit(if asked.is_ok_and(|answer| answer == "hello") { 0 } else { 1 });
        }
        nix::unistd::ForkResult::Parent { child } => child,
    };
    let island = Island::enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let cluster = runtime.block_on(start(island, &folder, 1));
    let host = address(&cluster, 1);
    connect(host)?;
    let _context = runtime.enter();
    let _forward = local::forward(listener, vec![(host, PORT).into()])?;
    let status = nix::sys::wait::waitpid(asker, None)?;
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(asker, 0));
    runtime.block_on(cluster.stop())?;
    Ok(())
}

fn nothing_left(island: Island, runtime: &tokio::runtime::Runtime) -> Outcome {
    let folder = tempfile::tempdir()?;
    let cluster = runtime.block_on(start(island, &folder, 2));
    for number in [1, 2] {
        connect(address(&cluster, number))?;
    }
    let pids = [
        cluster.pid("n1").ok_or("off")?,
        cluster.pid("n2").ok_or("off")?,
        pod_of(&cluster, "n1")?,
        pod_of(&cluster, "n2")?,
    ];
    assert!(pids.iter().all(|&pid| runs(pid)));
    let links = || std::fs::read_to_string("/proc/net/dev").map(|text| text.matches("port").count());
    assert_eq!(links()?, 2);
    runtime.block_on(cluster.stop())?;
    assert!(!pids.iter().any(|&pid| runs(pid)));
    assert_eq!(links()?, 0);
    Ok(())
}

fn second_thread() -> Outcome {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || receiver.recv());
    assert!(matches!(Island::enter(), Err(local::IslandError::Threads)));
    drop(sender);
    let _ = other.join();
    Ok(())
}
