//! What kind of file it is.

use std::net::IpAddr;
use std::path::Path;

use config::HostConfig;
use serde_json::{Map, Value};

use super::certificate::certificate;
use super::objects::{k3s, object};
use super::source::Reader;
use super::words::words;
use super::{Host, Program, Setting, note};
use crate::{File, LARGEST};

/// Reads a file into what is known of its host. What can't be read is named there.
pub(crate) fn read(file: &File, host: &mut Host) {
    let before = host.unknown.len();
    if file.text.len() > LARGEST {
        host.unknown.push((file.path.clone(), format!("it is larger than {} KiB", LARGEST >> 10)));
    } else {
        let mark = host.not_understood.len();
        read_text(file, host);
        // Who read it knew the lines, and not the file.
        for told in host.not_understood.iter_mut().skip(mark).filter(|told| told.file.is_empty()) {
            told.file.clone_from(&file.path);
        }
    }
    host.used += usize::from(host.unknown.len() == before);
}

fn read_text(file: &File, host: &mut Host) {
    let (path, text) = (file.path.as_str(), file.text.as_str());
    let name = path.rsplit(['/', '#']).next().unwrap_or(path);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let unknown = |host: &mut Host, why: String| host.unknown.push((path.to_owned(), why));
    if is_yaml(name) || is_object(text) {
        // Before all others: a list of ConfigMaps may hold any of them.
        values_of(file, host);
    } else if text.contains("-----BEGIN CERTIFICATE-----") {
        match certificate(path, text) {
            Some(of) if of.names.iter().any(|name| name == "kubernetes") => host.certificates.push(of),
            Some(_) => unknown(host, "a certificate of another server than the API's".into()),
            None => unknown(host, "a certificate that can't be read, or that names no server".into()),
        }
    } else if text.contains("PRIVATE KEY-----") {
        unknown(host, "a private key, which nobody needs for this".into());
    } else if lines().any(|line| line.starts_with("ExecStart")) {
        unit(path, text, host);
    } else if let Some(reader) = reader(text) {
        if let Err(why) = host.keep(reader, path, text) {
            unknown(host, why);
        }
    } else if is_kernel(name, text) {
        let mut counts = false;
        for line in lines().filter(|line| !line.starts_with(';')) {
            let Some((key, value)) = line.split_once('=') else { continue };
            let key = key.trim().trim_start_matches('-').replace('/', ".");
            counts |= key.ends_with(".ip_nonlocal_bind");
            host.kernel.insert(key, Setting { value: value.trim().to_owned(), file: path.to_owned() });
        }
        if !counts {
            unknown(
                host,
                "settings of the kernel without `ip_nonlocal_bind`, the only one that counts here".into(),
            );
        }
    } else if lines().any(|line| variable(line).is_some_and(|(name, _)| known_variable(name))) {
        let each = lines().filter_map(variable);
        if !each.fold(false, |counts, (name, value)| environment(host, name, value, path) | counts) {
            unknown(host, "variables of which none counts here".into());
        }
    } else if command_line(path, name, text, host) {
    } else if text
        .chars()
        .any(|c| c == char::REPLACEMENT_CHARACTER || c.is_control() && !"\n\r\t".contains(c))
    {
        unknown(host, "it is no text".into());
    } else {
        host.variables.extend(lines().filter_map(variable).map(|(name, _)| name.to_owned()));
        values_of(file, host);
    }
}

/// An object of Kubernetes, whatever the file's name.
fn is_object(text: &str) -> bool {
    let has = |key: &str| text.lines().any(|line| line.starts_with(key));
    has("kind:") && has("apiVersion:")
}

/// The program that reads a file with such statements: the names of files are those of too many others.
fn reader(text: &str) -> Option<Reader> {
    let mut haproxy = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let (name, braced) = match first.split_once('{') {
            Some((name, _)) => (name, true),
            None => (first, words.next().is_none_or(|next| next.starts_with('{'))),
        };
        match name {
            "vrrp_instance" | "vrrp_script" | "vrrp_sync_group" | "global_defs" => {
                return Some(Reader::Keepalived);
            }
            "upstream" => return Some(Reader::Nginx),
            "stream" | "http" | "events" | "server" if braced && text.contains('{') => {
                return Some(Reader::Nginx);
            }
            "frontend" | "backend" | "defaults" | "global" => haproxy = true,
            "listen" if !line.ends_with([';', '}']) => haproxy = true,
            _ => {}
        }
    }
    haproxy.then_some(Reader::Haproxy)
}

fn is_yaml(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end))
}

fn is_kernel(name: &str, text: &str) -> bool {
    let setting = |line: &str| line.trim_start_matches('-').starts_with("net.") && line.contains('=');
    name.contains("sysctl") || text.lines().any(|line| setting(line.trim()))
}

/// A command line of a program that is known by its first words, or by the name of the file.
fn command_line(path: &str, name: &str, text: &str, host: &mut Host) -> bool {
    // `/proc/PID/cmdline` has zeros between its words.
    let words = words(&text.replace('\0', "\n"));
    let is_flags = words.first().is_some_and(|first| first.starts_with("--"));
    let named = words.iter().take(2).find_map(|word| Program::of(word).filter(|_| !word.starts_with('-')));
    let Some(program) = named.or_else(|| Program::of(name).filter(|_| is_flags)) else { return false };
    program_words(host, program, &words, path);
    true
}

/// The flags of a program; k3s' hold those of all the others.
pub(super) fn program_words(host: &mut Host, program: Program, words: &[String], path: &str) {
    let holes = words.iter().filter_map(|word| word.strip_prefix('$'));
    let holes = holes.map(|name| (name.trim_matches(['{', '}']).to_owned(), path.to_owned()));
    host.holes.extend(holes.filter(|(name, _)| is_variable(name)));
    if program != Program::K3s {
        host.flags(program, words, path);
        return;
    }
    let mut values = serde_json::Map::new();
    for (name, value) in super::words::flags(words) {
        match values.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
            Value::Array(all) => all.push(Value::String(value)),
            other => *other = Value::String(value),
        }
    }
    let is_agent = words.iter().any(|word| word == "agent");
    k3s(host, &values, is_agent, path);
}

fn variable(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
    is_variable(name).then_some((name, value.trim()))
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

fn known_variable(name: &str) -> bool {
    name.starts_with("ETCD_")
        || name.starts_with("K3S_")
        || name.starts_with("HTTP2_")
        || args_of(name).is_some()
}

/// The program whose flags a variable holds: `KUBELET_EXTRA_ARGS`, `KUBE_APISERVER_OPTS` and the like.
fn args_of(name: &str) -> Option<Program> {
    let stem =
        ["_EXTRA_ARGS", "_KUBEADM_ARGS", "_ARGS", "_OPTS"].iter().find_map(|end| name.strip_suffix(end))?;
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_'], "");
    Program::ALL.into_iter().find(|program| plain(program.name()) == plain(stem))
}

/// k3s' variables, and the settings that they are.
const K3S_VARIABLES: [(&str, &str); 6] = [
    ("K3S_URL", "server"),
    ("K3S_TOKEN", "token"),
    ("K3S_AGENT_TOKEN", "agent-token"),
    ("K3S_TOKEN_FILE", "token-file"),
    ("K3S_DATASTORE_ENDPOINT", "datastore-endpoint"),
    ("K3S_CLUSTER_INIT", "cluster-init"),
];

/// Takes what a variable says; false where it says nothing that counts here.
fn environment(host: &mut Host, name: &str, value: &str, path: &str) -> bool {
    host.variables.insert(name.to_owned());
    let words = words(value);
    let plain = words.join(" ");
    if let Some(flag) = name.strip_prefix("ETCD_") {
        host.set(Program::Etcd, &flag.to_ascii_lowercase().replace('_', "-"), &plain, path);
    } else if let Some(program) = args_of(name) {
        // The value is quoted as a whole.
        program_words(host, program, &super::words::words(&plain), path);
    } else if name.starts_with("HTTP2_") {
        let of =
            ["kube-proxy", "kubelet"].iter().find(|of| path.contains(**of)).and_then(|of| Program::of(of));
        of.iter().for_each(|program| host.set(*program, name, &plain, path));
        return of.is_some();
    } else if let Some((_, key)) = K3S_VARIABLES.iter().find(|(of, _)| *of == name) {
        let is_agent = match host.value(Program::K3s, "") {
            Some(told) => told == "agent",
            None => path.contains("agent"),
        };
        let map = Map::from_iter([((*key).to_owned(), Value::String(plain))]);
        k3s(host, &map, is_agent, path);
    } else {
        return false;
    }
    true
}

/// A unit of systemd: the command line, and the environment.
fn unit(path: &str, text: &str, host: &mut Host) {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let mut program = None;
    for line in lines.clone().filter_map(|line| line.strip_prefix("ExecStart=")) {
        let words = words(line.trim_start_matches(['-', '@', '+', '!', ':']));
        let named = words.iter().take(2).find_map(|word| Program::of(word));
        program = named.or(program);
        if let Some(program) = named {
            program_words(host, program, &words, path);
        }
    }
    let Some(program) = program else {
        host.unknown.push((path.to_owned(), "a unit of a program that nobody here knows".into()));
        return;
    };
    for line in lines.clone().filter_map(|line| line.strip_prefix("EnvironmentFile=")) {
        host.wanted.push((line.trim_start_matches('-').to_owned(), path.to_owned()));
    }
    for line in lines.filter_map(|line| line.strip_prefix("Environment=")) {
        for word in words(line) {
            let Some((name, value)) = word.split_once('=') else { continue };
            match name.starts_with("HTTP2_") {
                true => host.set(program, name, value, path),
                false => drop(environment(host, name, value, path)),
            }
        }
    }
}

/// YAML or JSON.
fn values_of(file: &File, host: &mut Host) {
    let path = file.path.as_str();
    let documents = match values::documents(&file.text) {
        Ok(documents) => documents,
        Err(error) => {
            host.unknown.push((path.to_owned(), error.to_string()));
            return;
        }
    };
    let mut known = false;
    for document in documents {
        let of = document.value;
        for twice in document.duplicates.iter().take(3) {
            note(&mut host.not_understood, 0, twice);
        }
        known |= if of["clusterId"].is_string() && of["peers"].is_object() {
            match HostConfig::from_text(Path::new(path), file.text.as_bytes()) {
                Ok(config) => host.holdfast = Some((path.to_owned(), Box::new(config))),
                Err(error) => host.unknown.push((path.to_owned(), error.to_string())),
            }
            true
        } else {
            object(host, &of, path)
        };
    }
    if !known {
        let why =
            "no file of etcd, HAProxy, keepalived, nginx, Kubernetes, k3s or Holdfast that is known here";
        host.unknown.push((path.to_owned(), why.into()));
    }
}

/// An address of a host that it says of itself, for others to reach it.
pub(crate) fn is_reachable(text: &str) -> bool {
    match text.parse::<IpAddr>() {
        Ok(address) => !address.is_loopback() && !address.is_unspecified(),
        Err(_) => !text.is_empty() && text != "*" && text != "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(path: &str, text: &str) -> Host {
        let mut host = Host::default();
        read(&File { path: path.into(), text: text.into() }, &mut host);
        host.join();
        host
    }

    #[test]
    fn command_lines_come_in_many_files() {
        let unit = "[Service]\nEnvironment=\"HTTP2_PING_TIMEOUT_SECONDS=3\"\nExecStart=/usr/bin/kube-proxy \\\n  --a=b \\\n  $X\n";
        for (path, text) in [
            ("kube-proxy.args", "--a=b\n--c"),
            ("x", "/usr/bin/kube-proxy --a b"),
            ("cmdline", "kube-proxy\0--a=b\0"),
            ("kube-proxy.service", unit),
            ("defaults", "KUBE_PROXY_ARGS=\"--a=b --d=e\""),
        ] {
            assert_eq!(known(path, text).value(Program::KubeProxy, "a"), Some("b"), "{path}");
        }
        assert_eq!(
            known("p.service", unit).value(Program::KubeProxy, "HTTP2_PING_TIMEOUT_SECONDS"),
            Some("3")
        );
        let etcd = known("etcd.env", "ETCD_HEARTBEAT_INTERVAL=\"50\"\nexport ETCD_NAME=n1");
        assert_eq!(etcd.value(Program::Etcd, "heartbeat-interval"), Some("50"));
    }

    #[test]
    fn unknown_files_are_named_with_why() {
        for (path, text, why) in [
            ("a.txt", "hello", "no file of etcd"),
            ("a.key", "-----BEGIN EC PRIVATE KEY-----\nx", "a private key"),
            ("a.crt", "-----BEGIN CERTIFICATE-----\nx", "can't be read"),
            ("a.yaml", "a: [", "yaml: "),
            ("a.bin", "\u{7f}ELF\u{fffd}", "it is no text"),
            ("sysctl.conf", "vm.swappiness = 1", "without `ip_nonlocal_bind`"),
            ("default/haproxy", "# CONFIG=\n#EXTRAOPTS=x\n", "no file of etcd"),
            ("x.env", "K3S_NODE_NAME=a", "none counts here"),
            ("site.conf", "server { location / { proxy_pass http://127.0.0.1:3000; } }", "to API servers"),
            ("k.conf", "vrrp_instance a {", "a block of line 1 doesn't end"),
            ("big", &"x".repeat(LARGEST + 1), "larger than"),
        ] {
            let host = known(path, text);
            assert!(host.unknown[0].1.contains(why), "{path}: {:?}", host.unknown);
            assert_eq!(host.used, 0, "{path}");
        }
    }

    #[test]
    fn a_file_is_known_by_what_it_says_and_not_by_its_name() {
        let nginx = "events {}\nstream {\n upstream a {\n  server 10.0.0.1:6443;\n }\n server {\n  listen 6443;\n  proxy_pass a;\n }\n}\n";
        let mut host = Host::default();
        for (path, text) in [
            ("etc/default/haproxy", "# Defaults\n#CONFIG=\"/etc/haproxy/haproxy.cfg\"\n"),
            ("etc/haproxy/haproxy.cfg", "global\n maxconn 9\nbackend b\n server n1 10.0.0.1:6443 check\n"),
            (
                "manifests/nginx-proxy.yml",
                "kind: Pod\nspec: {containers: [{name: nginx-proxy, image: nginx}]}\n",
            ),
            ("etc/nginx/nginx.conf", nginx),
        ] {
            read(&File { path: path.into(), text: text.into() }, &mut host);
        }
        host.join();
        assert_eq!(host.haproxy.as_ref().unwrap().0.at(3), "etc/haproxy/haproxy.cfg:3");
        assert_eq!(host.nginx.as_ref().unwrap().1.proxies.len(), 1);
        let of_no_use: Vec<_> = host.unknown.iter().map(|(file, _)| file.as_str()).collect();
        assert_eq!(of_no_use, ["etc/default/haproxy", "manifests/nginx-proxy.yml"]);
        assert_eq!(host.used, 2);
    }

    #[test]
    fn variables_of_k3s_are_its_settings() {
        let host = known("k3s-agent.service.env", "K3S_TOKEN=hush\nK3S_URL='https://10.0.0.1:6443'\n");
        assert_eq!((host.value(Program::K3s, ""), host.passwords.len()), (Some("agent"), 1));
        assert_eq!(host.value(Program::K3s, "server"), Some("https://10.0.0.1:6443"));
        let host = known("k3s.service.env", "K3S_DATASTORE_ENDPOINT=postgres://u:hush@db/k\n");
        assert_eq!(host.value(Program::K3s, "datastore-endpoint"), Some("external"));
        assert!(!format!("{host:?}").contains("hush"));
    }

    #[test]
    fn settings_of_the_kernel() {
        let host = known("99-ha.conf", "# x\nnet.ipv4.ip_nonlocal_bind = 1\n");
        assert_eq!(host.kernel["net.ipv4.ip_nonlocal_bind"].value, "1");
    }

    #[test]
    fn a_second_file_of_a_kind_is_not_mixed_with_the_first() {
        let text = "backend a\n server n1 10.0.0.1:6443\n";
        let mut host = Host::default();
        read(&File { path: "a/haproxy.cfg".into(), text: text.into() }, &mut host);
        read(&File { path: "b/haproxy.cfg".into(), text: text.into() }, &mut host);
        host.join();
        assert_eq!(host.haproxy.as_ref().unwrap().1.sections.len(), 1);
        assert!(host.unknown[0].1.contains("a folder of their own"));
    }
}
