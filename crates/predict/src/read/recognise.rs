//! What kind of file it is.

use std::net::IpAddr;
use std::path::Path;

use config::HostConfig;
use serde_json::Value;

use super::certificate::certificate;
use super::haproxy::haproxy;
use super::keepalived::keepalived;
use super::nginx::nginx;
use super::objects::{k3s, object};
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
    let begins = |word: &str| lines().any(|line| line.split_whitespace().next() == Some(word));
    let unknown = |host: &mut Host, why: String| host.unknown.push((path.to_owned(), why));
    let twice = |is_there: bool, host: &mut Host| {
        if is_there {
            let why =
                "its host has another one already; put each host's files into a folder of their own".into();
            host.unknown.push((path.to_owned(), why));
        }
        is_there
    };
    if text.contains("-----BEGIN CERTIFICATE-----") {
        match certificate(path, text) {
            Some(certificate) => host.certificates.push(certificate),
            None => unknown(host, "a certificate that can't be read, or that names no server".into()),
        }
    } else if text.contains("PRIVATE KEY-----") {
        unknown(host, "a private key, which nobody needs for this".into());
    } else if begins("ExecStart") || lines().any(|line| line.starts_with("ExecStart=")) {
        unit(path, text, host);
    } else if begins("frontend")
        || begins("backend")
        || begins("listen")
        || name.contains("haproxy") && !is_yaml(name)
    {
        if !twice(host.haproxy.is_some(), host) {
            let read = haproxy(text);
            host.passwords
                .extend(read.passwords.iter().map(|line| (path.to_owned(), *line, "HAProxy's users")));
            host.not_understood.extend(read.not_understood.iter().cloned());
            host.haproxy = Some((path.to_owned(), read));
        }
    } else if begins("vrrp_instance") || begins("vrrp_script") {
        if !twice(host.keepalived.is_some(), host) {
            match keepalived(text) {
                Ok(read) => {
                    host.not_understood.extend(read.not_understood.iter().cloned());
                    host.keepalived = Some((path.to_owned(), read));
                }
                Err(error) => unknown(host, error.to_string()),
            }
        }
    } else if name.contains("nginx") || text.contains('{') && (begins("upstream") || begins("stream")) {
        if !twice(host.nginx.is_some(), host) {
            match nginx(text) {
                Ok(read) => {
                    host.not_understood.extend(read.not_understood.iter().cloned());
                    host.nginx = Some((path.to_owned(), read));
                }
                Err(error) => unknown(host, error.to_string()),
            }
        }
    } else if is_kernel(name, text) {
        for line in lines().filter(|line| !line.starts_with(';')) {
            let Some((key, value)) = line.split_once('=') else { continue };
            let key = key.trim().trim_start_matches('-').replace('/', ".");
            host.kernel.insert(key, Setting { value: value.trim().to_owned(), file: path.to_owned() });
        }
    } else if lines().any(|line| variable(line).is_some_and(|(name, _)| known_variable(name))) {
        lines().filter_map(variable).for_each(|(name, value)| environment(host, name, value, path));
    } else if !is_yaml(name) && command_line(path, name, text, host) {
    } else {
        values_of(file, host);
    }
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
    let is_name =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    is_name.then_some((name, value.trim()))
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

fn environment(host: &mut Host, name: &str, value: &str, path: &str) {
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
        of.into_iter().for_each(|program| host.set(program, name, &plain, path));
    }
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
    for line in lines.filter_map(|line| line.strip_prefix("Environment=")) {
        for word in words(line) {
            let Some((name, value)) = word.split_once('=') else { continue };
            match name.starts_with("HTTP2_") {
                true => host.set(program, name, value, path),
                false => environment(host, name, value, path),
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
            ("k.conf", "vrrp_instance a {", "a block of line 1 doesn't end"),
            ("big", &"x".repeat(LARGEST + 1), "larger than"),
        ] {
            let host = known(path, text);
            assert!(host.unknown[0].1.contains(why), "{path}: {:?}", host.unknown);
            assert_eq!(host.used, 0, "{path}");
        }
    }

    #[test]
    fn settings_of_the_kernel() {
        let host = known("99-ha.conf", "# x\nnet.ipv4.ip_nonlocal_bind = 1\n");
        assert_eq!(host.kernel["net.ipv4.ip_nonlocal_bind"].value, "1");
    }

    #[test]
    fn a_second_file_of_a_kind_is_not_mixed_with_the_first() {
        let mut host = known("a/haproxy.cfg", "backend a\n");
        read(&File { path: "b/haproxy.cfg".into(), text: "backend b\n".into() }, &mut host);
        assert_eq!(host.haproxy.as_ref().unwrap().1.sections[0].name, "a");
        assert!(host.unknown[0].1.contains("a folder of their own"));
    }
}
