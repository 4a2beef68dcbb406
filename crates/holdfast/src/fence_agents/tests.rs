use std::path::{Path, PathBuf};
use std::process::Command;

use futures::future::BoxFuture;
use machinery::{Object, Status};
use objects::{FENCED_EPOCH, FENCING, LEASE_EPOCH};
use serde_json::Value;
use store::{Memory, Txn};

use super::*;

/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);

/// Keeps what Nodes are marked with. Nobody reads Events here.
struct Marks(Arc<Memory>);

impl Writer for Marks {
    fn write<'a>(&'a self, _: &'a str, write: Write) -> BoxFuture<'a, Result<Object, Status>> {
        Box::pin(async move {
            if let Write::Merge { subject, patch, .. } = write
                && subject.kind == "Node"
            {
                mark(&self.0, &patch["metadata"]["annotations"]).await;
            }
            Ok(Object(serde_json::Map::new()))
        })
    }
}

/// Merges annotations into those of n2.
async fn mark(store: &Memory, annotations: &Value) {
    let key = objects::key("", "nodes", "", "n2");
    let stored = store.snapshot().get(key.as_bytes()).unwrap().value.bytes();
    let mut node: Value = serde_json::from_slice(&stored).unwrap();
    let all = node["metadata"]["annotations"].as_object_mut().unwrap();
    all.extend(annotations.as_object().unwrap().clone());
    all.retain(|_, value| !value.is_null());
    store.txn(Txn::put(key, node.to_string())).await.unwrap();
}

/// An executable file with that script.
fn program(folder: &Path, name: &str, script: &str) -> PathBuf {
    let program = folder.join(name);
    // By another process: one that this process forks meanwhile would have it open for writing, and then it can't be executed.
    let mut write = Command::new("sh");
    write.args(["-c", r#"echo "$SCRIPT" > "$FILE" && chmod 755 "$FILE""#]);
    write.env("SCRIPT", format!("#!/bin/sh\n{script}")).env("FILE", &program);
    assert!(write.status().unwrap().success());
    program
}

/// A cluster whose host n2 has a pod that must not run twice, and an agent that switches it by a file.
struct Cluster {
    folder: tempfile::TempDir,
    store: Arc<Memory>,
    agents: FenceAgents,
    silent: watch::Sender<BTreeMap<String, Instant>>,
    missed: watch::Sender<BTreeSet<String>>,
}

impl Cluster {
    async fn new(script: &str, stops: &str) -> Cluster {
        let (folder, store) = (tempfile::tempdir().unwrap(), Arc::new(Memory::default()));
        let node = json!({"kind": "Node", "apiVersion": "v1",
            "metadata": {"name": "n2", "annotations": {FENCING: "lease,agent", LEASE_EPOCH: "7"}}});
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "db-0", "namespace": "d"},
            "spec": {"nodeName": "n2", "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": STOPS_WITH_LEASE, "status": stops}]}});
        store.txn(Txn::put(objects::key("", "nodes", "", "n2"), node.to_string())).await.unwrap();
        store.txn(Txn::put(objects::key("", "pods", "d", "db-0"), pod.to_string())).await.unwrap();
        let program = program(folder.path(), "fence_file", script);
        let (silent, silent_seen) = watch::channel(BTreeMap::new());
        let (missed, missed_seen) = watch::channel(BTreeSet::new());
        let file = folder.path().join("power").display().to_string();
        let agent = config::FenceAgent {
            program,
            parameters: BTreeMap::from([("file".to_owned(), file)]),
            secrets_file: None,
            action: FenceAction::Off,
            timeout: SOON,
            tries: 2,
        };
        let agents = FenceAgents {
            agents: Arc::new(BTreeMap::from([("n2".to_owned(), agent)])),
            silent_for: Duration::ZERO,
            silence: Silence { silent: silent_seen, missed: missed_seen },
            store: store.clone(),
            writer: Arc::new(Marks(store.clone())),
            recorder: Recorder::start(Arc::new(Marks(store.clone())), USER.into(), Reporter::default()),
            runs: Runs::default(),
        };
        Cluster { folder, store, agents, silent, missed }
    }

    /// Has n2's agent be another one.
    fn configure(&mut self, script: &str, action: FenceAction) {
        let program = program(self.folder.path(), "fence_other", script);
        let agent = config::FenceAgent { program, action, ..self.agents.agents["n2"].clone() };
        self.agents.agents = Arc::new(BTreeMap::from([("n2".to_owned(), agent)]));
    }

    /// In which epoch n2 is to be switched on again.
    fn switch_on(&self) -> Option<Epoch> {
        let node = Reader::<Node>::get(&self.store.snapshot(), "", "n2").unwrap();
        Fencing::of(node.metadata.annotations.as_ref()).switch_on
    }

    /// The agents at work.
    fn run(&self) -> watch::Receiver<Off> {
        let (tell_off, off) = watch::channel(Off::default());
        tokio::spawn(self.agents.clone().run(tell_off));
        off
    }

    /// No member hears n2 any more.
    #[allow(clippy::disallowed_methods)] // Some instant to count from.
    fn silence(&self) {
        self.missed.send_replace(BTreeSet::from(["n2".to_owned()]));
        self.silent.send_replace(BTreeMap::from([("n2".to_owned(), Instant::now())]));
    }

    fn power(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("power")).unwrap_or_default()
    }

    fn metrics(&self) -> String {
        let mut out = String::new();
        self.agents.runs.write(&mut out);
        out
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let looks = async {
            while !holds(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, looks).await.expect("in time");
    }
}

/// An agent that writes down what it was asked to do, and reports it when asked.
const GOOD: &str = r#"
    while IFS='=' read -r name value; do case $name in action) action=$value;; file) file=$value;; esac; done
    case $action in
        status) [ "$(tail -n 1 "$file")" = off ] && exit 2; exit 0;;
        *) echo "$action" >> "$file";;
    esac"#;

#[tokio::test]
async fn a_host_that_is_silent_is_switched_off_and_known_to_be_until_it_is_back() {
    let cluster = Cluster::new(GOOD, "True").await;
    let mut off = cluster.run();
    cluster.silence();
    let known = BTreeMap::from([("n2".to_owned(), 7)]);
    timeout(SOON, off.wait_for(|off| **off == known)).await.expect("in time").unwrap();
    assert_eq!(cluster.power(), "off\n");
    assert!(cluster.metrics().contains(r#"{host="n2",outcome="off"} 1"#), "{}", cluster.metrics());
    cluster.silent.send_replace(BTreeMap::new());
    timeout(SOON, off.wait_for(|off| off.is_empty())).await.expect("it is back").unwrap();
}

#[test]
fn a_leader_switches_on_what_the_one_before_left_off() {
    let leader = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = leader();
    let mut cluster = first.block_on(async {
        let mut cluster = Cluster::new(GOOD, "True").await;
        // It ends with the leader, before the machine is on.
        let hangs = format!(r#"{GOOD}; if [ $action = on ]; then echo > "$file.on"; exec sleep 60; fi"#);
        let hangs = hangs.replace("*) echo", r#"off) echo"#);
        cluster.configure(&hangs, FenceAction::Reboot);
        cluster.run();
        cluster.silence();
        cluster.until(|cluster| cluster.folder.path().join("power.on").exists()).await;
        assert_eq!((cluster.power(), cluster.switch_on()), ("off\n".to_owned(), Some(7)));
        cluster
    });
    drop(first);
    leader().block_on(async {
        // What must not run twice is elsewhere by now.
        mark(&cluster.store, &json!({FENCED_EPOCH: "7"})).await;
        let events = Arc::new(Marks(cluster.store.clone()));
        cluster.agents.recorder = Recorder::start(events, USER.into(), Reporter::default());
        cluster.configure(GOOD, FenceAction::Reboot);
        let off = cluster.run();
        cluster.until(|cluster| cluster.switch_on().is_none()).await;
        assert_eq!(cluster.power(), "off\non\n", "and not off once more");
        assert!(off.borrow().is_empty(), "the first leader saw it off");
    });
}

#[tokio::test]
async fn what_is_to_be_on_again_is_told_to_the_next_leader_by_the_node() {
    #[allow(clippy::disallowed_methods)] // Some instant to count from.
    let heard = Some(Instant::now());
    let mut cluster = Cluster::new(GOOD, "True").await;
    cluster.silence();
    mark(&cluster.store, &json!({SWITCH_ON_EPOCH: "7"})).await;
    let left_off = |cluster: &Cluster| cluster.agents.see("n2", heard, &mut Reader::default()).left_off;
    assert_eq!(left_off(&cluster), None, "it is to stay off");
    cluster.configure(GOOD, FenceAction::Reboot);
    assert_eq!(left_off(&cluster), Some(7));
}

#[tokio::test]
async fn an_agent_that_fails_is_tried_twice_and_then_the_lease_decides() {
    let cluster = Cluster::new(&format!("{GOOD}; [ $action = off ] && exit 1"), "True").await;
    let off = cluster.run();
    cluster.silence();
    cluster.until(|cluster| cluster.metrics().contains(r#"outcome="failed"} 1"#)).await;
    assert_eq!(cluster.power(), "off\noff\n");
    assert!(off.borrow().is_empty());
}

#[tokio::test]
async fn what_is_seen_of_a_host_is_what_spares_it() {
    #[allow(clippy::disallowed_methods)] // Some instant to count from.
    let heard = Some(Instant::now());
    let see = |cluster: &Cluster, heard| {
        let seen = cluster.agents.see("n2", heard, &mut Reader::default());
        Seen { silent_for: seen.silent_for.map(|_| SOON), ..seen }
    };
    let cluster = Cluster::new(GOOD, "True").await;
    let silent = Seen { silent_for: Some(SOON), ..Seen::default() };
    assert_eq!(see(&cluster, None), Seen::default());
    assert_eq!(see(&cluster, heard), silent, "a majority hears it");
    cluster.silence();
    let missed = Seen { is_missed: true, epoch: Some(7), has_single: true, ..silent };
    assert_eq!(see(&cluster, heard), missed);
    let cluster = Cluster::new(GOOD, "False").await;
    cluster.silence();
    assert_eq!(see(&cluster, heard), Seen { has_single: false, ..missed });
}
