//! The program and its terminal: one that goes away, one that nobody reads, and the messages of commands that
//! can't do what they were asked to.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};

use crate::harness::{HOLDFAST, PATIENCE, lock_loopback, text};

fn up(dir: &Path) -> Command {
    let mut command = Command::new(HOLDFAST);
    command.args(["up", "--nodes", "1", "--port", "0", "--etcd-port", "0", "--dir"]).arg(dir);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn wait_until_it_answers(dir: &Path) {
    let kubeconfig = dir.join("kubeconfig");
    wait_until("the cluster answers", || {
        let mut get = Command::new(HOLDFAST);
        get.args(["get", "namespaces", "--kubeconfig"]).arg(&kubeconfig);
        get.output().unwrap().status.success()
    });
}

fn kill(child: &Child, signal: i32) {
    // SAFETY: kill has no memory effects; the process is our own child and not yet waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
}

fn is_running(dir: &Path) -> bool {
    let dir = dir.to_str().unwrap();
    std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).any(|process| {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(dir)
    })
}

/// As `ssh -t HOST holdfast up` whose connection is lost: the program leads the session of a terminal that goes away.
#[test]
fn a_terminal_that_goes_away_ends_the_cluster() {
    let _lock = (!testing::has_namespaces()).then(lock_loopback);
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("cluster");
    // Closed in every child, or one of them would keep the terminal.
    let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_NOCTTY);
    let theirs = options.open(ptsname_r(&ours).unwrap()).unwrap();
    let handle = || Stdio::from(theirs.try_clone().unwrap());
    let mut command = up(&dir);
    command.stdin(handle()).stdout(handle()).stderr(handle());
    // SAFETY: system calls only, between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // Tests that run under nohup ignore it, and so would what they start.
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    drop((command, theirs));
    let mut terminal = BufReader::new(ours);
    let mut line = String::new();
    while !line.contains("export KUBECONFIG") {
        line.clear();
        assert!(terminal.read_line(&mut line).unwrap() > 0, "up ended");
    }
    drop(terminal);
    wait_until("up ends", || child.try_wait().unwrap().is_some());
    wait_until("its hosts end", || !is_running(&dir));
}

/// As `nohup holdfast up`.
#[test]
fn a_terminal_that_does_not_matter_ends_nothing() {
    let _lock = (!testing::has_namespaces()).then(lock_loopback);
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("cluster");
    let mut command = up(&dir);
    // SAFETY: a system call only, between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut child = command.spawn().unwrap();
    wait_until_it_answers(&dir);
    kill(&child, libc::SIGHUP);
    kill(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0), "ended as it was asked to, not by the terminal");
    assert!(!is_running(&dir));
}

/// Ends what a test that fails leaves in the background.
struct Down<'a>(&'a Path);

impl Down<'_> {
    fn output(&self) -> Output {
        Command::new(HOLDFAST).args(["down", "--dir"]).arg(self.0).output().unwrap()
    }
}

impl Drop for Down<'_> {
    fn drop(&mut self) {
        drop(self.output());
    }
}

#[test]
fn a_cluster_in_the_background_runs_until_it_is_ended_and_keeps_its_data() {
    let _lock = (!testing::has_namespaces()).then(lock_loopback);
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("cluster");
    let nothing = Down(&dir).output();
    assert!(
        !nothing.status.success() && text(&nothing).contains("there is no cluster in"),
        "{}",
        text(&nothing)
    );
    let down = Down(&dir);
    let start = || up(&dir).arg("-d").stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let holdfast = |args: &[&str]| {
        Command::new(HOLDFAST).args(args).arg("--kubeconfig").arg(dir.join("kubeconfig")).output().unwrap()
    };

    let first = start();
    assert!(first.status.success(), "{}", text(&first));
    let export = String::from_utf8(first.stdout.clone()).unwrap();
    assert!(export.starts_with("export KUBECONFIG="), "{}", text(&first));
    let end = format!("holdfast down --dir {} stops the cluster", dir.canonicalize().unwrap().display());
    assert!(text(&first).contains(&end), "{}", text(&first));
    let manifest = temporary.path().join("kept.json");
    std::fs::write(&manifest, r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}}"#)
        .unwrap();
    let applied = holdfast(&["apply", "-f", manifest.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
    let again = start();
    assert!(again.status.success() && text(&again).contains("already (process "), "{}", text(&again));
    assert!(text(&again).contains(&export), "{}", text(&again));
    let in_front = up(&dir).stderr(Stdio::piped()).output().unwrap();
    assert!(!in_front.status.success(), "one at a time: {}", text(&in_front));

    let ended = down.output();
    assert!(ended.status.success() && text(&ended).contains("its data stay"), "{}", text(&ended));
    assert!(!is_running(&dir), "down waits for the end");
    let ended = down.output();
    assert!(ended.status.success() && text(&ended).contains("no cluster runs in"), "{}", text(&ended));

    let next = start();
    assert!(next.status.success(), "{}", text(&next));
    let kept = holdfast(&["get", "configmap", "kept"]);
    assert!(kept.status.success(), "{}", text(&kept));
    assert!(down.output().status.success());
    assert!(!is_running(&dir));
}

/// As `holdfast up 2>&1 | head -1`, and as with a full disk behind the output.
#[test]
fn a_cluster_goes_on_when_nobody_hears_it() {
    let _lock = (!testing::has_namespaces()).then(lock_loopback);
    for is_full in [false, true] {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("cluster");
        let mut command = up(&dir);
        if is_full {
            let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
            command.stdout(full()).stderr(full());
        } else {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        if let Some(said) = child.stderr.take() {
            let mut line = String::new();
            BufReader::new(said).read_line(&mut line).unwrap();
            assert!(line.contains("1 host in"), "{line}");
        }
        drop(child.stdout.take());
        wait_until_it_answers(&dir);
        kill(&child, libc::SIGINT);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert!(!is_running(&dir));
    }
}

#[test]
fn a_log_in_json_has_an_object_a_line() {
    let _lock = (!testing::has_namespaces()).then(lock_loopback);
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("cluster");
    let mut child = up(&dir).args(["--log-format", "json"]).spawn().unwrap();
    wait_until_it_answers(&dir);
    kill(&child, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let log = std::fs::read_to_string(dir.join("n1/host.log")).unwrap();
    assert!(!log.is_empty());
    for line in log.lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["level"].is_string() && object["fields"].is_object(), "{line}");
    }
    // What a task says names it.
    assert!(log.contains(r#""thread":"store-core""#), "{log}");
}

/// Its error is lost, and it says so with its status.
#[test]
fn a_command_that_can_t_say_what_is_wrong_ends_as_it_should() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(HOLDFAST);
    command.args(["get", "pods", "--kubeconfig", "/nowhere"]).stderr(writer);
    assert_eq!(command.status().unwrap().code(), Some(1));
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

#[test]
fn what_can_t_be_is_refused_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("cluster");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut homeless = Command::new(HOLDFAST);
    homeless.args(["up", "--port", "0"]).env_remove("HOME").env_remove("XDG_STATE_HOME");
    let with = |args: &[&str]| {
        let mut command = Command::new(HOLDFAST);
        command.args(args).arg("--dir").arg(&dir);
        command
    };
    for (mut command, says) in [
        (
            with(&["up", "--port", &port]),
            format!("port {port} of 127.0.0.1 is in use; give another with --port"),
        ),
        (with(&["up", "--nodes", "8"]), "1..=7".into()),
        (homeless, "say where with --dir DIR".into()),
    ] {
        let output = run(&mut command);
        let said = text(&output);
        assert!(!output.status.success() && said.contains(&says), "{said}");
        assert!(!dir.exists(), "{said}");
    }
    let mut misspelt = Command::new(HOLDFAST);
    let output = run(misspelt.args(["get", "pods", "--show-label"]));
    let said = text(&output);
    assert!(!output.status.success() && said.contains("unexpected argument"), "{said}");
    assert!(!said.contains("as a value"), "{said}");
}

/// A workload that no host can run is given up at once, with the remedy.
#[test]
fn a_drill_of_pods_that_can_t_run_ends_with_the_remedy() {
    let _lock = (!testing::has_namespaces()).then(lock_loopback);
    let temporary = tempfile::tempdir().unwrap();
    let workload = temporary.path().join("workload.yaml");
    let manifest = drill_workload().replace("runtimeClassName: host", "hostname: x");
    let manifest = manifest.replace(
        "- name: web\n        command",
        "- name: web\n        image: web\n        imagePullPolicy: Never\n        command",
    );
    std::fs::write(&workload, manifest).unwrap();
    let mut drill = Command::new(HOLDFAST);
    drill.args(["drill", "--json", "-", "--workload"]).arg(&workload).env("TMPDIR", temporary.path());
    let mut child = drill.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty(), "there is nothing to report");
    let error = said.lines().last().unwrap();
    assert!(error.starts_with("error: the workload can't run: the pods web-"), "{said}");
    // Hosts that run as root run containers, and would run this one if it weren't for its image.
    let images = error.matches("Container image \"web\" is not present with pull policy of Never").count();
    let runtime = error.matches("spec.runtimeClassName: host").count();
    assert_eq!(images + runtime, 1, "{said}");
}

fn drill_workload() -> &'static str {
    include_str!("../../crates/drill/workload.yaml")
}
