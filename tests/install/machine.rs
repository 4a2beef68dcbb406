//! A machine: a network namespace with one link, folders of its own, and the program.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use etcd::proto::MemberListRequest;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use local::HostNamespace;
use nix::sched::{CloneFlags, setns};
use pki::{Authority, FRONT_PROXY, HostNames, Identity, OwnKey, Trust, Validity};

/// The program that is tested.
pub const HOLDFAST: &str = env!("CARGO_BIN_EXE_holdfast");
/// The cluster's virtual address.
pub const VIP: &str = "10.73.0.100";

pub struct Machine {
    folder: PathBuf,
    number: u8,
    namespace: HostNamespace,
    host: Option<Child>,
}

impl Machine {
    pub fn new(folder: &Path, number: u8, namespace: HostNamespace) -> Self {
        let folder = folder.join(format!("n{number}"));
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        // A file of its own, which another one can take the place of.
        let program = folder.join("bin/holdfast");
        std::fs::hard_link(HOLDFAST, &program)
            .or_else(|_| std::fs::copy(HOLDFAST, &program).map(drop))
            .unwrap();
        Machine { folder, number, namespace, host: None }
    }

    fn etc(&self) -> PathBuf {
        self.folder.join("etc")
    }

    /// Whether it has become a host.
    pub fn is_host(&self) -> bool {
        self.etc().join("config.yaml").exists()
    }

    /// Its configuration.
    pub fn config(&self) -> String {
        std::fs::read_to_string(self.etc().join("config.yaml")).unwrap()
    }

    pub fn kubeconfig(&self) -> String {
        self.etc().join("admin.conf").display().to_string()
    }

    /// The program, on this machine.
    fn command<S: AsRef<str>>(&self, words: &[S]) -> Command {
        let program = self.folder.canonicalize().unwrap().join("bin/holdfast");
        let mut command = self.program(program.to_str().unwrap());
        command.args(words.iter().map(AsRef::as_ref)).stdin(Stdio::null()).env_remove("KUBECONFIG");
        if matches!(words[0].as_ref(), "init" | "join" | "reset" | "upgrade") {
            command.arg("--config-dir").arg(self.etc()).arg("--data-dir").arg(self.folder.join("lib"));
        }
        command
    }

    /// Any program, on this machine.
    fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let namespace: OwnedFd = self.namespace.handle().unwrap();
        let enter = move || setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: between fork and exec there is one system call, which allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    fn run<S: AsRef<str>>(&self, words: &[S]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs `holdfast join` with a token, which it reads.
    fn run_join(&self, token: &str, words: &[&str]) -> Output {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // Who is refused before may not read it.
        let _ = writeln!(child.stdin.take().unwrap(), "{token}");
        child.wait_with_output().unwrap()
    }

    /// Joins; what it said to stdout.
    pub fn joins(&self, token: &str, words: &[&str]) -> String {
        succeeded("join", self.run_join(token, words))
    }

    /// Is not let in; what it said.
    pub fn fails_to_join(&self, token: &str, words: &[&str]) -> String {
        failed("join", &self.run_join(token, words))
    }

    /// Runs a command that must succeed; what it said to stdout.
    pub fn does<S: AsRef<str>>(&self, words: &[S]) -> String {
        succeeded(words[0].as_ref(), self.run(words))
    }

    /// Runs a command that must fail; what it said.
    pub fn fails<S: AsRef<str>>(&self, words: &[S]) -> String {
        failed(words[0].as_ref(), &self.run(words))
    }

    /// Its addresses and routes, for people; none where there is no `ip` to ask.
    pub fn network(&self) -> Option<String> {
        if !testing::has("ip") {
            return None;
        }
        let ip = |words: &[&str]| succeeded("ip", self.program("ip").args(words).output().unwrap());
        Some(ip(&["-4", "address"]) + &ip(&["-4", "route", "show", "table", "all"]))
    }

    /// Whether the machine is as it was before it became a host, but for its own address.
    pub fn is_clean(&self) {
        for folder in ["etc", "lib"] {
            assert!(!self.folder.join(folder).exists(), "{folder} is left");
        }
        let folder = self.folder.canonicalize().unwrap();
        let folder = folder.to_str().unwrap().as_bytes();
        for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let is_ours = command.windows(folder.len()).any(|part| part == folder);
            assert!(!is_ours, "{} runs", String::from_utf8_lossy(&command));
        }
        if let Some(network) = self.network() {
            assert!(network.contains(&format!("10.73.0.{}", self.number)), "its own: {network}");
            for others in ["10.244.", "10.96.", VIP] {
                assert!(!network.contains(others), "{others} is left: {network}");
            }
        }
    }

    /// What the host says that is started and finds its disk empty.
    pub fn starts_without_data(&self) -> String {
        std::fs::rename(self.folder.join("lib"), self.folder.join("lost")).unwrap();
        // Where the disk would be mounted.
        std::fs::create_dir(self.folder.join("lib")).unwrap();
        self.fails(&["host", "--config", &self.etc().join("config.yaml").display().to_string()])
    }

    /// Becomes the machine that another one was: its configuration leads to the other's keys and data.
    pub fn takes_files_of(&self, other: &Machine) {
        std::fs::create_dir_all(self.etc()).unwrap();
        for file in ["config.yaml", "admin.conf"] {
            std::fs::copy(other.etc().join(file), self.etc().join(file)).unwrap();
        }
    }

    /// Starts the host.
    pub fn start(&mut self) {
        let config = self.etc().join("config.yaml").display().to_string();
        let log = File::options().create(true).append(true).open(self.folder.join("host.log")).unwrap();
        let mut command = self.command(&["host", "--config", &config]);
        command.stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        self.host = Some(command.spawn().unwrap());
    }

    /// Runs `holdfast upgrade`. The host is started again each time that it ends, as by a manager of services.
    pub fn upgrade(&mut self, words: &[&str]) -> Output {
        let mut command = self.command(&[&["upgrade"][..], words].concat());
        let mut upgrade = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while upgrade.try_wait().unwrap().is_none() {
            let host = self.host.as_mut().unwrap();
            if host.try_wait().unwrap().is_some() {
                self.start();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        upgrade.wait_with_output().unwrap()
    }

    /// Upgrades; what was said to stdout.
    pub fn upgrades(&mut self, words: &[&str]) -> String {
        succeeded("upgrade", self.upgrade(words))
    }

    /// Isn't upgraded; what was said.
    pub fn fails_to_upgrade(&mut self, words: &[&str]) -> String {
        failed("upgrade", &self.upgrade(words))
    }

    /// The process that runs the host.
    pub fn process(&self) -> u32 {
        self.host.as_ref().unwrap().id()
    }

    /// Leaves its certificates as they are where it was off until after their end.
    pub fn end_certificates(&self) {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let (pki, name) = (self.etc().join("pki"), format!("n{}", self.number));
        let (authority, now) = (Authority::load(&pki).unwrap(), SystemTime::now());
        let over = Validity { from: now - 91 * DAY, until: now - DAY };
        let key = |name: &str| OwnKey::load_or_create(&pki, name).unwrap();
        let host = HostNames {
            name: name.clone(),
            address: [10, 73, 0, self.number].into(),
            virtual_address: VIP.parse().unwrap(),
            first_service_address: [10, 96, 0, 1].into(),
        };
        authority.certify_host(&key(&name), &host, over).unwrap().save(&pki, &name).unwrap();
        let front_proxy = authority.certify_front_proxy(&key(FRONT_PROXY), over).unwrap();
        front_proxy.save(&pki, FRONT_PROXY).unwrap();
    }

    /// The hash of its key.
    pub fn key_hash(&self) -> String {
        let name = format!("n{}", self.number);
        Identity::load(&self.etc().join("pki"), &name).unwrap().key_hash().unwrap().to_string()
    }

    /// Until when its host's certificate is valid.
    pub fn valid_until(&self) -> SystemTime {
        let name = format!("n{}", self.number);
        Identity::load(&self.etc().join("pki"), &name).unwrap().validity().unwrap().until
    }

    /// Kills all that runs here, at once: the host first, so that it sees no pod end.
    pub fn cut(&mut self) {
        if let Some(mut host) = self.host.take() {
            host.kill().unwrap();
            host.wait().unwrap();
        }
        let folder = self.folder.canonicalize().unwrap();
        for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let mut words = command.split(|byte| *byte == 0).skip(1);
            let is_shim = words.next() == Some(b"shim");
            let pod = words.next().map(|word| String::from_utf8_lossy(word).into_owned()).unwrap_or_default();
            if is_shim && Path::new(&pod).starts_with(&folder) {
                // SAFETY: kill has no memory effects; the process is a shim of this test's own.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }

    /// A client of the cluster, as its administrator.
    pub async fn client(&self) -> kube::Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// Whether so many members vote, as this machine's host knows.
    pub async fn voters(&self, wanted: usize) -> Option<()> {
        let pki = self.etc().join("pki");
        let admin = Authority::load(&pki).unwrap().admin_identity(SystemTime::now()).unwrap();
        let tls = admin.client_config(&Trust::load(&pki).unwrap(), &[b"h2"]).unwrap();
        let at = format!("https://10.73.0.{}:2379", self.number).parse().unwrap();
        let members =
            etcd::Client::new(vec![at], Some(tls)).members(MemberListRequest::default()).await.ok()?;
        let voters = members.members.iter().filter(|member| !member.is_learner);
        (voters.count() == wanted).then_some(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            const LINES: usize = 30;
            let log = std::fs::read_to_string(self.folder.join("host.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
            eprintln!("the end of what n{} wrote:\n{end}\n", self.number);
        }
        self.cut();
    }
}

fn succeeded(what: &str, output: Output) -> String {
    assert!(output.status.success(), "{what}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn failed(what: &str, output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{what}: {}", text(output));
    text(output)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
