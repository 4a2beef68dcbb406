//! Starts clusters with `holdfast up` and waits for conditions.

use std::fs::File;
use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

/// The program under test.
pub const HOLDFAST: &str = env!("CARGO_BIN_EXE_holdfast");

/// How long a condition may take before the test gives up on it: generous, for busy machines.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The manifest of a Deployment `web`: so many pods that answer HTTP at port 8080.
pub fn web(replicas: usize) -> String {
    let template = web_template("web");
    format!(
        r#"apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
{template}"#
    )
}

/// The `template` in a workload's `spec` for pods of an app that answer with who they are.
pub fn web_template(app: &str) -> String {
    format!(
        r#"  template:
    metadata: {{labels: {{app: {app}}}}}
    spec:
      runtimeClassName: host
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        command: ["holdfast", "web"]
        env:
        - name: POD_IP
          valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
"#
    )
}

/// A cluster in the foreground of a process of its own; ended when dropped.
pub struct Cluster {
    up: Mutex<Child>,
    /// Where the cluster's folder and what `up` prints lie.
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    _loopback: Option<File>,
}

impl Cluster {
    /// Three hosts in the kind of network that this machine allows.
    pub async fn up() -> Cluster {
        Cluster::with(3, "auto").await
    }

    /// `nodes` hosts in the network `net`, all of them ready.
    pub async fn with(nodes: usize, net: &str) -> Cluster {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().to_owned();
        let mut cluster = Cluster::start(&dir, nodes, net);
        cluster._temporary = Some(temporary);
        cluster.wait_until_ready(nodes).await;
        cluster
    }

    /// Starts (again) the cluster whose folder lies in `dir`.
    pub fn start(dir: &Path, nodes: usize, net: &str) -> Cluster {
        Cluster::start_with(dir, nodes, net, &[])
    }

    /// As [`start`](Self::start), with more arguments.
    pub fn start_with(dir: &Path, nodes: usize, net: &str, more: &[&str]) -> Cluster {
        Cluster::start_program(Path::new(HOLDFAST), dir, nodes, net, more)
    }

    /// As [`start_with`](Self::start_with), by a copy of the program.
    pub fn start_program(program: &Path, dir: &Path, nodes: usize, net: &str, more: &[&str]) -> Cluster {
        // On loopback all clusters of a machine share its addresses: one at a time.
        let is_there = net == "loopback" || net != "netns" && !testing::allows_namespaces();
        let loopback = is_there.then(lock_loopback);
        let log = File::create(dir.join("up.log")).unwrap();
        let mut command = Command::new(program);
        command
            .args(["up", "--port", "0", "--net", net, "--nodes", &nodes.to_string(), "--dir"])
            .arg(dir.join("cluster"))
            .args(more);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        let up = command.spawn().unwrap();
        Cluster { up: Mutex::new(up), dir: dir.to_owned(), _temporary: None, _loopback: loopback }
    }

    /// Waits until all hosts are ready.
    pub async fn wait_until_ready(&self, nodes: usize) {
        wait_for(&format!("{nodes} ready nodes"), || async {
            if let Ok(Some(status)) = self.up.lock().unwrap().try_wait() {
                panic!("up ended with {status}: {}", self.log());
            }
            let client = self.client().await?;
            let list = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.ok()?;
            Api::<Namespace>::all(client).get("default").await.ok()?;
            (list.items.iter().filter(|node| is_ready(node)).count() == nodes).then_some(())
        })
        .await;
    }

    /// A client with the administrator's certificate.
    pub async fn client(&self) -> Option<Client> {
        Client::try_from(self.config().await?).ok()
    }

    /// One for where hosts stop without a word: what such a host was asked just before is given up, and asked again, after seconds. A client's
    /// own patience is minutes.
    pub async fn hasty_client(&self) -> Option<Client> {
        let mut config = self.config().await?;
        config.read_timeout = Some(Duration::from_secs(5));
        Client::try_from(config).ok()
    }

    async fn config(&self) -> Option<Config> {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).ok()?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.ok()
    }

    /// Prints the ends of all logs: they are gone with the folder.
    fn tell_what_happened(&self) {
        const LINES: usize = 30;
        let hosts = std::fs::read_dir(self.folder()).into_iter().flatten().filter_map(Result::ok);
        let hosts = hosts.map(|host| host.path().join("host.log")).filter(|log| log.exists());
        for path in [self.dir.join("up.log")].into_iter().chain(hosts) {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let end = &lines[lines.len().saturating_sub(LINES)..];
            eprintln!("the end of {}:\n{}\n", path.display(), end.join("\n"));
        }
    }

    fn pid(&self) -> i32 {
        self.up.lock().unwrap().id() as i32
    }

    /// The path of the kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join("kubeconfig")
    }

    /// The cluster's folder.
    pub fn folder(&self) -> PathBuf {
        self.dir.join("cluster")
    }

    /// A folder for what a test needs beside the cluster's own.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `up` printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("up.log")).unwrap_or_default()
    }

    /// Runs the thin client against the cluster.
    pub fn holdfast(&self, args: &[&str]) -> Output {
        self.run(HOLDFAST, args)
    }

    /// Runs `program` with the cluster's kubeconfig.
    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        Command::new(program)
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("can't run {program}: {error}"))
    }

    /// Kills all hosts at once with their pods, as a power cut of the whole machine room would.
    pub fn kill_hosts(&self) {
        // Nobody sees another's end, and `up` starts no host again that would find pods.
        assert!(self.signal_hosts("", libc::SIGSTOP) > 0, "no host was found");
        let folder = self.folder().canonicalize().unwrap();
        self.signal_processes(libc::SIGKILL, |command| {
            let mut words = command.split(' ').skip(1);
            words.next() == Some("shim")
                && words.next().is_some_and(|pod| Path::new(pod).starts_with(&folder))
        });
        self.signal_hosts("", libc::SIGKILL);
    }

    /// How often the cluster's timelines say that this happened to `subject`, on whichever host.
    pub fn happened(&self, what: &str, subject: &str) -> usize {
        let hosts = std::fs::read_dir(self.folder()).unwrap().filter_map(Result::ok);
        let files = hosts.filter_map(|host| std::fs::read_to_string(host.path().join("timeline.jsonl")).ok());
        let events = files.flat_map(|file| {
            let lines = file.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.collect::<Vec<_>>()
        });
        events.filter(|event| event["what"] == what && event["subject"] == subject).count()
    }

    /// Stops one host's process for a while.
    pub async fn pause(&self, host: &str, time: Duration) {
        let config = format!("/{host}/config.json");
        assert_eq!(self.signal_hosts(&config, libc::SIGSTOP), 1, "{host} was not found");
        tokio::time::sleep(time).await;
        self.signal_hosts(&config, libc::SIGCONT);
    }

    /// Sends a signal to one host's process.
    pub fn signal_host(&self, host: &str, signal: i32) {
        let config = format!("/{host}/config.json");
        assert_eq!(self.signal_hosts(&config, signal), 1, "{host} was not found");
    }

    /// The process of one host.
    pub fn pid_of_host(&self, host: &str) -> Option<i32> {
        let mut found = None;
        self.each_process(|pid, command| {
            if self.is_host(command) && command.contains(&format!("/{host}/config.json")) {
                found = Some(pid);
            }
        });
        found
    }

    fn is_host(&self, command: &str) -> bool {
        command.contains(" host ") && command.contains(self.dir.to_str().unwrap())
    }

    /// Sends a signal to the hosts of this cluster whose command line contains `words`; says to how many.
    fn signal_hosts(&self, words: &str, signal: i32) -> i32 {
        self.signal_processes(signal, |command| self.is_host(command) && command.contains(words))
    }

    fn signal_processes(&self, signal: i32, is_meant: impl Fn(&str) -> bool) -> i32 {
        let mut reached = 0;
        self.each_process(|pid, command| {
            if is_meant(command) {
                // SAFETY: kill has no memory effects; the process is a host or a shim of this test's own cluster.
                reached += i32::from(unsafe { libc::kill(pid, signal) } == 0);
            }
        });
        reached
    }

    /// Every process with its command line, its words a space apart.
    fn each_process(&self, mut see: impl FnMut(i32, &str)) {
        for process in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            see(pid, &String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }

    /// Sends `signal` to `up` and waits for its end.
    pub fn signal(mut self, signal: i32) -> Option<i32> {
        // SAFETY: kill has no memory effects; the process is our own child and not yet waited for.
        unsafe { libc::kill(self.pid(), signal) };
        let status = self.up.get_mut().unwrap().wait().unwrap();
        status.code()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_what_happened();
        }
        let pid = self.pid();
        // SAFETY: as above.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let (ends, ended) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            // SAFETY: an all-zero siginfo is a valid one, and outlives the call. The process is our own child, and is left to be
            // waited for.
            unsafe {
                let mut told: libc::siginfo_t = std::mem::zeroed();
                libc::waitid(libc::P_PID, pid as libc::id_t, &mut told, libc::WEXITED | libc::WNOWAIT);
            }
            let _ = ends.send(());
        });
        let up = self.up.get_mut().unwrap();
        // Ended by force it leaves its hosts to end by themselves.
        if ended.recv_timeout(PATIENCE).is_err() {
            eprintln!("up doesn't end within {PATIENCE:?} of its signal");
            let _ = up.kill();
        }
        let _ = waiting.join();
        let _ = up.wait();
    }
}

/// Whether a node's Ready condition is True.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Asks until the answer is there.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Held by the test that runs a cluster on the machine's loopback addresses.
pub fn lock_loopback() -> File {
    let file = File::create(std::env::temp_dir().join("holdfast-loopback.lock")).unwrap();
    file.lock().unwrap();
    file
}

/// What a program printed, for a message.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
