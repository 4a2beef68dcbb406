//! exec, attach, cp and port-forward by `kubectl`, as people type them: over WebSocket and over SPDY.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use crate::harness::{Cluster, HOLDFAST, PATIENCE, text};

const PODS: &str = r#"apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  runtimeClassName: host
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    command: ["/bin/sh", "-c", "echo up and running; exec holdfast web"]
    env:
    - {name: GREETING, value: hello}
    - name: POD_IP
      valueFrom: {fieldRef: {fieldPath: status.podIP}}
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /, port: http}}
---
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  runtimeClassName: host
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: talker
    stdin: true
    stdinOnce: true
    command: ["/bin/sh", "-c", "while read line; do echo heard $line; done; echo over"]
---
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  runtimeClassName: host
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers:
  - name: shell
    stdin: true
    tty: true
    command: ["/bin/sh"]
"#;

/// Ways that kubectl can take: what it does by itself, and what older ones did.
const WAYS: [(&str, &str); 2] = [("WebSocket", "true"), ("SPDY", "false")];
/// Both ways of kubectl, and the program's own commands.
const EXECS: [(&str, &str, &str); 3] =
    [("WebSocket", "kubectl", "true"), ("SPDY", "kubectl", "false"), ("holdfast", HOLDFAST, "true")];

struct Kubectl<'a> {
    cluster: &'a Cluster,
    /// `kubectl`, or a program that has its commands.
    program: &'a str,
    websockets: &'a str,
}

impl Kubectl<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command
            .args(args)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", self.websockets)
            .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", self.websockets)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it with an input: exit code, output, errors.
    fn run(&self, args: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writing = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// Runs it; it must succeed.
    fn says(&self, args: &[&str], input: &[u8]) -> String {
        let (code, out, err) = self.run(args, input);
        assert_eq!(code, Some(0), "{} {args:?} failed: {out}{err}", self.program);
        out
    }
}

/// Whether there is a kubectl.
pub fn kubectl_is_there() -> bool {
    testing::has("kubectl")
}

async fn with_pods() -> Cluster {
    let cluster = Cluster::up().await;
    let file = cluster.dir().join("pods.yaml");
    std::fs::write(&file, PODS).unwrap();
    let applied = cluster.run("kubectl", &["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
    let wait = ["wait", "--for=condition=Ready", "--timeout=60s", "pod/web", "pod/talker", "pod/shell"];
    let ready = cluster.run("kubectl", &wait);
    assert!(ready.status.success(), "{}", text(&ready));
    cluster
}

/// The processes whose command line holds these words.
fn processes(words: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").starts_with(words)).count()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn commands_run_beside_a_container() {
    if !kubectl_is_there() {
        return;
    }
    let cluster = with_pods().await;
    for (way, program, websockets) in EXECS {
        let kubectl = Kubectl { cluster: &cluster, program, websockets };
        // Environment and folder are the container's; the outputs stay apart.
        let script = "echo $GREETING; echo oops >&2; pwd";
        let (code, out, err) = kubectl.run(&["exec", "web", "--", "sh", "-c", script], b"");
        assert_eq!((code, err.contains("oops")), (Some(0), true), "{way}: {out}{err}");
        assert!(out.starts_with("hello\n") && out.trim_end().ends_with("/work"), "{way}: {out}");
        let (code, _, err) = kubectl.run(&["exec", "web", "--", "sh", "-c", "exit 42"], b"");
        assert_eq!(code, Some(42), "{way}: {err}");
        // What is killed ends as shells have it.
        let (code, _, err) = kubectl.run(&["exec", "web", "--", "sh", "-c", "kill -9 $$"], b"");
        assert_eq!(code, Some(137), "{way}: {err}");
        let (code, _, err) = kubectl.run(&["exec", "web", "--", "no-such-program"], b"");
        assert!(code != Some(0) && err.contains("no-such-program"), "{way}: {err}");
        let (code, _, err) = kubectl.run(&["exec", "web", "-c", "other", "--", "true"], b"");
        assert!(code != Some(0) && err.contains("container"), "{way}: {err}");

        // Megabytes go in and come out whole, and the end of the input is passed on.
        let large: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
        let out = kubectl.says(&["exec", "-i", "web", "--", "cat"], &large);
        assert!(out.as_bytes() == large, "{way}: {} of {} bytes came back", out.len(), large.len());
        assert_eq!(kubectl.says(&["exec", "-i", "web", "--", "wc", "-c"], &large).trim(), "3000000", "{way}");
    }
    // A caller that leaves takes the command along, even if that reads and prints nothing.
    let kubectl = Kubectl { cluster: &cluster, program: "kubectl", websockets: "true" };
    for (seconds, input) in
        [("86399", Stdio::null()), ("86398", Stdio::from(File::open("/dev/zero").unwrap()))]
    {
        let words = format!("sleep {seconds}");
        let mut child =
            kubectl.command(&["exec", "-i", "web", "--", "sleep", seconds]).stdin(input).spawn().unwrap();
        wait_until("the command", || processes(&words) == 1);
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the command's end", || processes(&words) == 0);
    }
    // With its pod a command ends, and what it began, and the caller hears of it.
    let script = "sleep 86397 & sleep 86397";
    let child = kubectl.command(&["exec", "web", "--", "sh", "-c", script]).spawn().unwrap();
    wait_until("both", || processes("sleep 86397") == 2);
    assert!(cluster.run("kubectl", &["delete", "pod", "web", "--now"]).status.success());
    wait_until("the end of both", || processes("sleep 86397") == 0);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(137));
}

#[tokio::test]
async fn files_are_copied() {
    if !kubectl_is_there() {
        return;
    }
    if !testing::has("tar") {
        return;
    }
    let cluster = with_pods().await;
    let (from, to) = (cluster.dir().join("from"), cluster.dir().join("to"));
    let content: Vec<u8> = (0..500_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&from, &content).unwrap();
    for (way, websockets) in WAYS {
        let kubectl = Kubectl { cluster: &cluster, program: "kubectl", websockets };
        kubectl.says(&["cp", from.to_str().unwrap(), "web:copied"], b"");
        kubectl.says(&["cp", "web:copied", to.to_str().unwrap()], b"");
        assert!(std::fs::read(&to).unwrap() == content, "{way}");
        std::fs::remove_file(&to).unwrap();
    }
}

/// kubectl on a terminal of this test.
struct OnTerminal {
    child: Child,
    terminal: File,
    seen: String,
}

impl OnTerminal {
    fn start(kubectl: &Kubectl<'_>, args: &[&str]) -> Self {
        let size = Winsize { ws_row: 31, ws_col: 117, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let inside = File::from(pty.slave);
        let mut command = kubectl.command(args);
        let stream = || inside.try_clone().unwrap();
        command.stdin(stream()).stdout(stream()).stderr(stream());
        OnTerminal { child: command.spawn().unwrap(), terminal: File::from(pty.master), seen: String::new() }
    }

    /// Reads until something was printed.
    fn until(&mut self, word: &str) {
        while !self.seen.contains(word) {
            let mut bytes = [0; 4096];
            let read = self.terminal.read(&mut bytes).unwrap_or(0);
            assert!(read > 0, "{word:?} did not come: {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    fn types(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn a_terminal_is_one() {
    if !kubectl_is_there() {
        return;
    }
    let cluster = with_pods().await;
    for (_, program, websockets) in EXECS {
        let kubectl = Kubectl { cluster: &cluster, program, websockets };
        let mut shell = OnTerminal::start(&kubectl, &["exec", "-it", "web", "--", "sh"]);
        shell.types("test -t 0 && test -t 2 && echo it-is-$((40+2))-a-terminal\n");
        shell.until("it-is-42-a-terminal");
        shell.types("tty; echo $TERM; stty size\n");
        shell.until("xterm");
        shell.until("31 117");
        // Control-C ends what runs in the foreground, not the shell.
        shell.types("sleep 86396; echo went-on-$((40+2))\n");
        wait_until("the sleep", || processes("sleep 86396") == 1);
        shell.types("\x03");
        shell.types("echo after-$((40+2))\n");
        shell.until("after-42");
        assert_eq!(processes("sleep 86396"), 0);
        shell.types("exit 7\n");
        assert_eq!(shell.child.wait().unwrap().code(), Some(7), "{}", shell.seen);
        // A job in the background goes with its caller, whose terminal closes.
        let mut shell =
            OnTerminal::start(&kubectl, &["exec", "-it", "web", "--", "sh", "-c", "set -m; sh -i"]);
        shell.types("sleep 86395 & echo began-$((40+2))\n");
        shell.until("began-42");
        assert_eq!(processes("sleep 86395"), 1);
        shell.child.kill().unwrap();
        shell.child.wait().unwrap();
        wait_until("the job's end", || processes("sleep 86395") == 0);
    }
}

#[tokio::test]
async fn a_container_is_attached_to() {
    if !kubectl_is_there() {
        return;
    }
    let cluster = with_pods().await;
    let kubectl = Kubectl { cluster: &cluster, program: "kubectl", websockets: "true" };
    for (_, websockets) in WAYS {
        let kubectl = Kubectl { cluster: &cluster, program: "kubectl", websockets };
        let mut shell = OnTerminal::start(&kubectl, &["attach", "-it", "shell"]);
        shell.types("echo here-$((40+2)); stty size\n");
        shell.until("here-42");
        shell.until("31 117");
        shell.child.kill().unwrap();
        shell.child.wait().unwrap();
    }
    // The shell goes on without those who left; what it printed stands in its log.
    let phase = kubectl.says(&["get", "pod", "shell", "-o", "jsonpath={.status.phase}"], b"");
    assert_eq!(phase, "Running");
    assert!(kubectl.says(&["logs", "shell"], b"").contains("here-42"));

    // With stdinOnce, the end of the first input is the process' own, and its end that of the caller's session.
    let mut child = kubectl.command(&["attach", "-i", "talker"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin.write_all(b"one\n").unwrap();
    assert!(lines.any(|line| line.unwrap().contains("heard one")));
    stdin.write_all(b"two\n").unwrap();
    drop(stdin);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(rest, ["heard two", "over"]);
    assert!(child.wait().unwrap().success());
    kubectl.says(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/talker", "--timeout=60s"], b"");
}

/// Asks a port for its page.
fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test]
async fn ports_are_forwarded() {
    if !kubectl_is_there() {
        return;
    }
    let cluster = with_pods().await;
    for (way, websockets) in WAYS {
        let kubectl = Kubectl { cluster: &cluster, program: "kubectl", websockets };
        let mut child = kubectl.command(&["port-forward", "pod/web", ":8080", ":9"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut port = || -> u16 {
            let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("127.0.0.1:")).unwrap();
            let number = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
            number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
        };
        let (open, closed) = (port(), port());
        for _ in 0..3 {
            let answer = get(open).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("web"), "{way}: {answer}");
        }
        // Several at a time.
        let together: Vec<_> = (0..8).map(|_| std::thread::spawn(move || get(open).unwrap())).collect();
        for one in together {
            assert!(one.join().unwrap().contains("web"), "{way}");
        }
        // Where nobody listens, the connection ends.
        assert_eq!(get(closed).unwrap_or_default(), "", "{way}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_node_is_asked_through_the_api() {
    if !kubectl_is_there() {
        return;
    }
    let cluster = with_pods().await;
    let kubectl = Kubectl { cluster: &cluster, program: "kubectl", websockets: "true" };
    let ask = |pod: &str, path: &str| {
        let node = kubectl.says(&["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"], b"");
        kubectl.says(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/{path}")], b"")
    };
    assert_eq!(ask("web", "healthz"), "ok");
    assert!(ask("web", "pods").contains("\"name\":\"web\""));
    assert!(ask("web", "metrics").contains("kubelet_running_pods "));
    assert!(ask("web", "configz").contains("KubeletConfiguration"));
    assert_eq!(ask("web", "containerLogs/default/web/web"), "up and running\n");
    let (code, _, err) = kubectl.run(&["get", "--raw", "/api/v1/nodes/nobody/proxy/healthz"], b"");
    assert!(code != Some(0) && err.contains("not found"), "{err}");
}
