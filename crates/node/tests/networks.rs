//! Pods of containers with networks of their own, on a host whose network is one of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use support::image::can_contain;
use support::network::{Own, ip, on_threads_with};
use support::{PATIENCE, TestHost, is_ready, main_status};

/// Runs a test on threads of their own in a network namespace of their own, with a host in it.
fn on_a_host<F: Future<Output = ()>>(test: impl FnOnce(TestHost) -> F + Send + 'static) {
    if !can_contain() || !testing::has("ip") {
        return;
    }
    on_threads_with(Own::Network, move || async move {
        let mut host = TestHost::with_networks().await;
        host.switch_on();
        host.image("box", &json!({}));
        test(host).await;
    });
}

/// The links of this host's pods.
fn links() -> Vec<String> {
    let all = ip("-o link show");
    let names = all.lines().filter_map(|line| line.split(": ").nth(1)?.split('@').next().map(str::to_owned));
    names.filter(|name| name.starts_with("pod")).collect()
}

/// A web server on all of its addresses at port 80, which says who it is.
fn server(name: &str) -> Value {
    let script =
        format!("mkdir -p /tmp/www; echo {name} > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www");
    json!({"command": ["sh", "-c", script], "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1}})
}

fn address(pod: &Value) -> String {
    let address = pod["status"]["podIP"].as_str().unwrap().to_owned();
    assert_eq!(pod["status"]["podIPs"], json!([{"ip": address}]));
    address
}

/// What a web server says; None if it can't be reached.
fn get(address: &str) -> Option<String> {
    let ip: IpAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&(ip, 80).into(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.rsplit("\r\n\r\n").next()?.trim().to_owned())
}

#[test]
fn pods_of_one_host_listen_at_one_port_and_reach_each_other_services_and_no_loopback() {
    on_a_host(|mut host| async move {
        host.contained("a", server("a"), json!({}));
        let mut as_user = server("b");
        as_user["securityContext"] = json!({"runAsUser": 33});
        host.contained("b", as_user, json!({}));
        let a = address(&host.until("a", "ready", is_ready).await);
        let b = address(&host.until("b", "ready", is_ready).await);
        assert_eq!((get(&a).as_deref(), get(&b).as_deref()), (Some("a"), Some("b")));
        assert_eq!(links().len(), 2);

        let service = TcpListener::bind("10.96.0.5:80").unwrap();
        let of_host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let secret = of_host.local_addr().unwrap().port();
        let told = std::thread::spawn(move || {
            let (mut stream, from) = service.accept().unwrap();
            let mut asked = [0; 512];
            let _ = stream.read(&mut asked);
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\na service\n").unwrap();
            from.ip().to_string()
        });
        let script = format!(
            "ip -4 -o addr show dev eth0 | grep -o 'inet [0-9./]*'; ls /sys/class/net; ip route | grep -o 'default via 169.254.1.1 dev eth0'; \
             wget -q -O - http://{b}; wget -q -O - http://10.96.0.5; ping -c 1 -w 20 {b} > /dev/null && echo pinged; \
             wget -q -O - http://127.0.0.1:{secret} 2>&1 | grep -o refused; \
             cat /proc/sys/net/ipv4/ip_local_port_range"
        );
        let sysctls = json!([{"name": "net.ipv4.ip_local_port_range", "value": "20000 30000"}]);
        let spec = json!({"securityContext": {"sysctls": sysctls}});
        let printed = host.script("c", &script, json!({}), spec).await;
        let c = address(&host.writer.get("pods", "default", "c").unwrap());
        assert_eq!(
            printed,
            format!(
                "inet {c}/32\neth0\nlo\ndefault via 169.254.1.1 dev eth0\nb\na service\npinged\nrefused\n20000\t30000\n"
            )
        );
        assert_eq!(told.join().unwrap(), c, "in its own name");

        for name in ["a", "b", "c"] {
            host.delete(name, 0);
            host.until_gone(name).await;
        }
        assert_eq!(links(), Vec::<String>::new());
        host.shut_down().await;
    });
}

#[test]
fn a_pods_network_outlives_the_agent_and_not_its_shim() {
    on_a_host(|mut host| async move {
        host.contained("a", server("a"), json!({"restartPolicy": "Always"}));
        let a = address(&host.until("a", "ready", is_ready).await);
        let before = links();
        host.agent.take().unwrap().leave().await;
        assert_eq!(get(&a).as_deref(), Some("a"), "without an agent");
        host.switch_on();
        // What the host has of it is put right.
        ip(&format!("route del {a} table local"));
        host.agent.take().unwrap().leave().await;
        host.switch_on();
        let answers = async {
            while get(&a).as_deref() != Some("a") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answers).await.unwrap();
        assert_eq!(links(), before);

        host.kill_shims();
        let again = |pod: &Value| is_ready(pod) && main_status(pod)["restartCount"] == 1;
        let pod = host.until("a", "ready again", again).await;
        assert_eq!((address(&pod), get(&a).as_deref(), links()), (a, Some("a"), before));
        host.shut_down().await;
        let gone = async {
            while !links().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    });
}

#[test]
fn a_pod_may_share_the_hosts_network_and_one_with_users_of_its_own_rules_its_own() {
    on_a_host(|mut host| async move {
        let shared =
            host.script("shared", "ls /sys/class/net", json!({}), json!({"hostNetwork": true})).await;
        assert_eq!(shared, "eth0\nfar\nlo\n");
        host.contained(
            "asks",
            json!({"command": ["true"]}),
            json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}}),
        );
        let why = "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled";
        host.until_event("SysctlForbidden", |message| message == why).await;
        let pod = host.until("asks", "rejected", |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(pod["status"]["reason"], "SysctlForbidden");
        assert_eq!(pod["status"]["message"], format!("Pod was rejected: {why}"));

        let rules = json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}});
        let script = "ls /sys/class/net; ip link set eth0 mtu 1400 && echo changed; \
            cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start; ping -c 1 -w 20 10.73.0.1 > /dev/null && echo pinged";
        host.contained(
            "users",
            {
                let mut one = json!({"command": ["sh", "-c", script]});
                support::merge(&mut one, &rules);
                one
            },
            json!({"hostUsers": false}),
        );
        let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let pod = host.until("users", "over", over).await;
        let refused = main_status(&pod)["state"]["terminated"]["message"].as_str().unwrap_or_default();
        if refused.contains("idmapped") {
            return testing::skip("idmap", refused);
        }
        assert_eq!(host.log("users", 0), "eth0\nlo\nchanged\n0\t65535\n0\npinged\n", "{:#}", pod["status"]);
        host.shut_down().await;
    });
}
