//! Addresses that move between hosts, in a whole cluster: a Service's of type LoadBalancer, and the API's.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Cluster, text, wait_for, web};

const SERVICE: &str = r#"apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, allocateLoadBalancerNodePorts: false, selector: {app: web}, ports: [{port: 8099, targetPort: 8080}]}
"#;

fn object(cluster: &Cluster, arguments: &[&str]) -> Option<Value> {
    let said = cluster.holdfast(&[&["get"], arguments, &["-o", "json"]].concat());
    serde_json::from_slice(&said.stdout).ok()
}

/// Who holds the address, as its Lease says.
fn holder(cluster: &Cluster, address: &str) -> Option<String> {
    let lease = object(cluster, &["lease", &format!("load-balancer-{address}"), "-n", "kube-system"])?;
    Some(lease["spec"]["holderIdentity"].as_str()?.to_owned())
}

/// Runs a shell's line in the network of a host, where hosts have one each.
fn shell(cluster: &Cluster, host: &str, line: &str) -> String {
    let pid = cluster.pid_of_host(host).unwrap_or_default().to_string();
    let enters = testing::allows_namespaces();
    let enter = ["nsenter", "-t", &pid, "-n"];
    let words = enter.into_iter().filter(|_| enters).chain(["timeout", "5", "bash", "-c", line]);
    let words: Vec<&str> = words.collect();
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether somebody answers at the address, as it is reached from a host.
fn answers(cluster: &Cluster, from: &str, address: &str) -> bool {
    let ask = format!(r"exec 3<>/dev/tcp/{address}/8099; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3");
    shell(cluster, from, &ask).contains("200 OK")
}

#[tokio::test]
async fn a_service_s_address_answers_while_its_holder_is_stopped_and_is_on_no_two_links() {
    if !testing::has("bash") || !testing::has("nsenter") || !testing::has("ip") {
        return;
    }
    let cluster = Cluster::up().await;
    let file = cluster.dir().join("web.yaml");
    std::fs::write(&file, format!("{SERVICE}---\n{}", web(2))).unwrap();
    let applied = cluster.holdfast(&["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));
    let address = wait_for("an address", || async {
        let service = object(&cluster, &["service", "web"])?;
        Some(service.pointer("/status/loadBalancer/ingress/0/ip")?.as_str()?.to_owned())
    })
    .await;
    let first = wait_for("a holder", || async { holder(&cluster, &address) }).await;
    let other = ["n1", "n2", "n3"].into_iter().find(|host| *host != first).unwrap();
    wait_for("an answer", || async { answers(&cluster, other, &address).then_some(()) }).await;

    cluster.signal_host(&first, libc::SIGSTOP);
    let second =
        wait_for("another holder", || async { holder(&cluster, &address).filter(|holder| *holder != first) })
            .await;
    if testing::allows_namespaces() {
        // Its program is stopped: what took the address away is its keeper.
        let links = shell(&cluster, &first, "ip -4 address show");
        assert!(!links.contains(&format!("{address}/32")), "{links}");
        wait_for("the address on the other host's link", || async {
            shell(&cluster, &second, "ip -4 address show").contains(&format!("{address}/32")).then_some(())
        })
        .await;
    }
    wait_for("an answer by the other one", || async { answers(&cluster, &second, &address).then_some(()) })
        .await;
    cluster.signal_host(&first, libc::SIGCONT);
    wait_for("the first one's return", || async {
        let node = object(&cluster, &["node", &first])?;
        let conditions = node["status"]["conditions"].as_array()?;
        conditions.iter().any(|is| is["type"] == "Ready" && is["status"] == "True").then_some(())
    })
    .await;
    assert_eq!(holder(&cluster, &address).as_deref(), Some(&*second), "it stays where it is");
    assert!(answers(&cluster, &first, &address));

    let deleted = cluster.holdfast(&["delete", "service", "web"]);
    assert!(deleted.status.success(), "{}", text(&deleted));
    wait_for("the end of the address", || async {
        let leases = text(&cluster.holdfast(&["get", "leases", "-n", "kube-system"]));
        (!leases.contains("load-balancer-")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_leader_that_is_stopped_has_the_api_s_address_no_more() {
    if !testing::has("bash")
        || !testing::has("nsenter")
        || !testing::has("ip")
        || !testing::allows_namespaces()
    {
        return;
    }
    let cluster = Cluster::up().await;
    let has = |host: &str| shell(&cluster, host, "ip -4 address show").contains("10.73.0.100/32");
    let holders = || ["n1", "n2", "n3"].into_iter().filter(|host| has(host));
    let leader = wait_for("a leader", || async { holders().next() }).await;
    cluster.signal_host(leader, libc::SIGSTOP);
    wait_for("the address on another host's link, and on the first one's no more", || async {
        let holders: Vec<_> = holders().collect();
        (!holders.is_empty() && !holders.contains(&leader)).then_some(())
    })
    .await;
    cluster.signal_host(leader, libc::SIGCONT);
    wait_for("one who has it, and an answer", || async {
        (holders().count() == 1).then_some(())?;
        object(&cluster, &["node", leader])
    })
    .await;
}
