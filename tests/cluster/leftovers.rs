//! What a pod of a killed host left running doesn't keep the host from starting again.

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, LogParams, PostParams};

use crate::harness::{Cluster, wait_for};

/// Binds the host's ports as soon as they are free, and keeps them.
const THIEF: &str = "import os, socket, time
held, wanted = [], [2380, 6443, 10250]
print('waits for the ports', flush=True)
while True:
    for port in list(wanted):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((os.environ['HOST'], port)); s.listen(); held.append(s); wanted.remove(port)
        except OSError:
            s.close()
    time.sleep(0.001)
";

#[tokio::test]
async fn a_thief_of_its_ports_does_not_keep_a_killed_host_down() {
    if !std::path::Path::new("/usr/bin/python3").exists() {
        eprintln!("skipped: there is no /usr/bin/python3");
        return;
    }
    let cluster = Cluster::up().await;
    let client: Client = cluster.client().await.unwrap();
    let pods = Api::<Pod>::default_namespaced(client);
    // Out of its container's session; what it inherited from it stays.
    let command = "setsid /usr/bin/python3 -c \"$THIEF\" & exec sleep 1000";
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "thief"},
        "spec": {"nodeName": "n1", "runtimeClassName": "host", "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "command": ["sh", "-c", command],
                "env": [{"name": "THIEF", "value": THIEF},
                    {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]}]},
    }))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let restarts = || async {
        let status = pods.get("thief").await.ok()?.status?;
        let main = status.container_statuses?.into_iter().next()?;
        main.ready.then_some(main.restart_count)
    };
    let before = wait_for("the thief to run", restarts).await;
    // A host that begins again before the thief does has its ports, and leaves the pod in peace.
    wait_for("the thief to wait for the ports", || async {
        let said = pods.logs("thief", &LogParams::default()).await.ok()?;
        said.contains("waits for the ports").then_some(())
    })
    .await;
    cluster.signal_host("n1", libc::SIGKILL);
    wait_for("n1 to run its pod again", || async { restarts().await.filter(|now| *now > before) }).await;
}
