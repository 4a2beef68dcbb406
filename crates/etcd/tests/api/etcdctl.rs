//! The tool that people have: where it is installed, each command must say what it says against an etcd.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::servers::{self, Running};

/// Commands with their input, whose words must be the same.
const SAME: &[(&[&str], &str)] = &[
    (&["put", "/a", "1"], ""),
    (&["put", "/a", "2", "--prev-kv"], ""),
    (&["put", "/b", "3"], ""),
    (&["put", "/d/1", "x"], ""),
    (&["put", "/d/2", "y"], ""),
    (&["get", "/a"], ""),
    (&["get", "/a", "--rev=2"], ""),
    (&["get", "", "--prefix", "--keys-only"], ""),
    (&["get", "/", "--prefix", "--sort-by=value", "--order=DESCEND", "--limit=2"], ""),
    (&["get", "/b", "--from-key", "--print-value-only"], ""),
    (&["txn"], "value(\"/a\") = \"2\"\n\nput /t yes\nget /a\n\nput /t no\n\n"),
    (&["txn"], "mod(\"/a\") > \"100\"\n\nput /t yes\n\ndel /b\nget /t\n\n"),
    (&["txn"], "create(\"/a\") = \"2\"\nver(\"/a\") < \"9\"\n\nget / --prefix --keys-only\ndel /t\n\n\n\n"),
    (&["get", "/a", "/c", "--count-only", "--write-out=fields"], ""),
    (&["get", "/a", "--consistency=s", "--print-value-only"], ""),
    (&["get", "/a", "--rev=999"], ""),
    (&["get", "/", "--prefix", "--sort-by=MODIFY", "--order=ASCEND", "--keys-only"], ""),
    (&["put", "/a", "--ignore-value"], ""),
    (&["put", "/nobody", "--ignore-value"], ""),
    (&["put", "", "x"], ""),
    (&["del", "/d/", "--prefix", "--prev-kv"], ""),
    (&["del", "/nobody"], ""),
    (&["compaction", "4"], ""),
    (&["get", "/a", "--rev=3"], ""),
    (&["compaction", "400"], ""),
    (&["put", "/x", "1", "--lease=77"], ""),
    (&["alarm", "list"], ""),
    (&["lease", "list"], ""),
    (&["lease", "timetolive", "4d"], ""),
    (&["lock", "mutex", "echo", "held"], ""),
    (&["get", "mutex", "--prefix"], ""),
];

/// What differs by nature, with a word that must be in it.
const ALIKE: &[(&[&str], &str)] = &[
    (&["endpoint", "status", "-w", "json"], "\"leader\""),
    (&["endpoint", "health"], "healthy"),
    (&["endpoint", "hashkv"], ", "),
    (&["member", "list"], "started, n1"),
    (&["defrag"], "Finished"),
    (&["lease", "grant", "60"], "granted with TTL(60s)"),
];

fn etcdctl(server: &Running, arguments: &[&str], input: &str) -> Option<(bool, String, String)> {
    let mut child = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_ENDPOINTS", server.endpoint())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // A command without input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Some((output.status.success(), text(output.stdout), text(output.stderr)))
}

/// The last line, where a message ends: the lines before have times and addresses in them.
fn told(errors: &str) -> &str {
    errors.lines().last().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_gets_what_etcd_gives() {
    let ours = servers::embedded().await;
    if etcdctl(&ours, &["version"], "").is_none() {
        return testing::skip("etcdctl", "etcdctl is not installed");
    }
    let peer = servers::peer().await;
    for (arguments, input) in SAME {
        let (ok, said, errors) = etcdctl(&ours, arguments, input).unwrap();
        if let Some(peer) = &peer {
            let (peer_ok, peer_said, peer_errors) = etcdctl(peer, arguments, input).unwrap();
            // A lock's key has its lease's number in it, and these fields are the server's own.
            let own = ["ClusterID", "MemberID", "RaftTerm"];
            let shown = |said: &str| -> Vec<String> {
                let lines = said.lines().filter(|line| !own.iter().any(|field| line.contains(field)));
                lines.map(str::to_owned).collect()
            };
            if arguments[0] != "lock" {
                assert_eq!(shown(&said), shown(&peer_said), "{arguments:?}: {errors}");
            }
            assert_eq!((ok, told(&errors)), (peer_ok, told(&peer_errors)), "{arguments:?}");
        }
    }
    for (arguments, word) in ALIKE {
        for server in [Some(&ours), peer.as_ref()].into_iter().flatten() {
            let (ok, said, errors) = etcdctl(server, arguments, "").unwrap();
            assert!(ok && (said.contains(word) || errors.contains(word)), "{arguments:?}: {said}{errors}");
        }
    }
    for server in [Some(&ours), peer.as_ref()].into_iter().flatten() {
        lease_and_election(server);
        members(server);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    let (ok, _, errors) = etcdctl(&ours, &["snapshot", "save", file.to_str().unwrap()], "").unwrap();
    assert!(ok, "{errors}");
    let backup = store::Backup::decode(std::fs::read(file).unwrap().into()).unwrap();
    assert_eq!(backup.keys().len(), ours.store.as_ref().unwrap().snapshot().len());
}

/// Runs a command that must succeed, and tells what it said.
fn ask(server: &Running, arguments: &[&str]) -> String {
    let (ok, said, errors) = etcdctl(server, arguments, "").unwrap();
    assert!(ok, "{arguments:?}: {said}{errors}");
    said
}

fn lease_and_election(server: &Running) {
    let granted = ask(server, &["lease", "grant", "600"]);
    let lease = granted.split_whitespace().nth(1).unwrap();
    ask(server, &["put", "/leased", "x", "--lease", lease]);
    assert!(ask(server, &["lease", "keep-alive", "--once", lease]).contains("keepalived with TTL(600)"));
    let told = ask(server, &["lease", "timetolive", lease, "--keys"]);
    assert!(told.contains("granted with TTL(600s)") && told.contains("/leased"), "{told}");
    assert!(ask(server, &["lease", "list"]).contains(lease));
    assert!(ask(server, &["lease", "revoke", lease]).contains("revoked"));
    assert_eq!(ask(server, &["get", "/leased"]), "");

    let mut candidate = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_ENDPOINTS", server.endpoint())
        .args(["elect", "office", "somebody"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(candidate.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert!(line.starts_with("office/"), "{line}");
    assert_eq!(ask(server, &["get", "office", "--prefix", "--print-value-only"]), "somebody\n");
    candidate.kill().unwrap();
    candidate.wait().unwrap();
}

fn members(server: &Running) {
    let added = ask(server, &["member", "add", "n2", "--learner", "--peer-urls=http://127.0.0.1:9"]);
    let number = added.split_whitespace().nth(1).unwrap();
    assert!(added.contains("added to cluster"), "{added}");
    let listed = ask(server, &["member", "list"]);
    assert!(listed.lines().any(|line| line.contains("unstarted") && line.ends_with("true")), "{listed}");
    let (ok, _, errors) = etcdctl(server, &["member", "promote", number], "").unwrap();
    assert!(!ok && errors.contains("in sync with leader"), "{errors}");
    assert!(ask(server, &["member", "remove", number]).contains("removed from cluster"));
    assert_eq!(ask(server, &["member", "list"]).lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn etcdctl_watches() {
    let server = servers::memory().await;
    if etcdctl(&server, &["version"], "").is_none() {
        return testing::skip("etcdctl", "etcdctl is not installed");
    }
    for arguments in [["put", "/a", "1"], ["put", "/a", "2"], ["del", "/a", "--prev-kv"]] {
        assert!(etcdctl(&server, &arguments, "").unwrap().0);
    }
    let mut watch = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .env("ETCDCTL_ENDPOINTS", server.endpoint())
        .args(["watch", "/", "--prefix", "--rev=2", "--prev-kv"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(watch.stdout.take().unwrap());
    let expected = "PUT\n/a\n1\nPUT\n/a\n1\n/a\n2\nDELETE\n/a\n2\n/a\n\n";
    let mut lines = String::new();
    while lines.len() < expected.len() && std::io::BufRead::read_line(&mut said, &mut lines).unwrap() > 0 {}
    watch.kill().unwrap();
    watch.wait().unwrap();
    assert_eq!(lines, expected);
}
